"""`tuneyard queue`: who uses GPUs, who waits for them, for what and until when."""

from __future__ import annotations

import asyncio
import json
import os
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tuneyard.cli import tables, words
from tuneyard.cli.places import again, opened
from tuneyard.cli.problem import Problem
from tuneyard.cli.show import as_seen
from tuneyard.cli.tables import Heading
from tuneyard_api.gpuqueue import DEFAULT_QUEUE
from tuneyard_operator.worlds import gpus
from tuneyard_scheduler.kube import Kube, KubeError, path

Object = dict[str, Any]

HERE: Final = "this machine"
_QUEUES: Final = (
    Heading("Queue"), Heading("Parent"), Heading("Guaranteed", numeric=True), Heading("Limit", numeric=True),
    Heading("Used", numeric=True), Heading("Borrowed", numeric=True), Heading("Pending", numeric=True),
    Heading("Problem"),
)  # fmt: skip
_LINE: Final = (
    Heading("Position", numeric=True), Heading("Queue"), Heading("Study"), Heading("Trials", numeric=True),
    Heading("Needs"), Heading("Start"), Heading("Reason"), Heading("Message"),
)  # fmt: skip


def queue(options: Namespace) -> int:
    """Show the queues and the line."""
    if options.kubeconfig or options.namespace or not (options.here or options.home or not _finds_a_cluster()):
        if options.here or options.home:
            raise Problem("--here and --home are about this machine, --kubeconfig and --namespace about a cluster")
        report, nothing = _of_cluster(options)
    else:
        report, nothing = _of_machine(options)
    if options.output == "json":
        print(json.dumps(report, indent=2))
    else:
        _print(report, nothing)
    return 0


def _finds_a_cluster() -> bool:
    """Whether kubectl would find one."""
    files = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(Path(file).is_file() for file in files.split(os.pathsep))


# Where it is read --------------------------------------------------------------------------------------------------


def _of_cluster(options: Namespace) -> tuple[Object, str]:
    try:
        queues, studies = asyncio.run(_read(options))
    except KubeError as error:
        if error.status == 404:
            said = "the cluster knows no Studies and GpuQueues: Tuneyard is not installed in it"
            raise Problem(said, "for the studies of this machine: tuneyard queue --here", status=1) from error
        if error.status == 403:
            hint = "; --namespace NAME shows the studies of one that you may read" if not options.namespace else ""
            raise Problem(f"{error.message}{hint}", status=1) from error
        raise Problem(error.message, status=1) from error
    where = f"namespace {options.namespace}" if options.namespace else "the cluster"
    return report(queues, studies), f"there are no studies in {where}; start one: kubectl apply -f FILE"


async def _read(options: Namespace) -> tuple[list[Object], list[Object]]:
    async with await Kube.connect(options.kubeconfig) as kube:
        queues = await kube.request("GET", path("gpuqueues"))
        studies = await kube.request("GET", path("studies", options.namespace))
    return queues["items"], studies["items"]


def _of_machine(options: Namespace) -> tuple[Object, str]:
    with opened(options) as (home, store):
        studies = [as_seen(study, home) for study in store.studies()]
    nothing = f"no study runs on this machine; start one: {again(options, 'run FILE')}"
    running = [study for study in studies if _status(study).get("phase") in {"Pending", "Running"}]
    found = report([], running)
    total = len(gpus.find(os.environ.get("CUDA_VISIBLE_DEVICES"))) if running else 0
    for each in found["queues"]:
        each |= {"name": HERE, "limit": total}
    for each in found["waiting"]:
        each |= {"queue": HERE}
    return found, nothing


# What is shown -----------------------------------------------------------------------------------------------------


def report(queues: Iterable[Object], studies: Iterable[Object]) -> Object:
    """The queues, by name, and those who wait, by queue and position.

    Studies that name no queue are in `default`, which is shown if it is used, although it may not exist.
    """
    studies = list(studies)
    rows = {item["metadata"]["name"]: _queue(item) for item in queues}
    ours = [study for study in studies if (study["spec"].get("queue") or DEFAULT_QUEUE) == DEFAULT_QUEUE]
    if ours and DEFAULT_QUEUE not in rows:
        used = sum(_status(study).get("gpus") or 0 for study in ours)
        pending = sum((_status(study).get("trials") or {}).get("pending", 0) for study in ours)
        rows[DEFAULT_QUEUE] = {"name": DEFAULT_QUEUE, "guaranteed": 0, "used": used, "borrowed": used,
                               "pending": pending}  # fmt: skip
    waiting = [_waits(study) for study in studies if _status(study).get("waiting")]
    far = len(waiting) + 1
    waiting.sort(key=lambda each: (each["queue"], each.get("position") or far, each["study"]))
    return {"queues": [rows[name] for name in sorted(rows)], "waiting": waiting, "studies": len(studies)}


def _queue(item: Object) -> Object:
    spec, status = item.get("spec") or {}, _status(item)
    row = {"name": item["metadata"]["name"]}
    row |= {key: spec[key] for key in ("parent", "limit") if spec.get(key) is not None}
    row |= {key: status[key] for key in ("guaranteed", "used", "borrowed", "pending") if key in status}
    bad = next((each for each in status.get("conditions") or () if each["status"] == "False"), None)
    return row | ({"problem": bad["reason"]} if bad is not None else {})


def _waits(study: Object) -> Object:
    meta, waiting = study["metadata"], _status(study)["waiting"]
    name = {"study": meta["name"], "namespace": meta.get("namespace", "default")}
    return name | {key: value for key, value in waiting.items() if key != "study"} | {"gpu": study["spec"].get("gpu")}


def _status(item: Object) -> Object:
    status: Object = item.get("status") or {}
    return status


def needs(gpu: Object | None) -> str:
    """What each trial of a study needs of GPUs."""
    if gpu is None:
        return "no GPU"
    if gpu.get("memory"):
        amount = f"{gpu['memory']} of a GPU"
    elif gpu.get("fraction"):
        amount = f"{gpu['fraction']:g} GPU" if isinstance(gpu["fraction"], float) else f"{gpu['fraction']} GPU"
    else:
        amount = words.count(gpu.get("count") or 1, "GPU")
    return amount + (f" ({gpu['model']})" if gpu.get("model") else "")


def _print(found: Object, nothing: str) -> None:
    if not found["studies"] and not found["queues"]:
        print(nothing)
        return
    if found["queues"]:
        keys = ("name", "parent", "guaranteed", "limit", "used", "borrowed", "pending", "problem")
        tables.write(_QUEUES, [[_cell(row.get(key)) for key in keys] for row in found["queues"]])
        print()
    if not found["waiting"]:
        print("no study waits for a place" if found["studies"] else nothing)
        return
    several = len({each["namespace"] for each in found["waiting"]}) > 1
    tables.write(_LINE, [_row(each, several) for each in found["waiting"]])


def _row(each: Object, several: bool) -> list[str]:
    study = f"{each['namespace']}/{each['study']}" if several else each["study"]
    start = words.until(each["expectedStart"]) if each.get("expectedStart") else ""
    return [
        _cell(each.get("position")), each["queue"], study, _cell(each["trials"]), needs(each["gpu"]), start,
        each["reason"], each.get("message") or "",
    ]  # fmt: skip


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)
