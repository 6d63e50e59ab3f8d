"""API objects as views, decisions as patches."""

from typing import Any

import pytest

from tuneyard_api.trial import Phase
from tuneyard_scheduler import translate
from tuneyard_scheduler.backends import catalog
from tuneyard_scheduler.devices import GpuRequest, Kind, Part
from tuneyard_scheduler.selection import Taint
from tuneyard_scheduler.views import AttemptKey, Place, QueueView, Taken

READY = [{"type": "Ready", "status": "True"}]


def node(**more: Any) -> dict[str, Any]:
    item: dict[str, Any] = {
        "metadata": {"name": "n1", "labels": {"nvidia.com/gpu.product": "T4"}},
        "spec": {},
        "status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": READY},
    }
    for part, fields in more.items():
        item[part] |= fields
    return item


class TestNode:
    def test_plain(self) -> None:
        view = translate.node(node())
        assert (view.name, view.capacity) == ("n1", {"nvidia.com/gpu": 8})
        assert view.kind("nvidia.com/gpu") == Kind("nvidia.com/gpu", "T4")
        assert view.ready
        assert view.schedulable

    @pytest.mark.parametrize(
        "conditions", [[], [{"type": "Ready", "status": "Unknown"}], [{"type": "DiskPressure", "status": "True"}]]
    )
    def test_not_ready(self, conditions: list[dict[str, str]]) -> None:
        assert not translate.node(node(status={"conditions": conditions})).ready

    @pytest.mark.parametrize(
        ("more", "want"),
        [
            ({"spec": {"unschedulable": True}}, False),
            ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, False),
            ({"spec": {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}}, False),
            ({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}, False),
            ({"spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}}, True),
            ({"spec": {"taints": [{"key": "node.kubernetes.io/x", "effect": "PreferNoSchedule"}]}}, True),
        ],
    )
    def test_schedulable(self, more: dict[str, Any], want: bool) -> None:
        assert translate.node(node(**more)).schedulable is want


def pod(*containers: dict[str, Any], init: list[dict[str, Any]] | None = None, **labels: str) -> dict[str, Any]:
    named = {f"tuneyard.dev/{key.replace('_', '-')}": value for key, value in labels.items()}
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "labels": named},
        "spec": {"nodeName": "n1", "containers": list(containers), "initContainers": init or []},
    }


def gpus(count: int, resource: str = "nvidia.com/gpu", **more: Any) -> dict[str, Any]:
    return {"resources": {"limits": {resource: str(count)}, "requests": {resource: str(count)}}, **more}


class TestPod:
    @pytest.mark.parametrize(
        ("item", "want"),
        [
            (pod(gpus(2)), 2),
            (pod(gpus(2), {}, gpus(1)), 3),
            (pod(gpus(1), init=[gpus(4)]), 4),
            (pod(gpus(1), init=[gpus(2, restartPolicy="Always")]), 3),
            (pod({"resources": {"limits": {"nvidia.com/gpu": 2}}}), 2),
        ],
        ids=["one", "several", "larger init container", "side-car", "limits only, as a number"],
    )
    def test_gpus(self, item: dict[str, Any], want: int) -> None:
        view = translate.pod(item)
        assert view is not None
        assert (view.node, view.taken, view.attempt) == ("n1", Taken({"nvidia.com/gpu": want}), None)

    @pytest.mark.parametrize("containers", [[], [{}], [{"resources": {"limits": {"example.com/nic": "2"}}}]])
    def test_others_that_take_nothing_are_left_out(self, containers: list[dict[str, Any]]) -> None:
        assert translate.pod(pod(*containers)) is None

    def test_others_count_with_their_cpu_and_memory(self) -> None:
        view = translate.pod(pod({"resources": {"requests": {"cpu": "1500m"}, "limits": {"memory": "2Gi"}}}, {}))
        assert view is not None
        assert view.taken == Taken(cpu=1.5, memory=2 * 2**30)

    def test_a_trials_part_of_a_gpu_is_what_its_place_says(self) -> None:
        said = '{"devices": ["3"], "gpus": 0.25, "resource": "nvidia.com/gpu"}'
        ours = pod({}, study="digits", study_uid="u9", index="12", attempt="3")
        ours["metadata"]["annotations"] = {catalog.GPUS_ANNOTATION: said}
        view = translate.pod(ours)
        assert view is not None
        assert view.taken == Taken({}, (Part("nvidia.com/gpu", "3", 0.25),), 0.25)

    def test_what_others_write_on_their_pods_takes_nothing(self) -> None:
        theirs = pod({})
        theirs["metadata"]["annotations"] = {catalog.GPUS_ANNOTATION: '{"gpus": 8, "resource": "nvidia.com/gpu"}'}
        assert translate.pod(theirs) is None

    def test_labels_that_make_no_sense_hide_no_gpus(self) -> None:
        view = translate.pod(pod({"resources": {"limits": {"nvidia.com/gpu": "2"}}}, study="digits", index="x"))
        assert view is not None
        assert (view.attempt, view.taken) == (None, Taken({"nvidia.com/gpu": 2}))

    def test_ours_count_even_without_gpus(self) -> None:
        view = translate.pod(pod({}, study="digits", study_uid="u9", index="12", attempt="3"))
        assert view is not None
        assert (view.attempt, view.owner, view.taken) == (AttemptKey("ns/digits", 12, 3), "u9", Taken())


