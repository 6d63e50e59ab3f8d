"""DRA against the real kube-scheduler: what it allocated, as the ResourceClaims themselves say, and why others wait.

The ResourceSlices are written by the tests: fakes, of a driver that does not run.
"""

from collections import Counter
from collections.abc import Iterator

import pytest
from _dra import API, Lab, nvidia_class
from _studies import study, until

from devcluster.cluster import Cluster
from devcluster.stack import Stack

pytestmark = pytest.mark.usefixtures("stack", "device_class")


@pytest.fixture(scope="module")
def device_class(cluster: Cluster) -> Iterator[None]:
    """The one that NVIDIA's driver brings."""
    if API not in cluster.kubectl("api-versions").stdout.split():
        pytest.skip(f"this cluster has no {API}")
    with nvidia_class(cluster):
        yield


@pytest.fixture
def lab(cluster: Cluster, namespace: str) -> Iterator[Lab]:
    made = Lab(cluster, namespace)
    yield made
    made.clean()


def test_halves_fill_the_gpus_and_a_third_waits(lab: Lab) -> None:
    lab.node(lab.gpu(0, shared=True), lab.gpu(1, shared=True))
    lab.run("half", {"fraction": 0.5}, trials=5)
    lab.studies.until_running("half", 4)
    assert sorted(map(sorted, lab.allocated().values())) == [[40, 40], [40, 40]]
    assert lab.reason("half") == (
        "NoNodeFits",
        f"needs 0.5 of 1 nvidia.com/gpu ({lab.model}); of 1 node, the GPU that is used least has 0 left",
    )
    for place in lab.places("half"):
        node, (device,) = place["node"], place["devices"]
        assert f"{node}/{device}" in lab.allocated()
        assert place["memory"] == 40 * 1024
    [container] = lab.studies.objects("pods")[0]["spec"]["containers"]
    assert container["resources"]["claims"] == [{"name": "tuneyard-gpu"}]
    templates = lab.studies.objects("resourceclaimtemplates")
    assert len(templates) == 2, "one for each GPU, however many trials run on it"
    assert {owner["kind"] for template in templates for owner in template["metadata"]["ownerReferences"]} == {"Study"}
    lab.studies.kubectl("delete", "study", "half")
    until(lambda: not lab.allocated(), "all is given back")
    until(lambda: not lab.studies.objects("resourceclaimtemplates"), "the templates are gone")


def test_each_gpu_is_as_its_place_says(lab: Lab) -> None:
    """The books of the scheduler and what kube-scheduler allocated, device by device."""
    for _ in range(2):
        lab.node(*(lab.gpu(number, shared=True) for number in range(3)))
    lab.run("third", {"memory": "26Gi"}, trials=9)
    lab.run("spread", {"fraction": 0.25, "packing": "Spread"}, trials=4)
    lab.studies.until_running("third", 9)
    lab.studies.until_running("spread", 4)
    places = [place for name in ("third", "spread") for place in lab.places(name)]
    booked = Counter(f"{place['node']}/{place['devices'][0]}" for place in places)
    allocated = lab.allocated()
    assert all(sum(amounts) <= 80 for amounts in allocated.values())
    assert booked == Counter({device: len(amounts) for device, amounts in allocated.items()})


def test_whole_ones_and_parts_on_the_same_nodes(lab: Lab) -> None:
    lab.node(*(lab.gpu(number, shared=True) for number in range(4)))
    lab.run("part", {"fraction": 0.5}, trials=2)
    lab.studies.until_running("part", 2)
    lab.run("whole", {"count": 3}, trials=2)
    lab.studies.until_running("whole", 1)
    allocated = lab.allocated()
    assert sorted(map(sorted, allocated.values())) == [[40, 40], [80], [80], [80]]
    assert lab.reason("whole")[0] == "NoNodeFits"
    lab.studies.kubectl("delete", "study", "part")
    lab.run("two", {"count": 1}, trials=1)
    lab.studies.until_running("two", 1)
    assert sorted(map(sorted, lab.allocated().values())) == [[80]] * 4


