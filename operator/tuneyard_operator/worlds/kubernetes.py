"""The Kubernetes world: trials are Trial objects, attempts are Jobs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from tuneyard_api.common import ATTEMPT_LABEL, TRIAL_UID_LABEL, UID_LABEL, micro_timestamp
from tuneyard_api.trial import Phase
from tuneyard_operator import pods, render
from tuneyard_operator.actions import Emit
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.state import StudyState
from tuneyard_operator.trial_state import TrialState
from tuneyard_operator.world import NO_RUNGS, Conflict, Rejected, WorldError
from tuneyard_scheduler.kube import JSON_PATCH, MERGE_PATCH, Kube, KubeError, pages, path

logger = logging.getLogger(__name__)

Object = dict[str, Any]

_LOG_BYTES: Final = 64 * 1024
_LOG_LINES: Final = 500
_WRITES_AT_ONCE: Final = 32
_STRICT: Final = {"fieldValidation": "Strict"}
_COLLECTIONS: Final = {"ResourceClaimTemplate": "resourceclaimtemplates"}
_IN_BACKGROUND: Final = {"propagationPolicy": "Background"}

_NO_CLAIM: Final = (
    "fidelity.resume: in a cluster, trials hand their state over in a volume; name a PersistentVolumeClaim, for "
    "example checkpoints: {claim: digits}, or leave resume out"
)


class KubernetesWorld:
    """Implements the World port on an API server. Only raw writes: what comes of them is heard by watches."""

    def __init__(self, kube: Kube, report_url: str | None, gpu_runtime_class: str | None = None) -> None:
        self._kube = kube
        self._gpu_runtime_class = gpu_runtime_class
        self._report_url = report_url
        self._writes = asyncio.Semaphore(_WRITES_AT_ONCE)

    def now(self) -> float:
        """See World."""
        return time.time()

    async def _request(self, method: str, url_path: str, **options: Any) -> Object:
        try:
            async with self._writes:
                return await self._kube.request(method, url_path, **options)
        except KubeError as error:
            if error.status == 409:
                raise Conflict(error.message) from error
            if error.status in {400, 413, 422}:
                raise Rejected(error.message) from error
            raise _Failed(error) from error

    async def check_template(self, state: StudyState) -> str | None:
        """Dry-run the Job of a made-up trial: the API server knows best what it takes."""
        unknown = next(render.unknown_references(state.spec), None)
        if unknown:
            return unknown
        if state.spec.fidelity is not None and state.spec.fidelity.resume and state.spec.checkpoints is None:
            return _NO_CLAIM
        example = TrialState(
            name=render.trial_name(state.name, 0), uid=state.uid, index=0, version=0, created=0.0,
            parameters={parameter.name: "1" for parameter in state.spec.parameters}, phase=Phase.PLACED,
            attempt=0, placement=None, needs={}, not_before=0.0, attempts=[], value=None, message=None, metrics={},
            deleting=False,
        )  # fmt: skip
        job = render.job(state, example, self._report_url)
        # A name of its own: the real attempt's Job may exist already.
        job["metadata"]["name"] = f"{state.name}-dry-run"
        try:
            await self._request("POST", path("jobs", state.namespace), body=job, params={"dryRun": "All", **_STRICT})
        except Rejected as error:
            said = str(error).partition(" is invalid: ")[2] or str(error)
            return f"template: the API server does not take the Job: {said[:1000]}"
        except Conflict:
            return None
        return None

    async def create_trials(
        self, state: StudyState, configurations: dict[int, Object], rungs: Mapping[int, Object] = NO_RUNGS
    ) -> list[Object]:
        """See World."""
        return await asyncio.gather(
            *(self._create_trial(state, index, given, rungs.get(index)) for index, given in configurations.items())
        )

    async def _create_trial(self, state: StudyState, index: int, parameters: Object, rung: Object | None) -> Object:
        collection = path("trials", state.namespace)
        try:
            return await self._request("POST", collection, body=render.trial(state, index, parameters, rung))
        except Conflict:
            existing = await self.get_trial(state, render.trial_name(state.name, index))
            if existing is not None:
                return existing
            raise WorldError(f"trial {index} of an earlier study of this name is still being deleted") from None

    async def get_trial(self, state: StudyState, name: str) -> Object | None:
        """See World; a trial of an earlier study of the same name does not count."""
        try:
            item = await self._request("GET", path("trials", state.namespace, name))
        except _Failed as error:
            if error.status == 404:
                return None
            raise
        owners = item["metadata"].get("ownerReferences") or []
        return item if any(owner["uid"] == state.uid for owner in owners) else None

    async def trials_of(self, state: StudyState, name: str) -> list[Object] | None:
        """See World. By lists, which is what the operator may read of studies."""
        named = {"fieldSelector": f"metadata.name={name}"}
        studies = (await self._request("GET", path("studies", state.namespace), params=named))["items"]
        if not studies:
            return None
        get = partial(self._request, "GET", path("trials", state.namespace))
        wanted = {"labelSelector": f"{UID_LABEL}={studies[0]['metadata']['uid']}"}
        return [item async for page in pages(get, wanted) for item in page["items"]]

    async def patch_trial(self, state: StudyState, trial: TrialState, status: Object) -> Object:
        """See World."""
        body = {"metadata": {"resourceVersion": str(trial.version)}, "status": status}
        try:
            return await self._request(
                "PATCH", path("trials", state.namespace, trial.name, "status"), body=body, content_type=MERGE_PATCH
            )
        except _Failed as error:
            if error.status == 404:
                raise Conflict("the trial is gone") from error
            raise

    async def start_attempt(self, state: StudyState, trial: TrialState) -> None:
        """See World."""
        *needed, job = render.objects(state, trial, self._report_url, self._gpu_runtime_class)
        for each in needed:
            with contextlib.suppress(Conflict):
                await self._request("POST", path(_COLLECTIONS[each["kind"]], state.namespace), body=each)
        try:
            await self._request("POST", path("jobs", state.namespace), body=job)
        except Conflict:
            name = render.job_name(state.name, trial.index, trial.attempt)
            existing = await self._request("GET", path("jobs", state.namespace, name))
            key = pods.key(existing)
            if key is None or key.trial_uid != trial.uid:
                raise WorldError(f"Job {name} exists and is not this trial's; waiting for it to be deleted") from None

    async def stop_attempt(self, state: StudyState, index: int, attempt: int) -> None:
        """See World."""
        name = render.job_name(state.name, index, attempt)
        try:
            await self._request("DELETE", path("jobs", state.namespace, name), params=_IN_BACKGROUND)
        except _Failed as error:
            if error.status != 404:
                raise

    async def inspect_attempt(self, state: StudyState, trial: TrialState) -> AttemptSeen | None:
        """See World."""
        name = render.job_name(state.name, trial.index, trial.attempt)
        try:
            job: Object | None = await self._request("GET", path("jobs", state.namespace, name))
        except _Failed as error:
            if error.status != 404:
                raise
            job = None
        key = pods.key(job) if job is not None else None
        if key is not None and key.trial_uid != trial.uid:
            job = None  # of an earlier trial with this name
        failure = await self._pod_failure(state.namespace, job) if job is not None else None
        return pods.job_without_pod(job, trial.attempt, self.now(), failure)

    async def _pod_failure(self, namespace: str, job: Object) -> str | None:
        """Why the Job controller could not create the pod (quota, PodSecurity ...), by its last event."""
        selector = f"involvedObject.uid={job['metadata']['uid']},reason=FailedCreate"
        found = await self._request("GET", path("events", namespace), params={"fieldSelector": selector})
        return str(found["items"][-1].get("message")) if found["items"] else None

    async def read_log(self, state: StudyState, index: int, attempt: int) -> str:
        """See World."""
        labels = f"{TRIAL_UID_LABEL}={state.trials[index].uid},{ATTEMPT_LABEL}={attempt}"
        found = await self._request("GET", path("pods", state.namespace), params={"labelSelector": labels})
        if not found["items"]:
            return ""
        pod = found["items"][0]
        options = {"container": pod["spec"]["containers"][0]["name"], "tailLines": _LOG_LINES}
        try:
            text = await self._kube.text(
                "GET", path("pods", state.namespace, pod["metadata"]["name"], "log"), params=options
            )
        except KubeError as error:
            raise _Failed(error) from error
        return text[-_LOG_BYTES:]

    async def write_study(self, state: StudyState, status: Object) -> None:
        """See World. A JSON patch replaces it whole: a merge would keep parameters of an earlier best trial."""
        await self.replace_status(state.namespace, state.name, state.uid, status)

    async def replace_status(self, namespace: str, name: str, uid: str, status: Object) -> None:
        """Replace a Study's status, if it is still the study of this uid."""
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        url_path = path("studies", namespace, name, "status")
        try:
            await self._request("PATCH", url_path, body=patch, content_type=JSON_PATCH)
        except _Failed as error:
            if error.status != 404:
                raise

    async def emit(self, state: StudyState, news: Emit) -> None:
        """Create an Event on the Study. Its name is made of what it tells, so that the same news is there once."""
        logger.log(
            logging.WARNING if news.warning else logging.INFO, "study %s: %s: %s", state.name, news.reason, news.message
        )
        now = self.now()
        told = hashlib.sha256(f"{state.uid} {news.reason} {news.turn}".encode()).hexdigest()[:16]
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{state.name}.{told}", "namespace": state.namespace},
            "involvedObject": {
                "apiVersion": state.object["apiVersion"], "kind": "Study", "name": state.name,
                "namespace": state.namespace, "uid": state.uid,
            },
            "reason": news.reason,
            "message": news.message[:1000],
            "type": "Warning" if news.warning else "Normal",
            "eventTime": micro_timestamp(now),
            "firstTimestamp": None,
            "lastTimestamp": None,
            "action": news.reason,
            "reportingComponent": "tuneyard.dev/operator",
            "reportingInstance": "operator",
            "source": {"component": "tuneyard-operator"},
        }  # fmt: skip
        with contextlib.suppress(Conflict):
            await self._request("POST", path("events", state.namespace), body=event)

    async def delete_jobs(self, trials: Iterable[str], namespace: str) -> None:
        """Delete the Jobs of the trials of these uids, which have ended, in one request."""
        selector = f"{TRIAL_UID_LABEL} in ({','.join(trials)})"
        await self._request("DELETE", path("jobs", namespace), params={"labelSelector": selector, **_IN_BACKGROUND})


class _Failed(WorldError):
    """A refusal that is neither a conflict nor final."""

    def __init__(self, error: KubeError) -> None:
        super().__init__(str(error))
        self.status = error.status
