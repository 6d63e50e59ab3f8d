"""The engine dies at every one of its writes; what runs goes on, and nothing is run twice."""

from __future__ import annotations

import gc
import itertools

import pytest

from tuneyard_operator.local_runner import Ending
from tuneyard_operator.worlds.store import Store


class Crash(BaseException):
    """The process ends here, as with kill -9: nothing is cleaned up."""


class CrashingStore:
    """A store whose n-th write is the last thing that the process does: before it, or right after it."""

    def __init__(self, store: Store, at: int, *, after: bool) -> None:
        self._store = store
        self._left = at
        self._after = after

    def __getattr__(self, name: str):
        method = getattr(self._store, name)
        if name not in {"create_trials", "patch_trial", "change_study"}:
            return method

        def write(*args: object, **kwargs: object) -> object:
            self._left -= 1
            if self._left < 0 and not self._after:
                raise Crash
            result = method(*args, **kwargs)
            if self._left < 0:
                raise Crash
            return result

        return write


# A crashed engine's processes are this test's own children, and nobody waits for them.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_any_write_runs_no_trial_twice(laptop, report_x, after):
    whole = laptop.store
    for at in itertools.count():
        name = f"crash-{at}"
        record = f'echo "$TUNEYARD_INDEX $TUNEYARD_ATTEMPT" >>{name}; '
        study = laptop.create(f"{record} sleep 0.1; {report_x}", name=name, trials={"max": 3, "parallel": 2})
        laptop.store = CrashingStore(whole, at, after=after)  # type: ignore[assignment]
        try:
            ending = await laptop.run(study)
        except Crash:
            ending = None
        laptop.store = whole
        if ending is None:
            assert await laptop.run(study) is Ending.COMPLETE
        assert laptop.phases(study) == ["Succeeded"] * 3, f"crash at write {at}"
        assert sorted((laptop.folder / name).read_text().splitlines()) == ["0 0", "1 0", "2 0"], f"crash at write {at}"
        if ending is not None:
            assert at > 8, "each trial is created, placed and recorded"
            break
    gc.collect()  # so that the warnings come here


async def test_the_end_of_a_trial_is_found_although_nobody_watched(laptop, report_x, until):
    study = laptop.create(f"sleep 0.2; {report_x}", trials={"max": 1})
    first = laptop.prepare(study)
    for _ in range(3):
        await first._turn()
    await until((laptop.home.attempt(study["metadata"]["uid"], 0, 0) / "exit").exists)
    assert await laptop.run(study) is Ending.COMPLETE
    assert laptop.starts == [(0, 0)]
    while first._world._live:  # so that no zombie is left
        await first._turn()
