"""What the process finds out about the cluster that it is in."""

import pytest
from api_server_in_memory import READY, FakeKube, add_node, add_study, placed, running, settle, until

from tuneyard_scheduler.backends import kai
from tuneyard_scheduler.kube import KubeError, path

DRIVER = "gpu.nvidia.com"


def add_claimed_gpus(kube: FakeKube, node: str = "n1", gpus: int = 2) -> None:
    """A node whose GPUs are in a ResourceSlice, and their DeviceClass."""
    kube.put("nodes", None, node, status={"allocatable": {"cpu": "8"}, "conditions": READY})
    text = f"device.driver == '{DRIVER}'"
    kube.put("deviceclasses", None, DRIVER, spec={"selectors": [{"cel": {"expression": text}}]})
    devices = [{"name": f"gpu-{n}", "attributes": {"uuid": {"string": f"GPU-{n}"}}} for n in range(gpus)]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    kube.put("resourceslices", None, node, spec={"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices})


class TestWhatAClusterHas:
    async def test_gpus_are_claimed_where_the_api_is_served(self, kube: FakeKube) -> None:
        kube.objects["/apis/resource.k8s.io/v1"] = {"metadata": {}}
        add_claimed_gpus(kube)
        results = [{"driver": DRIVER, "pool": "n1", "device": "gpu-0"}]
        kube.put("resourceclaims", "ns", "theirs", status={"allocation": {"devices": {"results": results}}})
        add_study(kube, trials=2)
        async with running(kube):
            await until(lambda: len(placed(kube)) == 1)
            await settle()
            placement = kube.objects[path("trials", "ns", "a-0")]["status"]["placement"]
            assert (placement["backend"], placement["devices"], placement["claim"]["count"]) == ("dra", ["gpu-1"], 1)
            assert placement["claim"]["deviceClass"] == DRIVER
            assert len(placed(kube)) == 1
            kube.delete("resourceclaims", "ns", "theirs")
            await until(lambda: len(placed(kube)) == 2)

    async def test_nothing_is_claimed_where_it_is_not(self, kube: FakeKube) -> None:
        """Kubernetes 1.31 to 1.33."""
        add_claimed_gpus(kube)
        add_node(kube, "n2", gpus=1)
        add_study(kube, trials=2)
        async with running(kube):
            await until(lambda: placed(kube) == {0: "n2"})
            await settle()
            assert placed(kube) == {0: "n2"}
        assert path("resourceslices") not in kube.selectors

    @pytest.mark.parametrize("shares", [True, False])
    async def test_kai_divides_gpus_where_it_is_set_up_to(self, kube: FakeKube, shares: bool) -> None:
        kube.objects[kai.CONFIG] = {"metadata": {}, "spec": {"admission": {"gpuSharing": shares}}}
        add_node(kube, gpus=1)
        add_study(kube, trials=3, gpu={"fraction": 0.5})
        async with running(kube):
            await settle()
            assert placed(kube) == ({0: "n1", 1: "n1"} if shares else {})

    async def test_what_is_not_known_yet_is_asked_again(self, kube: FakeKube) -> None:
        refused = []

        def refuse_first(method: str, url: str) -> None:
            if url.startswith("/apis/") and url.count("/") == 3 and not refused:
                refused.append(url)
                raise KubeError(503, "Unavailable", "later")

        kube.before = refuse_first
        add_node(kube, gpus=1)
        add_study(kube, trials=1)
        async with running(kube):
            await until(lambda: placed(kube) == {0: "n1"})
        assert refused == ["/apis/resource.k8s.io/v1"]
