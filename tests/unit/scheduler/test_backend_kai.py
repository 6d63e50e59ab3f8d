"""KAI: what its pods ask for and have, against the forms in its own documents and source."""

from typing import Any

import pytest

from tuneyard_scheduler import translate
from tuneyard_scheduler.backends import catalog, kai
from tuneyard_scheduler.devices import Part
from tuneyard_scheduler.views import Taken

GPU = "nvidia.com/gpu"
OURS = {"tuneyard.dev/study": "s", "tuneyard.dev/index": "0"}


def rendered(metadata: dict[str, Any] | None = None, **placement: Any) -> dict[str, Any]:
    template: dict[str, Any] = {"metadata": metadata or {}, "spec": {"containers": [{"name": "main"}]}}
    place = {"node": "n1", "resource": GPU, "backend": "kai", "devices": ["0"], **placement}
    assert catalog.render(place, template, template["spec"]["containers"][0]) == []
    return template


def test_a_part_asks_as_documented() -> None:
    """docs/gpu-sharing/gpu-sharing.yaml."""
    template = rendered(gpus=0.5, memory=40960)
    assert template["metadata"]["labels"] == {"kai.scheduler/queue": "default-queue"}
    assert template["metadata"]["annotations"]["gpu-fraction"] == "0.5"
    assert "gpu-memory" not in template["metadata"]["annotations"], "KAI refuses both"
    assert template["spec"]["schedulerName"] == "kai-scheduler"
    assert "resources" not in template["spec"]["containers"][0], "KAI refuses nvidia.com/gpu beside a fraction"
    assert template["spec"]["affinity"], "the node is ours to choose"


def test_all_of_the_memory_is_asked_for_by_memory() -> None:
    """docs/gpu-sharing/gpu-memory.yaml; a fraction has to be below 1."""
    annotations = rendered(gpus=1.0, memory=81920)["metadata"]["annotations"]
    assert annotations["gpu-memory"] == "81920"
    assert "gpu-fraction" not in annotations


def test_the_templates_own_queue_stays() -> None:
    template = rendered({"labels": {"kai.scheduler/queue": "team"}}, gpus=0.5)
    assert template["metadata"]["labels"] == {"kai.scheduler/queue": "team"}


@pytest.mark.parametrize(
    ("config", "shares"),
    [({"spec": {"admission": {"gpuSharing": True}}}, True), ({"spec": {"admission": {}}}, False), ({}, False)],
)
def test_whether_it_shares(config: dict[str, Any], shares: bool) -> None:
    assert kai.shares(config) is shares


def pod(template: dict[str, Any], **meta: Any) -> dict[str, Any]:
    given = {"uid": "p", "namespace": "ns", **template.get("metadata", {}), **meta}
    return {"metadata": given, "spec": {"nodeName": "n1", **template["spec"]}}


def taken(item: dict[str, Any]) -> Taken | None:
    view = translate.pod(item)
    return view.taken if view is not None else None


def test_a_pod_of_ours_counts_where_kai_put_it() -> None:
    template = rendered(gpus=0.25)
    assert taken(pod(template, labels=OURS)) == Taken(parts=(Part(GPU, "0", 0.25),), gpus=0.25)
    bound = pod(template, labels=OURS | {"runai-gpu-group": "g-1"})
    assert taken(bound) == Taken(parts=(Part(GPU, "g-1", 0.25),), gpus=0.25)


@pytest.mark.parametrize(("asked", "share"), [({"gpu-fraction": "0.4"}, 0.4), ({"gpu-memory": "2000"}, 1.0)])
def test_somebody_elses_pod_counts_in_its_group(asked: dict[str, str], share: float) -> None:
    item = {"spec": {"schedulerName": "kai-scheduler", "containers": [{}]}}
    found = taken(pod(item, labels={"runai-gpu-group": "g-1"}, annotations=asked))
    assert found == Taken(parts=(Part(GPU, "g-1", share),))


def test_a_label_alone_counts_for_nothing() -> None:
    assert taken(pod({"spec": {"containers": [{}]}}, labels={"runai-gpu-group": "g-1"})) is None


def test_the_pod_that_holds_a_shared_gpu_is_not_counted_beside_its_sharers() -> None:
    """As pkg/binder/binding/resourcereservation makes it."""
    item = {"spec": {"containers": [{"resources": {"limits": {GPU: "1"}}}]}}
    labels = {"app": "kai-resource-reservation", "runai-gpu-group": "g-1"}
    assert taken(pod(item, namespace="kai-resource-reservation", labels=labels)) is None
    assert taken(pod(item, labels=labels)) == Taken({GPU: 1}), "in another namespace it is a pod like any other"
