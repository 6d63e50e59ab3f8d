"""Parts of GPUs: which GPU they come from, what queues are charged, and that nothing is given twice."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneyard_api.trial import Phase, Placement
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.devices import GpuRequest, Kind, portion
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Node, Place, StudyView, TrialView

GPU = "nvidia.com/gpu"
MIG = "nvidia.com/mig-1g.10gb"


def places(bench: Any) -> list[tuple[Any, ...]]:
    return [(p.node, p.resource, p.devices, p.gpus, p.memory) for p in schedule(bench.state, 0.0).placements]


@pytest.mark.parametrize(
    ("request_", "kind", "want"),
    [
        (GpuRequest(GPU, 2), Kind(GPU), ("whole", 2, 0.0, 2, None)),
        (GpuRequest(GPU, share=0.25), Kind(GPU), None),
        (GpuRequest(GPU, share=0.25), Kind(GPU, parts="reservation"), ("reservation", 0, 0.25, 0.25, None)),
        (GpuRequest(GPU, share=0.25), Kind(GPU, memory=81920, parts="kai"), ("kai", 0, 0.25, 0.25, 20480)),
        (GpuRequest(GPU, memory=8192), Kind(GPU, memory=81920, parts="kai"), ("kai", 0, 0.1, 0.1, 8192)),
        (GpuRequest(GPU, memory=81920), Kind(GPU, memory=81920, parts="kai"), ("kai", 0, 1.0, 1.0, 81920)),
        (GpuRequest(GPU, memory=81921), Kind(GPU, memory=81920, parts="kai"), None),
        (GpuRequest(GPU, memory=1), Kind(GPU, parts="kai"), None),
        (GpuRequest(GPU, share=0.2), Kind(GPU, size=0.25, whole="timeslice"), ("timeslice", 1, 0.0, 0.25, None)),
        (GpuRequest(GPU, share=0.3), Kind(GPU, size=0.25, whole="timeslice"), None),
        (GpuRequest(GPU, 1), Kind(GPU, size=0.25, whole="timeslice"), None),
        (GpuRequest(GPU, memory=9000), Kind(GPU, memory=9728, size=0.1429, whole="mig"), ("mig", 1, 0.0, 0.1429, 9728)),
        (GpuRequest(GPU, memory=9729), Kind(GPU, memory=9728, size=0.1429, whole="mig"), None),
        (GpuRequest(GPU, share=0.1, backend="mig"), Kind(GPU, parts="kai"), None),
        (GpuRequest(GPU, share=0.1, backend="kai"), Kind(GPU, parts="kai"), ("kai", 0, 0.1, 0.1, None)),
        (GpuRequest(GPU, 1, "T4"), Kind(GPU, "A100"), None),
        (GpuRequest("amd.com/gpu", 1), Kind(GPU), None),
    ],
)  # fmt: skip
def test_what_a_request_takes_of_a_kind(request_: GpuRequest, kind: Kind, want: tuple[Any, ...] | None) -> None:
    assert portion(request_, kind) == want


class TestWhichGpu:
    def test_parts_fill_one_gpu_before_the_next(self, bench: Any) -> None:
        bench.node("n1", 2, parts="reservation")
        bench.study(trials=5, share=0.4)
        assert places(bench) == [("n1", GPU, (device,), 0.4, None) for device in "0011"]
        assert bench.used("n1") == 1.6

    def test_spread_takes_the_emptiest(self, bench: Any) -> None:
        bench.node("n1", 2, parts="reservation")
        bench.node("n2", 2, parts="reservation")
        bench.study(trials=5, share=0.4, spread=True)
        assert [(node, device) for node, _, (device,), *_ in places(bench)] == [
            ("n1", "0"), ("n2", "0"), ("n1", "1"), ("n2", "1"), ("n2", "1"),
        ]  # fmt: skip

    def test_whole_gpus_and_parts_do_not_meet(self, bench: Any) -> None:
        bench.node("n1", 3, parts="reservation")
        bench.study("ns/part", share=0.5, trials=1)
        assert len(places(bench)) == 1
        bench.study("ns/whole", 2, trials=2)
        assert places(bench) == [("n1", GPU, (), 2, None)]
        bench.study("ns/more", share=0.6, trials=1)
        assert places(bench) == []
        bench.study("ns/half", share=0.5, trials=1)
        assert places(bench) == [("n1", GPU, ("0",), 0.5, None)]

    def test_a_gpu_is_whole_again_when_the_last_part_is_given_back(self, bench: Any) -> None:
        bench.node("n1", 1, parts="reservation")
        bench.study("ns/part", share=0.5, trials=2)
        assert len(places(bench)) == 2
        bench.study("ns/whole", 1, trials=1)
        for index in (0, 1):
            assert places(bench) == []
            bench.trial(index, "ns/part", Phase.SUCCEEDED)
        assert places(bench) == [("n1", GPU, (), 1, None)]

    def test_the_smallest_slice_that_is_enough(self, bench: Any) -> None:
        large, small = (Kind(GPU, memory=m, size=s, whole="mig") for m, s in ((38000, 0.4286), (9728, 0.1429)))
        node = Node("n1", {MIG: 1, "nvidia.com/mig-3g.40gb": 2}, kinds={MIG: small, "nvidia.com/mig-3g.40gb": large})
        bench.state.set_node(node)
        bench.study(trials=4, memory=8000)
        assert [(resource, gpus) for _, resource, _, gpus, _ in places(bench)] == [
            (MIG, 0.1429), ("nvidia.com/mig-3g.40gb", 0.4286), ("nvidia.com/mig-3g.40gb", 0.4286),
        ]  # fmt: skip

    def test_named_gpus_are_given_by_name(self, bench: Any) -> None:
        kinds = {"gpu.nvidia.com": Kind(GPU, whole="dra", parts="dra")}
        names = {"gpu.nvidia.com": ("gpu-0", "gpu-1", "gpu-2")}
        bench.state.set_node(Node("n1", {"gpu.nvidia.com": 3}, kinds=kinds, devices=names))
        bench.study("ns/part", share=0.5, trials=1)
        assert places(bench) == [("n1", "gpu.nvidia.com", ("gpu-0",), 0.5, None)]
        bench.study("ns/whole", 2, trials=1)
        assert places(bench) == [("n1", "gpu.nvidia.com", ("gpu-1", "gpu-2"), 2, None)]

    @pytest.mark.parametrize(
        ("node", "study", "want"),
        [
            ({}, {"share": 0.5}, "its GPUs cannot be shared"),
            ({"parts": "kai"}, {"memory": 1024}, "write spec.gpu.fraction"),
            ({"parts": "kai", "memory": 1000}, {"memory": 1024}, "too small"),
            ({"parts": "kai"}, {"share": 0.5, "backend": "mig"}, "0.5 of 1 nvidia.com/gpu by mig"),
        ],
    )
    def test_why_no_part_is_to_be_had(self, bench: Any, node: Any, study: Any, want: str) -> None:
        bench.node("n1", 2, **node)
        bench.study(trials=1, **study)
        (waiting,) = schedule(bench.state, 0.0).waiting
        assert waiting.reason == "NoGpuNodes"
        assert want in waiting.message

    def test_how_much_is_left_is_said(self, bench: Any) -> None:
        bench.node("n1", 1, parts="kai")
        bench.study("ns/a", share=0.7, trials=2)
        assert len(places(bench)) == 1
        (waiting,) = schedule(bench.state, 0.0).waiting
        assert waiting.message == "needs 0.7 of 1 nvidia.com/gpu; of 1 node, the GPU that is used least has 0.3 left"


class TestQueues:
    def test_are_charged_by_the_part(self, bench: Any) -> None:
        bench.node("n1", 4, parts="kai")
        bench.queue("q", limit=1)
        bench.study(share=0.3, trials=9, queue="q")
        assert len(places(bench)) == 3
        assert bench.state.queues.get("q").used == 0.9
        (waiting,) = schedule(bench.state, 0.0).waiting
        assert waiting.reason == "QueueLimit"

    def test_are_charged_for_memory_by_the_gpu_that_it_is_on(self, bench: Any) -> None:
        bench.node("n1", 4, parts="kai", memory=20000)
        bench.queue("q", limit=1)
        bench.study(memory=8000, trials=9, queue="q")
        assert len(places(bench)) == 2, "two of 0.4 are within the limit"

    def test_sums_of_parts_come_out_even(self, bench: Any) -> None:
        bench.node("n1", 4, parts="kai")
        bench.study(share=0.1, trials=30)
        assert len(places(bench)) == 30
        assert bench.state.queues.get("default").used == bench.used("n1") == 3
        for index in range(30):
            bench.trial(index, phase=Phase.SUCCEEDED)
        assert bench.state.queues.get("default").used == bench.used("n1") == 0


class TestReclaim:
    def hold(self, bench: Any, index: int, device: str, gpus: float = 0.25, key: str = "ns/b") -> None:
        place = Placement(attempt=0, node="n1", gpus=gpus, resource=GPU, backend="kai", devices=[device])
        bench.trial(index, key, Phase.PLACED, placement=place, since=float(index))

    @pytest.fixture
    def shared(self, bench: Any) -> Any:
        """Two GPUs, eight trials of a borrower on them."""
        bench.node("n1", 2, parts="kai")
        bench.queue("mine", guaranteed=2)
        bench.queue("theirs")
        bench.study("ns/b", share=0.25, queue="theirs")
        for index in range(8):
            self.hold(bench, index, str(index // 4))
        return bench

    def test_a_part_costs_one_part(self, shared: Any) -> None:
        shared.study("ns/a", share=0.25, trials=1, queue="mine")
        assert shared.preempted() == ["ns/b-7 for ns/a-0"]

    def test_parts_come_of_one_gpu(self, shared: Any) -> None:
        shared.study("ns/a", share=0.5, trials=1, queue="mine")
        assert shared.preempted() == ["ns/b-7 for ns/a-0", "ns/b-6 for ns/a-0"]

    def test_a_whole_gpu_costs_all_its_sharers(self, shared: Any) -> None:
        shared.study("ns/a", 1, trials=1, queue="mine")
        assert shared.preempted() == [f"ns/b-{index} for ns/a-0" for index in (7, 6, 5, 4)]

    def test_the_gpu_of_which_the_least_is_used_is_emptied(self, shared: Any) -> None:
        for index in (0, 1, 2):
            shared.trial(index, "ns/b", Phase.SUCCEEDED)
        shared.study("ns/a", 1, trials=1, queue="mine")
        assert shared.preempted() == ["ns/b-3 for ns/a-0"]

    def test_nobody_gets_a_part_of_a_gpu_that_is_being_emptied(self, shared: Any) -> None:
        shared.study("ns/a", 1, trials=1, queue="mine")
        assert len(shared.preempted()) == 4
        shared.trial(7, "ns/b", Phase.FAILED)
        shared.study("ns/c", share=0.25, trials=1, queue="theirs")
        assert shared.cycle() == []
        for index in (6, 5, 4):
            shared.trial(index, "ns/b", Phase.FAILED)
        assert shared.cycle() == [("ns/a", 0, "n1")]

    def test_nobody_nibbles_at_a_part_that_is_given_back(self, shared: Any) -> None:
        shared.study("ns/a", share=0.5, trials=1, queue="mine")
        assert len(shared.preempted()) == 2
        shared.trial(7, "ns/b", Phase.FAILED)
        shared.study("ns/c", share=0.25, trials=1, queue="theirs")
        assert shared.cycle() == []
        shared.trial(6, "ns/b", Phase.FAILED)
        assert shared.cycle() == [("ns/a", 0, "n1")]

    def test_who_has_a_place_before_all_are_gone_who_made_room_needs_no_other(self, shared: Any) -> None:
        shared.study("ns/a", share=0.5, trials=2, queue="mine")
        assert shared.preempted() == [
            f"ns/b-{victim} for ns/a-{trial}" for victim, trial in ((7, 0), (6, 0), (5, 1), (4, 1))
        ]
        shared.trial(3, "ns/b", Phase.SUCCEEDED)
        shared.trial(2, "ns/b", Phase.SUCCEEDED)
        self.hold(shared, 0, "0", 0.5, "ns/a")
        shared.study("ns/a", share=0.5, trials=0, queue="mine", parallel=1000)
        shared.trial(2, "ns/a")
        assert shared.preempted() == []  # what 7 and 6 give back is enough for it

    def test_a_gpu_that_somebody_shares_who_may_not_be_stopped_is_not_emptied(self, shared: Any) -> None:
        shared.queue("others", guaranteed=0.25)
        shared.study("ns/o", share=0.25, queue="others")
        for index, device in ((7, "1"), (3, "0")):
            shared.trial(index, "ns/b", Phase.SUCCEEDED)
            self.hold(shared, index, device, key="ns/o")
        shared.queue("others", guaranteed=0.5)
        shared.study("ns/a", 1, trials=1, queue="mine")
        assert shared.preempted() == []

    def test_what_is_kept_for_memory_is_its_share_of_the_gpu_that_it_is_on(self, bench: Any) -> None:
        """The same memory is less of the large GPU, which is taken for good."""
        bench.node("n1", 1, parts="kai", memory=10000)
        bench.node("n2", 1, parts="kai", memory=40000)
        bench.queue("mine", guaranteed=1)
        bench.queue("theirs")
        bench.pod("stranger", "n2", 1)
        bench.study("ns/b", share=0.25, queue="theirs", parallel=4)
        for index in range(4):
            self.hold(bench, index, "0")
        bench.study("ns/a", memory=5000, trials=1, queue="mine")
        assert [told.gpus for told in schedule(bench.state, 0.0).preempt] == [0.5, 0.5]

    @pytest.mark.parametrize(
        ("ask", "spare", "want"),
        [
            ({"cpu": 2.0}, 4.0, []),
            ({"cpu": 2.0}, 1.0, ["ns/b-3 for ns/a-0"]),
            ({"cpu": 2.0}, 0.0, ["ns/b-3 for ns/a-0", "ns/b-2 for ns/a-0"]),
            ({"cpu": 9.0}, 0.0, []),
            ({"memory": 9e9}, 0.0, []),
        ],
    )
    def test_cores_are_given_back_with_the_gpu(self, bench: Any, ask: Any, spare: float, want: list[str]) -> None:
        """Half a GPU is free; what lacks is CPU."""
        bench.node("n1", 1, parts="kai", cpu=4 + spare, memory=8e9)
        bench.queue("mine", guaranteed=1)
        bench.queue("theirs")
        bench.study("ns/b", share=0.125, queue="theirs", cpu=1.0, memory=1e9)
        for index in range(4):
            self.hold(bench, index, "0", 0.125)
        bench.study("ns/a", share=0.25, trials=1, queue="mine", **ask)
        assert bench.preempted() == want


requests = st.one_of(
    st.builds(GpuRequest, st.just(GPU), st.integers(1, 4)),
    st.builds(
        GpuRequest, st.just(GPU), share=st.sampled_from([0.1, 0.25, 0.3, 0.3333, 0.5, 0.9]), spread=st.booleans()
    ),
    st.builds(GpuRequest, st.just(GPU), memory=st.sampled_from([1, 5000, 16000, 40000])),
)
kinds = st.sampled_from(
    [Kind(GPU), Kind(GPU, parts="kai"), Kind(GPU, "A", 16000, parts="kai"), Kind(GPU, "B", 40000, parts="kai"),
     Kind(GPU, memory=4000, size=0.25, whole="timeslice")]
)  # fmt: skip


@settings(max_examples=150)
@given(
    nodes=st.lists(st.tuples(st.integers(1, 6), kinds), min_size=1, max_size=4),
    asked=st.lists(st.tuples(requests, st.integers(1, 6)), min_size=1, max_size=5),
    ends=st.lists(st.integers(0, 30), max_size=20),
)
def test_no_gpu_is_given_twice_and_none_is_idle_beside_one_who_fits(nodes: Any, asked: Any, ends: list[int]) -> None:
    """Checked by a model of its own: the list of places that have not ended."""
    state, held = ClusterState(), dict[tuple[str, int], Place]()
    for number, (units, kind) in enumerate(nodes):
        state.set_node(Node(f"n{number}", {GPU: units}, kinds={GPU: kind}))
    for number, (request, trials) in enumerate(asked):
        state.set_study(StudyView(f"ns/{number}", f"u{number}", "ns", parallel=99, gpu=request))
        for index in range(trials):
            state.set_trial(TrialView(f"ns/{number}", index))
    for end in [*ends, 0]:
        decisions = schedule(state, 0.0)
        held |= {(place.study, place.index): place for place in decisions.placements}
        taken = [_taken(units, [p for p in held.values() if p.node == f"n{n}"]) for n, (units, _) in enumerate(nodes)]
        for waiting in decisions.waiting:
            request = asked[int(waiting.study.removeprefix("ns/"))][0]
            for (units, kind), (free, parts) in zip(nodes, taken, strict=True):
                needs = portion(request, kind)
                fits = needs and (
                    free >= max(1, needs.units) or any(1 - p >= needs.share - 1e-9 for p in parts if needs.share)
                )
                assert not fits, f"{waiting} beside {units} {kind}, {free} free, {parts}"
        if held:
            study, index = sorted(held)[end % len(held)]
            del held[study, index]
            state.set_trial(TrialView(study, index, Phase.SUCCEEDED))


def _taken(units: int, places: list[Place]) -> tuple[int, list[float]]:
    """Whole GPUs that are free, and how much is taken of each that is shared."""
    parts: dict[str, float] = {}
    whole = 0
    for place in places:
        if place.devices:
            (device,) = place.devices
            parts[device] = parts.get(device, 0.0) + place.gpus
        else:
            whole += max(1, int(place.gpus))
    assert whole + len(parts) <= units
    assert all(share <= 1 + 1e-9 for share in parts.values())
    return units - whole - len(parts), list(parts.values())
