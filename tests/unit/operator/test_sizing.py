"""How much of a GPU trials need is found out by the first ones."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_objects import NOW, Object, Yard

from tuneyard_api.study_status import Sizing
from tuneyard_operator import needs
from tuneyard_operator.attempts import GPU_OUT_OF_MEMORY
from tuneyard_operator.render import job
from tuneyard_operator.sizing import ENOUGH, MARGIN, PEAK, TOTAL, Peaks
from tuneyard_operator.status import study_status


def told(yard: Yard, *peaks: float, total: float | None = 80000, first: int = 0) -> Yard:
    """Trials that succeeded and used so many MiB of a GPU."""
    for index, peak in enumerate(peaks, first):
        yard.ended(index, **({PEAK: peak} | ({TOTAL: total} if total else {})))
    return yard


def sizing(yard: Yard) -> Object | None:
    found: Object | None = study_status(yard.state, {}, None, None, NOW).get("sizing")
    if found is not None:
        Sizing.model_validate(found)
    return found


@pytest.mark.parametrize(
    ("gpu", "peaks", "given_"),
    [
        ({"memory": "auto"}, (10000, 9000), {}),
        ({"memory": "auto"}, (10000, 9000, 8000), {"memory": 12032}),
        ({"memory": "auto"}, (10000, 9000, 70000), {"fraction": 1.0}),
        ({"fraction": "auto"}, (10000, 9000, 8000), {"fraction": 0.15}),
        ({"fraction": "auto"}, (20000, 9000, 8000), {"fraction": 0.3}),
        ({"fraction": "auto"}, (64000, 9000, 8000), {"fraction": 1.0}),
        ({"fraction": "auto"}, (100, 100, 100), {"fraction": 0.05}),
    ],
)
def test_the_largest_peak_and_a_margin(gpu: Object, peaks: Any, given_: Object) -> None:
    found = sizing(told(Yard(gpu=gpu), *peaks))
    assert found is not None
    assert (found["trials"], found["peak"]) == (len(peaks), max(peaks))
    assert {key: found[key] for key in ("memory", "fraction") if key in found} == given_


def test_it_grows_with_what_is_seen_later() -> None:
    yard = told(Yard(gpu={"memory": "auto"}), 1000, 1000, 1000)
    assert sizing(yard) == {"trials": 3, "peak": 1000, "peakFraction": 0.0125, "memory": 1280}
    assert (sizing(told(yard, 3000, first=3)) or {})["memory"] == 3840


def test_who_does_not_ask_is_not_told() -> None:
    assert sizing(told(Yard(gpu={"count": 1}), 1000, 1000, 1000)) is None
    assert sizing(told(Yard(), 1000, 1000, 1000)) is None


def test_without_the_gpus_size_a_fraction_cannot_be_found_out_and_memory_can() -> None:
    assert "fraction" not in (sizing(told(Yard(gpu={"fraction": "auto"}), 1000, 1000, 1000, total=None)) or {})
    assert (sizing(told(Yard(gpu={"memory": "auto"}), 1000, 1000, 1000, total=None)) or {})["memory"] == 1280


def test_what_was_too_little_is_a_peak_as_well() -> None:
    yard = told(Yard(gpu={"memory": "auto"}), 1000, 1000, 1000)
    lost = {"number": 0, "outcome": "OutOfMemory", "reason": GPU_OUT_OF_MEMORY, "gpus": 0.02, "gpuMemory": 1280}
    yard.set(5, {"phase": "Pending", "attempt": 1, "attempts": [lost]})
    assert (sizing(yard) or {})["memory"] == 1536
    yard.set(6, {"phase": "Infeasible", "attempts": [{**lost, "gpus": 1, "gpuMemory": 80000}]})
    assert (sizing(yard) or {})["memory"] == 1536, "one that does not fit on any GPU says nothing of the others"


def test_it_is_known_after_a_restart_though_trials_were_deleted() -> None:
    before = told(Yard(gpu={"memory": "auto"}), 1000, 2000, 1000)
    known = sizing(before)
    after = Yard(gpu={"memory": "auto"}, status={"sizing": known})
    assert sizing(after) == known
    assert sizing(told(after, 1000, 2000, 1000)) == known


@given(st.lists(st.floats(1, 80000), min_size=ENOUGH, max_size=20), st.booleans())
def test_nobody_gets_less_than_the_largest_peak(peaks: list[float], by_memory: bool) -> None:
    yard = told(Yard(gpu={"memory" if by_memory else "fraction": "auto"}, trials={"max": 30}), *peaks)
    found = sizing(yard) or {}
    share = found.get("fraction") or found["memory"] / 80000
    assert share == 1 or share >= max(peaks) / 80000 * min(MARGIN, 1.0)


def test_peaks_that_make_no_sense_are_left_out() -> None:
    peaks = Peaks()
    for index, peak in enumerate((0.0, -5.0)):
        peaks.add(index, {PEAK: peak, TOTAL: 80000})
    assert peaks.count == 0


def test_trials_are_asked_to_measure_only_where_that_is_of_use() -> None:
    def names(yard: Yard, gpus: float) -> dict[str, str]:
        yard.placed(0, gpus=gpus)  # type: ignore[arg-type]
        main = job(yard.state, yard.state.trials[0], None)["spec"]["template"]["spec"]["containers"][0]
        return {entry["name"]: entry["value"] for entry in main["env"]}

    assert names(Yard(gpu={"memory": "auto"}), 1)["TUNEYARD_MEASURE_GPU"] == "whole"
    assert "TUNEYARD_MEASURE_GPU" not in names(Yard(gpu={"count": 1}), 1)


# Growing


def grow(placement: Object, before: Object | None = None, *, growth: float | None = 1.5, **gpu: Any) -> needs.Growth:
    yard = Yard(gpu=gpu, retry={"memoryGrowth": growth} if growth else {})
    return needs.after_out_of_memory(yard.state.spec, GPU_OUT_OF_MEMORY, before or {}, placement)


@pytest.mark.parametrize(
    ("gpu", "placement", "before", "after"),
    [
        ({"fraction": 0.25}, {"gpus": 0.25}, {}, {"gpuFraction": 0.4}),
        ({"fraction": 0.25}, {"gpus": 0.4}, {"gpuFraction": 0.4}, {"gpuFraction": 0.6}),
        ({"fraction": 0.25}, {"gpus": 0.65}, {}, {"gpuFraction": 1.0, "gpuMemory": None}),
        ({"memory": "8Gi"}, {"gpus": 0.1, "memory": 8192}, {}, {"gpuMemory": 12288}),
        ({"memory": "8Gi"}, {"gpus": 0.15, "memory": 12288}, {"gpuMemory": 12288, "memory": 7}, {"gpuMemory": 18432}),
        ({"memory": "8Gi"}, {"gpus": 0.7, "memory": 8192}, {}, {"gpuFraction": 1.0, "gpuMemory": None}),
        ({"memory": "auto"}, {"gpus": 0.25, "memory": 1024}, {}, {"gpuMemory": 1536}),
    ],
)
def test_a_larger_share_up_to_a_whole_gpu(gpu: Object, placement: Object, before: Object, after: Object) -> None:
    assert grow(placement, before, **gpu).needs == {**before, **after}


def test_a_size_that_is_found_out_grows_without_being_asked_and_others_do_not() -> None:
    assert grow({"gpus": 0.5}, growth=None, fraction="auto").needs == {"gpuFraction": 0.75}
    assert (
        grow({"gpus": 0.5}, growth=None, fraction=0.5).why_not == "retry.memoryGrowth would let it try again with more"
    )


@pytest.mark.parametrize("gpu", [{"fraction": 0.05}, {"memory": "1Gi"}, {"fraction": "auto"}])
@given(growth=st.floats(1.2, 8))
def test_growing_ends_with_a_whole_gpu(gpu: Object, growth: float) -> None:
    total, share, need = 80000, 0.05, {}
    for _ in range(60):
        placement = {"gpus": share, "memory": int(share * total)} if "memory" in gpu else {"gpus": share}
        found = grow(placement, need, growth=growth, **gpu)
        if found.needs is None:
            assert (share, found.why_not) == (1, "it had a whole GPU")
            return
        need = {key: value for key, value in found.needs.items() if value is not None}
        now = need.get("gpuFraction") or need["gpuMemory"] / total
        assert now > share
        share = now
    pytest.fail("it grows for ever")
