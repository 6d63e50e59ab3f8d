"""The pod that holds a GPU, what is read of it, what runs in it, and what its sharers are shown."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tuneyard_scheduler import holding
from tuneyard_scheduler.backends import catalog, limits, reservation
from tuneyard_scheduler.backends.reservation import Reservation
from tuneyard_scheduler.devices import Slot
from tuneyard_scheduler.reserving import default_template

SLOT = Slot("n1.example.test", "nvidia.com/gpu", "3")
PLACE = {"attempt": 0, "node": "n1", "gpus": 0.25, "resource": "nvidia.com/gpu", "backend": "reservation",
         "devices": ["0"], "memory": 20480, "uuid": "GPU-8a"}  # fmt: skip


class TestPod:
    def test_holds_one_gpu_of_the_node_in_both_containers(self) -> None:
        pod = reservation.pod(SLOT, default_template())
        [tell], [hold] = pod["spec"]["initContainers"], pod["spec"]["containers"]
        for container in (tell, hold):
            assert container["resources"]["limits"] == {"memory": "64Mi", "nvidia.com/gpu": "1"}
            assert container["image"].startswith("tuneyard/tuneyard:")
            assert container["securityContext"]["runAsNonRoot"] is True
        assert tell["command"] == [*hold["command"], "tell"]
        [term] = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
        assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [SLOT.node]}]}
        assert pod["spec"]["automountServiceAccountToken"] is False

    def test_is_owned_by_its_node(self) -> None:
        [owner] = reservation.pod(SLOT, default_template(), "u-n1")["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Node", SLOT.node, "u-n1", True)
        assert "blockOwnerDeletion" not in owner, "that would need a right"

    def test_what_the_installation_says_stays(self) -> None:
        template = default_template()
        template["metadata"] = {"labels": {"team": "platform"}}
        template["spec"] |= {"priorityClassName": "high", "runtimeClassName": "nvidia", "imagePullSecrets": [{}]}
        before = json.dumps(template)
        pod = reservation.pod(SLOT, template)
        assert pod["metadata"]["labels"] == {"team": "platform", "tuneyard.dev/gpu-slot": "3"}
        assert pod["spec"]["priorityClassName"] == "high"
        assert pod["spec"]["runtimeClassName"] == "nvidia"
        assert json.dumps(template) == before, "the next pod is made from it too"

    def test_is_read_as_it_was_made(self) -> None:
        pod = reservation.pod(SLOT, default_template())
        pod["metadata"]["uid"] = "u"
        assert reservation.read(pod) == Reservation(
            SLOT, reservation.name(SLOT), "u", "waiting", trouble="it did not start"
        )


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
FAILED = {"terminated": {"exitCode": 1, "reason": "Error", "message": "given 0 GPUs\n"}}
BACKOFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}


@pytest.mark.parametrize(
    ("status", "want"),
    [
        ({}, {"stage": "waiting"}),
        ({"phase": "Pending", "conditions": [UNSCHEDULABLE]}, {"refused": True, "trouble": "Unschedulable: 0/3 nodes"}),
        ({"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff",
          "message": "no such image"}}}]}, {"trouble": "ImagePullBackOff: no such image"}),
        ({"phase": "Pending", "initContainerStatuses": [{"state": BACKOFF, "lastState": FAILED}]},
         {"trouble": "Error: given 0 GPUs"}),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk pressure"},
         {"stage": "over", "trouble": "Evicted: disk pressure"}),
        ({"phase": "Running", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 0, "message":
          "GPU-8a\n"}}}]}, {"stage": "running", "uuid": "GPU-8a"}),
        ({"phase": "Running", "initContainerStatuses": [{"state": FAILED}]}, {"stage": "running", "uuid": None}),
    ],
)  # fmt: skip
def test_what_is_read(status: dict[str, Any], want: dict[str, Any]) -> None:
    pod = reservation.pod(SLOT, default_template())
    pod["metadata"]["uid"] = "u"
    found = reservation.read({**pod, "status": status})._asdict()
    assert {name: found[name] for name in want} == want


class TestSharers:
    def rendered(self, pod: dict[str, Any]) -> dict[str, Any]:
        template = {"spec": pod}
        catalog.render(PLACE, template, pod["containers"][0])
        return template

    def env(self, container: dict[str, Any]) -> dict[str, str]:
        names = [entry["name"] for entry in container["env"]]
        assert len(names) == len(set(names))
        return {entry["name"]: entry["value"] for entry in container["env"]}

    def test_are_shown_the_one_gpu_and_told_their_part(self) -> None:
        template = self.rendered({"containers": [{"name": "main"}]})
        [main] = template["spec"]["containers"]
        assert self.env(main) == {
            "NVIDIA_VISIBLE_DEVICES": "GPU-8a",
            "TUNEYARD_GPU_FRACTION": "0.25",
            "TUNEYARD_GPU_MEMORY_MIB": "20480",
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.225",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "CUPY_GPU_MEMORY_LIMIT": "22.5%",
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=20480M",
        }
        assert "resources" not in main
        [part] = catalog.said(template, ours=True)[1]
        assert part == ("nvidia.com/gpu", "0", 0.25)

    def test_get_no_other_gpu_by_their_template(self) -> None:
        greedy = {
            "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}],
            "resources": {"limits": {"nvidia.com/gpu": "8", "memory": "1Gi"}, "requests": {"nvidia.com/gpu": "8"}},
        }
        pod = {
            "containers": [{"name": "main", **json.loads(json.dumps(greedy))}, {"name": "side", **greedy}],
            "initContainers": [{"name": "first", **json.loads(json.dumps(greedy))}],
        }
        spec = self.rendered(pod)["spec"]
        main, side, first = (*spec["containers"], *spec["initContainers"])
        assert self.env(main)["NVIDIA_VISIBLE_DEVICES"] == "GPU-8a"
        for container in (side, first):
            assert self.env(container)["NVIDIA_VISIBLE_DEVICES"] == "void"
        for container in (main, side, first):
            assert container["resources"] == {"limits": {"memory": "1Gi"}, "requests": {}}

    def test_settings_of_their_own_for_a_framework_stay_but_the_part_is_ours(self) -> None:
        env = [
            {"name": "XLA_PYTHON_CLIENT_PREALLOCATE", "value": "true"},
            {"name": "TUNEYARD_GPU_FRACTION", "value": "1"},
        ]
        [main] = self.rendered({"containers": [{"name": "main", "env": env}]})["spec"]["containers"]
        assert self.env(main)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"
        assert self.env(main)["TUNEYARD_GPU_FRACTION"] == "0.25"

    def test_who_sees_no_more_than_its_own_is_not_limited_twice(self) -> None:
        assert limits.environment(0.1429, 9728) == {
            "TUNEYARD_GPU_FRACTION": "0.1429",
            "TUNEYARD_GPU_MEMORY_MIB": "9728",
        }


class TestHolding:
    @pytest.mark.parametrize(
        ("said", "mounts", "driver", "want"),
        [
            ("GPU-8a", [], "", "GPU-8a"),
            ("0", [], "", "0"),
            ("MIG-1b", [], "", "MIG-1b"),
            ("/var/run/nvidia-container-devices", ["GPU-8a"], "", "GPU-8a"),
            ("void", [], "GPU 0: NVIDIA H100 (UUID: GPU-8a-9b)", "GPU-8a-9b"),
            ("void", [], "GPU 0: A100 (UUID: GPU-8a)\n  MIG 1g.5gb Device 0: (UUID: MIG-1b)", "MIG-1b"),
            ("", [], "", None),
            ("all", [], "", None),
            ("GPU-8a,GPU-9b", [], "", None),
            ("void", [], "GPU 0: A (UUID: GPU-8a)\nGPU 1: A (UUID: GPU-9b)", None),
        ],
    )
    def test_which_gpu_it_was_given(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        said: str,
        mounts: list[str],
        driver: str,
        want: str | None,
    ) -> None:
        program, folder = tmp_path / "nvidia-smi", tmp_path / "devices"
        if driver:
            program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{driver}\nEOF\n")
            program.chmod(0o755)
        for name in mounts:
            (folder / name).mkdir(parents=True)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        if want is not None:
            assert holding.gpu({"NVIDIA_VISIBLE_DEVICES": said}, folder) == want
            return
        with pytest.raises(holding.NoGpu, match=r"not 1: NVIDIA_VISIBLE_DEVICES is"):
            holding.gpu({"NVIDIA_VISIBLE_DEVICES": said}, folder)

    @pytest.mark.parametrize(("devices", "status"), [("GPU-8a", 0), ("void", 1)])
    def test_its_last_words_are_the_gpu_or_why_not(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, devices: str, status: int
    ) -> None:
        monkeypatch.setattr(holding, "TERMINATION_FILE", tmp_path / "last-words")
        monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", devices)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert holding.main(["tell"]) == status
        assert (tmp_path / "last-words").read_text().startswith("GPU-8a" if status == 0 else "this container was given")

    def test_it_waits_until_it_is_told_to_end(self) -> None:
        program = """
import os, signal, sys, threading
from tuneyard_scheduler import holding
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
sys.exit(holding.main([]))
"""
        assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
