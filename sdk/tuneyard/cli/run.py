"""`tuneyard run`: check a manifest, take its study up where it is, and run it."""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

from tuneyard.cli import words
from tuneyard.cli.places import again, opened
from tuneyard.cli.problem import Problem
from tuneyard.cli.watching import Lines, Watching
from tuneyard_api import manifest
from tuneyard_api.study import Study, StudySpec
from tuneyard_api.validation import InvalidStudy, immutable_changes, validate_study
from tuneyard_operator.local_runner import Ending, LocalRunner
from tuneyard_operator.worlds import capacity, gpus, program
from tuneyard_operator.worlds.gpus import Gpu
from tuneyard_operator.worlds.home import Busy, Home, StudyLock
from tuneyard_operator.worlds.leases import Leases
from tuneyard_operator.worlds.local import FOLDER_ANNOTATION
from tuneyard_operator.worlds.machine import Machine, notes
from tuneyard_operator.worlds.store import Exists, Store
from tuneyard_scheduler import quantity
from tuneyard_strategy.advisor import Advisor
from tuneyard_strategy.contract import StudyDefinition

Object = dict[str, Any]

_STATUS: Final = {
    Ending.COMPLETE: 0,
    Ending.SUSPENDED: 0,
    Ending.FAILED: 1,
    Ending.BLOCKED: 1,
    Ending.DELETED: 1,
    Ending.INTERRUPTED: 130,
    Ending.LEFT: 143,
}


def run(options: Namespace) -> int:
    """Run a study until it ends, or until it is not to go on."""
    wanted = read(options.file)
    folder = options.file.resolve().parent
    check(options.file, wanted.spec, folder)
    with opened(options) as (home, store):
        here = machine(options, wanted.spec, home)
        study, lock = take_up(options, home, store, wanted, folder)
        with lock:
            if _over(study):
                return _tell_result(options, study)
            for note in (*program.notes(wanted.spec), *notes(wanted.spec, here)):
                sys.stderr.write(f"note: {note}\n")
            return _run(options, home, store, study, here)


def read(path: Path) -> Study:
    """The study in a manifest."""
    try:
        documents = manifest.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except (manifest.InvalidYaml, UnicodeDecodeError) as error:
        raise Problem(f"{path}: {error}") from None
    studies = [document for document in documents if document.get("kind") == "Study"] or documents
    if len(studies) != 1:
        said = "holds no study; write a manifest with kind: Study" if not studies else f"holds {len(studies)} studies"
        raise Problem(f"{path}: {said}{'; write each into a file of its own' if studies else ''}")
    try:
        return validate_study(studies[0])
    except InvalidStudy as invalid:
        raise Problem(*(f"{path}: {sentence}" for sentence in invalid.problems)) from None


def check(path: Path, spec: StudySpec, folder: Path) -> None:
    """What no schema can see: whether space and template work, and work here."""
    problems = [
        *(f"spec.{problem}" for problem in Advisor().check(StudyDefinition.from_spec(spec))),
        *program.problems(spec, folder),
    ]
    if spec.trials.parallel == 0:
        problems.append("spec.trials.parallel: is 0, so that no trial would run; write 1 or more")
    if spec.suspend:
        problems.append("spec.suspend: is true, so that no trial would start; leave it out")
    if problems:
        raise Problem(*(f"{path}: {problem}" for problem in problems))


def machine(options: Namespace, spec: StudySpec, home: Home) -> Machine:
    """This machine, with the GPUs for the study's trials, if it needs any."""
    return Machine(Leases(home.leases), capacity.cores(), capacity.memory(), lent(options, spec))


def lent(options: Namespace, spec: StudySpec) -> list[Gpu] | None:
    """The GPUs for a study's trials; None where it needs none."""
    gpu = spec.gpu
    if gpu is None:
        return None
    if options.cpu:
        return []
    without = f"run the trials on the CPU with: {again(options, f'run {options.file} --cpu')}"
    by_count = gpu.count or gpu.auto
    what = words.count(gpu.count or 1, "GPU") if by_count else f"{gpu.fraction or gpu.memory} of a GPU"
    asked = f"{options.file}: spec.gpu: each trial asks for {what}"
    if gpu.vendor != "nvidia":
        raise Problem(f"{asked} of {gpu.vendor}, and on a laptop only those of nvidia can be lent; {without}")
    found = gpus.find(os.environ.get("CUDA_VISIBLE_DEVICES"))
    fit = [each for each in found if gpu.model in {None, each.model}]
    if len(fit) < (gpu.count or 1):
        models = f" ({', '.join(sorted({each.model for each in found}))})" if found else ""
        model = f" of model {gpu.model}" if gpu.model else ""
        raise Problem(f"{asked}{model}, and this machine has {len(found) or 'none'}{models}; {without}")
    if gpu.memory:
        most = max((each.memory or 0 for each in fit), default=0)
        if not most:
            raise Problem(f"{asked}, and nvidia-smi does not say how much memory they have; write spec.gpu.fraction")
        if not gpu.auto and quantity.parse(gpu.memory) / 2**20 > most:
            raise Problem(
                f"{asked}, and the largest of this machine has {most} MiB; lower spec.gpu.memory, or {without}"
            )
    return fit