def test_gpus_that_are_not_shared_are_whole(lab: Lab) -> None:
    lab.node(*(lab.gpu(number, shared=False) for number in range(2)))
    lab.run("part", {"fraction": 0.5}, trials=1)
    assert lab.reason("part")[0] == "NoGpuNodes"
    lab.run("whole", {"count": 1}, trials=3)
    lab.studies.until_running("whole", 2)
    assert lab.reason("whole")[0] == "NoNodeFits"
    assert sorted(lab.allocated().values()) == [[80], [80]]


def test_what_others_claim_counts(lab: Lab) -> None:
    lab.node(*(lab.gpu(number, shared=True) for number in range(3)))
    lab.claim("whole", selectors=lab.any_gpu)
    lab.claim("part", capacity={"requests": {"memory": "50Gi"}}, selectors=lab.any_gpu)
    lab.run("s", {"fraction": 0.5}, trials=4)
    lab.studies.until_running("s", 2)
    assert sorted(map(sorted, lab.allocated().values())) == [[40, 40], [50], [80]]
    assert lab.reason("s")[0] == "NoNodeFits"
    lab.studies.kubectl("delete", "pod", "whole")
    lab.studies.kubectl("delete", "resourceclaim", "whole")
    lab.studies.until_running("s", 4)


def test_a_policy_rounds_what_is_asked_for(lab: Lab) -> None:
    policy = {"default": "20Gi", "validRange": {"min": "20Gi", "step": "20Gi"}}
    lab.node(lab.gpu(0, shared=True, capacity={"memory": {"value": "80Gi", "requestPolicy": policy}}))
    lab.run("s", {"memory": "25Gi"}, trials=3)
    lab.studies.until_running("s", 2)
    assert list(lab.allocated().values()) == [[40, 40]]
    assert [place["gpus"] for place in lab.places("s")] == [0.5, 0.5]


def test_other_capacities_are_shared_alike(lab: Lab) -> None:
    """One that is not asked for would be consumed whole, and leave nothing for a second claim."""
    lab.node(lab.gpu(0, shared=True, capacity={"cores": {"value": "100"}}))
    lab.run("s", {"fraction": 0.5}, trials=3)
    lab.studies.until_running("s", 2)
    assert list(lab.allocated().values()) == [[40, 40]]


def test_gpus_that_cannot_be_told_from_others(lab: Lab) -> None:
    """kube-scheduler chooses the device, and the books take it from the claim."""
    lab.node(*(lab.gpu(number, shared=True, uuid=False) for number in range(2)))
    lab.run("s", {"fraction": 0.5}, trials=5)
    lab.studies.until_running("s", 4)
    assert sorted(map(sorted, lab.allocated().values())) == [[40, 40], [40, 40]]
    assert lab.reason("s")[0] == "NoNodeFits"


def test_short_trials_use_the_gpus_again_and_again(lab: Lab) -> None:
    lab.node(lab.gpu(0, shared=True))
    for_seconds = {"duration-ms": "3000"}  # so that a look at the claims does not miss them
    halves = {"fraction": 0.5, "model": lab.model}
    lab.studies.apply(study("s", annotations=for_seconds, gpu=halves, trials={"max": 12, "parallel": 6}))
    seen: list[float] = []

    def complete() -> bool:
        seen.extend(sum(amounts) for amounts in lab.allocated().values())
        return lab.studies.status("s").get("phase") == "Complete"

    until(complete, "the study completes", 300)
    assert lab.studies.status("s")["trials"]["succeeded"] == 12
    assert max(seen) == 80, "both halves at a time, and never more"


def test_a_restart_finds_who_has_what(lab: Lab, stack: Stack) -> None:
    """All that is known of devices and claims is read anew: no GPU is given twice, and none is forgotten."""
    lab.node(*(lab.gpu(number, shared=True) for number in range(2)))
    lab.claim("theirs", selectors=lab.any_gpu)
    lab.run("before", {"fraction": 0.25}, trials=2)
    lab.studies.until_running("before", 2)
    stack.kill("scheduler")
    lab.run("after", {"fraction": 0.25}, trials=4)
    stack.start("scheduler")
    lab.studies.until_running("after", 2)
    assert sorted(map(sorted, lab.allocated().values())) == [[20] * 4, [80]]
    assert lab.reason("after")[0] == "NoNodeFits"
