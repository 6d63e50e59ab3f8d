"""From a study's template to what runs: parameters in environment, command and args; the attempt's Job."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tuneyard_api.common import API_VERSION, ATTEMPT_LABEL, GROUP, INDEX_LABEL, STUDY_LABEL, TRIAL_UID_LABEL, UID_LABEL
from tuneyard_api.study import StudySpec
from tuneyard_operator import checkpoints
from tuneyard_operator.state import StudyState
from tuneyard_operator.trial_state import TrialState
from tuneyard_scheduler import memory
from tuneyard_scheduler.backends import VENDORS, catalog

Object = dict[str, Any]

GENERATION_ANNOTATION: Final = f"{GROUP}/generation"
TOKEN_AUDIENCE: Final = "tuneyard"  # noqa: S105
_TOKEN_FOLDER: Final = "/var/run/secrets/tuneyard"  # noqa: S105
_TOKEN_SECONDS: Final = 3600
_OFTEN: Final = "0.2"
_CHECKPOINTS: Final = "tuneyard-checkpoints"
_CHECKPOINT_FOLDER: Final = "/var/lib/tuneyard/checkpoints"
_REFERENCE = re.compile(r"(\$?)\$\{([A-Za-z][A-Za-z0-9_]*)\}")


def text(value: object) -> str:
    """A parameter's value as training programs read it: 0.01, 64, adam, true."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def substitute(template: str, parameters: Mapping[str, Any]) -> str:
    """Fill in ${name}; a parameter that this configuration lacks becomes empty, $${name} becomes ${name}."""

    def fill(match: re.Match[str]) -> str:
        if match.group(1):
            return match.group(0)[1:]
        return text(parameters[match.group(2)]) if match.group(2) in parameters else ""

    return _REFERENCE.sub(fill, template)