def study(**spec: Any) -> dict[str, Any]:
    meta = {"name": "digits", "namespace": "ns", "uid": "u1", "creationTimestamp": "2023-11-14T22:13:20Z"}
    return {"metadata": meta, "spec": spec}


class TestStudy:
    def test_bare(self) -> None:
        view = translate.study(study())
        assert (view.key, view.uid, view.namespace, view.created) == ("ns/digits", "u1", "ns", 1_700_000_000.0)
        assert (view.parallel, view.priority, view.suspended, view.gpu, view.queue) == (1, 0, False, None, None)

    def test_full(self) -> None:
        item = study(
            trials={"parallel": 30},
            priority=7,
            suspend=True,
            queue="q",
            gpu={"count": 4, "vendor": "amd", "model": "M"},
        )
        item["status"] = {"phase": "Suspended"}
        item["metadata"]["deletionTimestamp"] = "2023-11-14T22:13:20Z"
        view = translate.study(item)
        assert (view.parallel, view.priority, view.suspended, view.queue) == (30, 7, True, "q")
        assert view.gpu == GpuRequest("amd.com/gpu", 4, "M")
        assert (view.phase, view.deleting) == ("Suspended", True)

    @pytest.mark.parametrize(
        ("gpu", "want"),
        [
            ({"fraction": 0.5}, GpuRequest("nvidia.com/gpu", share=0.5)),
            ({"memory": "10Gi", "model": "T4"}, GpuRequest("nvidia.com/gpu", 0, "T4", memory=10240)),
            ({"count": 1, "sharing": "dra"}, GpuRequest("nvidia.com/gpu", 1, backend="dra")),
            ({"fraction": 0.1, "packing": "Spread"}, GpuRequest("nvidia.com/gpu", share=0.1, spread=True)),
        ],
    )
    def test_what_it_asks_for(self, gpu: dict[str, Any], want: GpuRequest) -> None:
        assert translate.study(study(gpu=gpu)).gpu == want

    def test_what_its_template_asks_of_a_node(self) -> None:
        asks = {"resources": {"requests": {"cpu": "2", "memory": "4Gi"}}}
        template = {"spec": {"containers": [asks], "nodeSelector": {"zone": "a"}}}
        view = translate.study(study(gpu={"count": 1}, template=template))
        assert (view.cpu, view.memory) == (2.0, 4 * 2**30)
        assert view.needs.accepts("n1", {"zone": "a"}, (Taint("nvidia.com/gpu", "NoSchedule", "present"),))
        assert not view.needs.accepts("n1", {"zone": "b"}, ())


def trial(**status: Any) -> dict[str, Any]:
    owners = [{"kind": "Study", "name": "my-study", "uid": "s1"}]
    meta = {"name": "my-study-12", "namespace": "ns", "uid": "t1", "resourceVersion": "7", "ownerReferences": owners}
    return {"metadata": meta, "spec": {"study": "my-study", "index": 12}, "status": status}