def take_up(options: Namespace, home: Home, store: Store, wanted: Study, folder: Path) -> tuple[Object, StudyLock]:
    """The study as it is to be run, new or known, and the lock that makes this process the only one to run it."""
    name = wanted.metadata.name
    while True:
        study = store.study(name)
        if study is None:
            try:
                study = store.create_study(name, {FOLDER_ANNOTATION: str(folder)}, wanted.spec.to_json())
            except Exists:
                continue
        uid = study["metadata"]["uid"]
        try:
            lock = home.lock(uid)
        except Busy as busy:
            see = again(options, f"get trials {name}")
            by = f" by process {busy.pid}" if busy.pid else ""
            raise Problem(f"study {name} is being run already{by}; see how it goes with: {see}") from None
        present = store.study(name)
        if present is not None and present["metadata"]["uid"] == uid:
            try:
                return _changed(options, store, present, wanted.spec, folder), lock
            except BaseException:
                lock.close()
                raise
        lock.close()  # it was deleted in between


def _changed(options: Namespace, store: Store, study: Object, spec: StudySpec, folder: Path) -> Object:
    """Bring a known study up to its manifest, as far as that is possible once it has started."""
    meta, name = study["metadata"], study["metadata"]["name"]
    delete = again(options, f"delete {name}")
    if "deletionTimestamp" in meta:
        raise Problem(f"study {name} was not deleted to the end; do so with: {delete}")
    old = StudySpec.model_validate(study["spec"])
    frozen = immutable_changes(old, spec)
    if frozen and store.trials(meta["uid"]):
        raise Problem(*(f"{options.file}: {sentence} with: {delete}" for sentence in frozen))

    def change(item: Object) -> None:
        if old != spec:
            item["spec"] = spec.to_json()
        item["metadata"]["annotations"][FOLDER_ANNOTATION] = str(folder)

    return store.change_study(meta["uid"], change)


def _over(study: Object) -> bool:
    """Whether the study has ended, and nothing was changed since that could make it go on."""
    status = study.get("status") or {}
    seen = status.get("observedGeneration") == study["metadata"]["generation"]
    return seen and status.get("phase") in {Ending.COMPLETE, Ending.FAILED}


def _tell_result(options: Namespace, study: Object) -> int:
    """What the study found when it was run, and how it could go on."""
    phase, name = Ending(study["status"]["phase"]), study["metadata"]["name"]
    view = Lines(lambda command: again(options, command), name)
    for line in view.last_words(phase, study["status"], study["spec"]):
        view.say(line)
    more = {
        Ending.COMPLETE: f"To extend it, raise trials.max in {options.file}",
        Ending.FAILED: f"To go on, mend what fails and raise trials.maxFailed in {options.file}",
    }[phase]
    view.say(f"\nIt has ended before. {more} and run it again; to begin anew: {again(options, f'delete {name}')}")
    return _STATUS[phase]


def _run(options: Namespace, home: Home, store: Store, study: Object, here: Machine) -> int:
    view = watching(options, study["metadata"]["name"])
    with view:
        runner = LocalRunner(store, home, study, here, view)
        ending = asyncio.run(runner.run())
    view.end(ending, runner.state.status_written or runner.state.status, study["spec"])
    return _STATUS[ending]


def watching(options: Namespace, name: str) -> Watching:
    """A live table on a terminal, else lines."""

    def suggest(command: str) -> str:
        return again(options, command)

    if options.no_table or not sys.stdout.isatty():
        return Lines(suggest, name)
    from tuneyard.cli.live import LiveTable  # noqa: PLC0415 - rich, where there is a terminal

    return LiveTable(suggest, name)