def fill_container(container: Object, parameters: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Fill the parameters into a container, in place, and add the environment; what the user set of it stays."""
    for field in ("command", "args"):
        if field in container:
            container[field] = [substitute(str(part), parameters) for part in container[field]]
    given = container.get("env") or []
    for entry in given:
        if "value" in entry:
            entry["value"] = substitute(str(entry["value"]), parameters)
    names = {entry["name"] for entry in given}
    ours = [{"name": name, "value": value} for name, value in environment.items() if name not in names]
    # Ours come first, so that the user's own values may refer to them as $(TUNEYARD_TRIAL).
    container["env"] = ours + given


def environment(study: str, index: int, attempt: int, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a trial that is the same in every world."""
    return {
        "TUNEYARD_STUDY": study,
        "TUNEYARD_TRIAL": f"{study}-{index}",
        "TUNEYARD_INDEX": str(index),
        "TUNEYARD_ATTEMPT": str(attempt),
        "TUNEYARD_PARAMETERS": json.dumps(parameters),
        **{f"TUNEYARD_PARAM_{name}": text(value) for name, value in parameters.items()},
    }


def values(spec: StudySpec, rung: Object | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the program is given: the configuration, and how much of the fidelity it is to run for."""
    if spec.fidelity is None:
        return dict(parameters)
    return {**parameters, spec.fidelity.parameter: rung["fidelity"] if rung is not None else spec.fidelity.max}


def unknown_references(spec: StudySpec) -> Iterator[str]:
    """A sentence for each ${name} in the template that is no parameter."""
    known = {parameter.name for parameter in spec.parameters}
    known |= {spec.fidelity.parameter} if spec.fidelity is not None else set()
    pod = spec.template.get("spec") or {}
    for kind in ("initContainers", "containers"):
        for number, container in enumerate(pod.get(kind) or []):
            texts = [*(container.get("command") or []), *(container.get("args") or [])]
            texts += [entry.get("value", "") for entry in container.get("env") or []]
            names = {name for part in texts for escape, name in _REFERENCE.findall(str(part)) if not escape}
            for name in sorted(names - known):
                yield (
                    f"template.spec.{kind}[{number}]: ${{{name}}} is no parameter of this study; "
                    f"write one of {', '.join(sorted(known))}, or $${{{name}}} for a literal ${{{name}}}"
                )


def trial_name(study: str, index: int) -> str:
    """The Trial's name."""
    return f"{study}-{index}"


def job_name(study: str, index: int, attempt: int) -> str:
    """The name of an attempt's Job."""
    return f"{study}-{index}-{attempt}"


def trial(state: StudyState, index: int, parameters: Object, rung: Object | None = None) -> Object:
    """The Trial object to create: the durable intent."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Trial",
        "metadata": {
            "name": trial_name(state.name, index),
            "namespace": state.namespace,
            "labels": {STUDY_LABEL: state.name, UID_LABEL: state.uid},
            "ownerReferences": [_owner("Study", state.name, state.uid)],
        },
        "spec": {"study": state.name, "index": index, "parameters": parameters} | ({"rung": rung} if rung else {}),
    }


def job(state: StudyState, of: TrialState, report_url: str | None, gpu_runtime_class: str | None = None) -> Object:
    """The attempt's Job: the study's template with the parameters, the placement and the means to report."""
    return objects(state, of, report_url, gpu_runtime_class)[-1]


def objects(
    state: StudyState, of: TrialState, report_url: str | None, gpu_runtime_class: str | None = None
) -> list[Object]:
    """What has to be created for an attempt, in this order: what its pod refers to, and its Job.

    What the pod refers to is named by what it says: where it is there already, it is the same.
    """
    template = copy.deepcopy(state.spec.template)
    labels = {
        STUDY_LABEL: state.name,
        UID_LABEL: state.uid,
        TRIAL_UID_LABEL: of.uid,
        INDEX_LABEL: str(of.index),
        ATTEMPT_LABEL: str(of.attempt),
    }
    meta = template.setdefault("metadata", {})
    meta["labels"] = {**(meta.get("labels") or {}), **labels}
    meta["annotations"] = {**(meta.get("annotations") or {}), GENERATION_ANNOTATION: str(state.generation)}
    pod = template["spec"]
    pod["restartPolicy"] = "Never"
    pod.setdefault("automountServiceAccountToken", False)
    given = values(state.spec, of.rung, of.parameters)
    variables = environment(state.name, of.index, of.attempt, given) | measuring(state.spec, of.placement)
    for container in [*(pod.get("initContainers") or []), *pod["containers"]]:
        fill_container(container, given, variables)
    main = pod["containers"][0]
    _add_reporting(pod, main, report_url, often=state.watch is not None)
    _add_checkpoints(state, of, pod, main)
    memory.render(of.needs.get("memory"), main)
    needed: list[Object] = []
    if of.placement and (of.placement.get("node") or of.placement.get("gpus")):
        vendor = state.spec.gpu.vendor if state.spec.gpu is not None else "nvidia"
        needed = catalog.render(of.placement, template, main, vendor=vendor, name=state.name, uid=state.uid)
        if gpu_runtime_class and (of.placement.get("resource") or "").startswith("nvidia.com/"):
            pod.setdefault("runtimeClassName", gpu_runtime_class)
        if not of.placement.get("node"):
            _select_model(state.spec, pod)
    ours = {STUDY_LABEL: state.name, UID_LABEL: state.uid}
    for each in needed:
        each["metadata"] |= {"namespace": state.namespace, "labels": ours}
        each["metadata"]["ownerReferences"] = [_owner("Study", state.name, state.uid)]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(state.name, of.index, of.attempt),
            "namespace": state.namespace,
            "labels": labels,
            "ownerReferences": [_owner("Trial", of.name, of.uid)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "template": template,
        },
    }
    return [*needed, job]


def _select_model(spec: StudySpec, pod: Object) -> None:
    """Where any node may take the pod, it is one with the GPUs that were asked for."""
    if spec.gpu is not None and spec.gpu.model is not None:
        selector = {VENDORS[spec.gpu.vendor].model_label: spec.gpu.model}
        pod["nodeSelector"] = {**(pod.get("nodeSelector") or {}), **selector}


def measuring(spec: StudySpec, placement: Object | None) -> dict[str, str]:
    """What has a trial tell how much GPU memory it uses, where its study is to find that out."""
    if spec.gpu is None or not spec.gpu.auto:
        return {}
    return {"TUNEYARD_MEASURE_GPU": "whole" if (placement or {}).get("gpus", 0) >= 1 else "part"}


def _add_checkpoints(state: StudyState, of: TrialState, pod: Object, main: Object) -> None:
    """The study's claim, and in it the trial's folder, which the SDK makes.

    No subPath: the kubelet would make it as root, and a program that is not root could not write there.
    """
    if state.spec.checkpoints is None:
        return
    claim = {"name": _CHECKPOINTS, "persistentVolumeClaim": {"claimName": state.spec.checkpoints.claim}}
    pod["volumes"] = [*(pod.get("volumes") or []), claim]
    mount = {"name": _CHECKPOINTS, "mountPath": _CHECKPOINT_FOLDER}
    main["volumeMounts"] = [*(main.get("volumeMounts") or []), mount]
    ours = checkpoints.environment(f"{_CHECKPOINT_FOLDER}/{state.name}-{state.uid}", state, of)
    if not any(entry["name"] in ours for entry in main["env"]):
        main["env"] += [{"name": name, "value": value} for name, value in ours.items()]


def _add_reporting(pod: Object, main: Object, report_url: str | None, *, often: bool) -> None:
    """Final metrics by the termination message; the curve by a post with a token that is good for nothing else.

    Posts come more often where a report may be a reason to stop the trial.
    """
    main.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    given = {entry["name"] for entry in main["env"]}
    ours = {"TUNEYARD_TERMINATION_FILE": main.get("terminationMessagePath", "/dev/termination-log")}
    if report_url is not None:
        ours |= {"TUNEYARD_REPORT_URL": report_url, "TUNEYARD_TOKEN_FILE": f"{_TOKEN_FOLDER}/token"}
        ours |= {"TUNEYARD_REPORT_SECONDS": _OFTEN} if often else {}
        token = {"path": "token", "audience": TOKEN_AUDIENCE, "expirationSeconds": _TOKEN_SECONDS}
        volume = {"name": "tuneyard-token", "projected": {"sources": [{"serviceAccountToken": token}]}}
        pod["volumes"] = [*(pod.get("volumes") or []), volume]
        mount = {"name": "tuneyard-token", "mountPath": _TOKEN_FOLDER, "readOnly": True}
        main["volumeMounts"] = [*(main.get("volumeMounts") or []), mount]
    main["env"] += [{"name": name, "value": value} for name, value in ours.items() if name not in given]


def _owner(kind: str, name: str, uid: str) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