class TestTrial:
    def test_new(self) -> None:
        item = trial()
        del item["status"]
        view = translate.trial(item)
        assert (view.study, view.index, view.phase, view.attempt) == ("ns/my-study", 12, Phase.PENDING, 0)
        assert (view.owner, view.uid, view.version) == ("s1", "t1", "7")

    def test_placed(self) -> None:
        place = {"attempt": 2, "node": "n1", "gpus": 4, "resource": "nvidia.com/gpu", "time": "2026-01-01T00:00:00Z"}
        view = translate.trial(trial(phase="Running", attempt=2, placement=place))
        assert view.phase is Phase.RUNNING
        assert view.placement is not None
        assert (view.placement.attempt, view.placement.node, view.placement.gpus) == (2, "n1", 4)

    def test_backoff(self) -> None:
        view = translate.trial(trial(phase="Pending", attempt=1, notBefore="2023-11-14T22:13:20.500000Z"))
        assert view.not_before == 1_700_000_000.5

    @pytest.mark.parametrize(
        ("rung", "judged", "want"),
        [
            (None, None, 0.0),
            ({"fidelity": 3, "level": 0, "bracket": 0}, None, 0.0),
            ({"fidelity": 9, "level": 1, "bracket": 0, "continues": 4}, None, 9.0),
            (None, 27, 27.0),
        ],
    )
    def test_how_far_its_strategy_has_let_it_go(self, rung: Any, judged: int | None, want: float) -> None:
        item = {"metadata": {"name": "a-3", "namespace": "ns", "uid": "u"}, "status": {"judged": judged}}
        assert translate.trial({**item, "spec": {"rung": rung}}).promise == want

    @pytest.mark.parametrize(
        ("strategy", "fidelity", "want"),
        [("asha", {"max": 81}, 81), ("pbt", {"max": 81}, None), ("auto", {"max": 9}, 9), ("auto", None, None)],
    )
    def test_in_a_population_who_is_ahead_is_not_more_promising(self, strategy: str, fidelity: Any, want: Any) -> None:
        meta = {"name": "a", "namespace": "ns", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
        spec = {"strategy": {"name": strategy}, "fidelity": fidelity}
        assert translate.study({"metadata": meta, "spec": spec}).fidelity == want

    @pytest.mark.parametrize(("phase", "want"), [("Pending", Phase.STOPPED), ("Placed", Phase.PLACED)])
    def test_one_that_is_being_deleted_waits_for_no_place(self, phase: str, want: Phase) -> None:
        item = trial(phase=phase)
        item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert translate.trial(item).phase is want

    @pytest.mark.parametrize(
        ("history", "want"),
        [
            ([], ()),
            ([("Infrastructure", "n1")], ("n1",)),
            ([("Infrastructure", "n1"), ("Infrastructure", "n2"), ("Infrastructure", "n1")], ("n1", "n2")),
            ([("Infrastructure", "n1"), ("ProgramFailed", "n2")], ()),
            ([("ProgramFailed", "n1"), ("Infrastructure", "n2"), ("Infrastructure", None)], ("n2",)),
        ],
    )
    def test_nodes_to_avoid(self, history: list[tuple[str, str | None]], want: tuple[str, ...]) -> None:
        attempts = [{"outcome": outcome, **({"node": name} if name else {})} for outcome, name in history]
        assert translate.trial(trial(attempts=attempts)).avoid == want

    def test_name_and_key_are_inverse(self) -> None:
        assert translate.trial_name(*translate.trial_key(trial())) == ("ns", "my-study-12")


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({}, QueueView("q")),
        ({"limit": 0, "namespaces": []}, QueueView("q", 0, frozenset())),
        ({"limit": 8, "namespaces": ["a", "b"]}, QueueView("q", 8, frozenset({"a", "b"}))),
    ],
)
def test_queue(spec: dict[str, Any], want: QueueView) -> None:
    assert translate.queue({"metadata": {"name": "q"}, "spec": spec}) == want


def test_a_placement_replaces_all_of_an_earlier_one() -> None:
    patch = translate.placed(Place("ns/a", 3, 1), "7", 1_700_000_000.25)
    assert patch == {
        "metadata": {"resourceVersion": "7"},
        "status": {
            "phase": "Placed",
            "placement": {
                "attempt": 1,
                "node": None,
                "gpus": 0,
                "resource": None,
                "backend": None,
                "devices": None,
                "memory": None,
                "claim": None,
                "uuid": None,
                "time": "2023-11-14T22:13:20.250000Z",
                "lost": None,
                "reclaim": None,
            },
            "reason": None,
            "message": None,
            "waiting": None,
        },
    }
