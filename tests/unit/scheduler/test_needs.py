"""Trials that need more than their study asks for are served as requests of their own."""

from typing import Any

import pytest

from tuneyard_scheduler import translate
from tuneyard_scheduler.cycle import PASSED_SECONDS, schedule
from tuneyard_scheduler.devices import GpuRequest
from tuneyard_scheduler.memory import MIB, Memory
from tuneyard_scheduler.views import Need, StudyView, fitted

GPU = "nvidia.com/gpu"
T = 1_000_000.0


@pytest.mark.parametrize(
    ("request_", "need", "after"),
    [
        (GpuRequest(GPU, share=0.25), Need(share=0.5), GpuRequest(GPU, share=0.5, or_whole=True)),
        (GpuRequest(GPU, share=0.75), Need(share=0.5), GpuRequest(GPU, share=0.75)),
        (GpuRequest(GPU, share=0.75, backend="timeslice"), Need(share=1.0), GpuRequest(GPU, 1)),
        (GpuRequest(GPU, memory=4096), Need(gpu_memory=6144), GpuRequest(GPU, memory=6144, or_whole=True)),
        (GpuRequest(GPU, memory=8192), Need(gpu_memory=6144), GpuRequest(GPU, memory=8192)),
        (GpuRequest(GPU, memory=4096), Need(share=1.0), GpuRequest(GPU, 1)),
        (GpuRequest(GPU, 2), Need(share=1.0), GpuRequest(GPU, 2)),
        (None, Need(share=1.0), None),
    ],
)
def test_what_a_trial_asks_for(request_: GpuRequest | None, need: Need, after: GpuRequest | None) -> None:
    study = StudyView("ns/a", "u", "ns", gpu=request_)
    assert fitted(study, need).gpu == after
    assert fitted(study, None) is study


def test_its_container_asks_for_more_memory_of_the_node() -> None:
    container = Memory(1024 * MIB, 2048 * MIB)
    study = StudyView("ns/a", "u", "ns", memory=1536 * MIB, container=container)
    assert fitted(study, Need(memory=4096)).memory == (512 + 2048) * MIB


def test_the_record_says_what_it_needs() -> None:
    meta = {"name": "a-3", "namespace": "ns", "uid": "u"}
    view = translate.trial({"metadata": meta, "status": {"needs": {"gpuFraction": 0.5, "memory": 2048}}})
    assert view.need == Need(0.5, None, 2048)
    assert translate.trial({"metadata": meta, "status": {}}).need is None


def quarters(bench: Any, **more: Any) -> None:
    bench.node("n1", 1, parts="reservation")
    bench.study(share=0.25, **more)


def places(bench: Any, now: float = T) -> list[tuple[int, float]]:
    return [(place.index, place.gpus) for place in schedule(bench.state, now).placements]


def test_others_go_first_where_it_does_not_fit(bench: Any) -> None:
    quarters(bench)
    bench.trial(0, need=Need(share=1.0), attempt=1, since=T)
    assert places(bench) == [(0, 1)]
    bench.trial(1, since=T)
    bench.trial(2, need=Need(share=0.5), attempt=1, since=T)
    assert places(bench) == []
    bench.state.remove_trial("ns/a", 0)
    assert places(bench) == [(1, 0.25), (2, 0.5)]
    bench.trial(3, need=Need(share=0.5), attempt=1, since=T)
    bench.trial(4, since=T)
    assert places(bench) == [(4, 0.25)]


def test_but_not_for_ever(bench: Any) -> None:
    quarters(bench)
    bench.trial(0, since=T)
    assert places(bench) == [(0, 0.25)]
    bench.trial(1, need=Need(share=1.0), attempt=1, since=T)
    bench.trial(2, since=T)
    assert places(bench, T + PASSED_SECONDS) == []
    bench.trial(1, need=None, attempt=2, since=T)
    assert places(bench, T + PASSED_SECONDS) == [(1, 0.25), (2, 0.25)]


def test_a_need_that_becomes_known_while_it_waits_counts(bench: Any) -> None:
    quarters(bench)
    bench.trial(0, since=T)
    bench.trial(0, attempt=1, need=Need(share=0.5), since=T)
    assert places(bench) == [(0, 0.5)]


@pytest.mark.parametrize(
    ("sizing", "request_"),
    [
        ({}, GpuRequest(GPU, 1)),
        ({"trials": 2, "peak": 3000}, GpuRequest(GPU, 1)),
        ({"trials": 3, "peak": 3000, "memory": 3840}, GpuRequest(GPU, memory=3840, or_whole=True)),
        ({"trials": 3, "fraction": 0.35}, GpuRequest(GPU, share=0.35, or_whole=True)),
        ({"trials": 3, "fraction": 1.0}, GpuRequest(GPU, 1)),
    ],
)
def test_a_size_that_is_found_out(sizing: dict[str, Any], request_: GpuRequest) -> None:
    meta = {"name": "a", "namespace": "ns", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    spec = {"gpu": {"memory": "auto"}, "template": {"spec": {"containers": [{"name": "train"}]}}}
    assert translate.study({"metadata": meta, "spec": spec, "status": {"sizing": sizing}}).gpu == request_


def test_where_gpus_cannot_be_shared_a_size_that_was_found_out_gets_a_whole_one(bench: Any) -> None:
    bench.node("n1", 2)
    bench.study()
    view = bench.state.study("ns/a").view
    for or_whole, places_ in ((False, []), (True, [(0, 1)])):
        request = GpuRequest(GPU, share=0.25, or_whole=or_whole)
        bench.state.set_study(StudyView("ns/a", view.uid, "ns", parallel=9, gpu=request))
        bench.trial(0, since=T)
        assert places(bench) == places_
