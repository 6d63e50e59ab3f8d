"""What the frameworks are told of a trial's part of a GPU."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import tuneyard
from tuneyard import _warn

GIB = 2**30


class Torch:
    """As much of PyTorch as is asked."""

    def __init__(self, memory: int = 80 * GIB, *, available: bool = True) -> None:
        self.told: list[tuple[float, int]] = []
        self.cuda = SimpleNamespace(
            is_available=lambda: available,
            get_device_properties=lambda _: SimpleNamespace(total_memory=memory),
            set_per_process_memory_fraction=lambda fraction, device: self.told.append((fraction, device)),
        )


class TensorFlow:
    """As much of TensorFlow as is asked."""

    def __init__(self, gpus: int = 1, *, busy: bool = False) -> None:
        self.told: list[Any] = []
        self.config = self
        self._gpus, self._busy = [f"gpu-{number}" for number in range(gpus)], busy
        self.LogicalDeviceConfiguration = lambda memory_limit: memory_limit

    def list_physical_devices(self, kind: str) -> list[str]:
        assert kind == "GPU"
        return self._gpus

    def set_logical_device_configuration(self, gpu: str, limits: list[int]) -> None:
        if self._busy:
            raise RuntimeError("Virtual devices cannot be modified after being initialized")
        self.told.append((gpu, limits))


@pytest.fixture(autouse=True)
def no_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    _warn._warned.clear()
    for name in ("torch", "tensorflow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("TUNEYARD_GPU_FRACTION", "TUNEYARD_GPU_MEMORY_MIB"):
        monkeypatch.delenv(name, raising=False)


def share(monkeypatch: pytest.MonkeyPatch, fraction: str = "", memory: str = "") -> None:
    monkeypatch.setenv("TUNEYARD_GPU_FRACTION", fraction)
    monkeypatch.setenv("TUNEYARD_GPU_MEMORY_MIB", memory)


@pytest.mark.parametrize(
    ("fraction", "memory", "visible", "want"),
    [
        ("0.25", "", 80 * GIB, 0.25),
        ("0.25", "20480", 80 * GIB, 0.25),
        ("0.1429", "9728", 9728 * 2**20, 1.0),  # a MIG slice: all that it sees is its own
        ("0.5", "20480", 10 * GIB, 1.0),
        ("", "8192", 16 * GIB, 0.5),
    ],
)
def test_torch_is_told_the_part_of_what_it_sees(
    monkeypatch: pytest.MonkeyPatch, fraction: str, memory: str, visible: int, want: float
) -> None:
    torch = Torch(visible)
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    share(monkeypatch, fraction, memory)
    assert tuneyard.limit_gpu_memory() == ("torch",)
    assert torch.told == [(want, 0)]


def test_tensorflow_is_told_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorflow = TensorFlow()
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)  # type: ignore[arg-type]
    share(monkeypatch, "0.5", "20480")
    assert tuneyard.limit_gpu_memory() == ("tensorflow",)
    assert tensorflow.told == [("gpu-0", [20480])]


def test_too_late_for_tensorflow_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", TensorFlow(busy=True))  # type: ignore[arg-type]
    share(monkeypatch, "0.5", "20480")
    assert tuneyard.limit_gpu_memory() == ()
    assert "before its first operation" in capsys.readouterr().err


@pytest.mark.parametrize("gpus", [0, 1])
def test_without_a_part_or_a_gpu_nothing_happens(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    torch, tensorflow = Torch(available=bool(gpus)), TensorFlow(gpus)
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)  # type: ignore[arg-type]
    if not gpus:
        share(monkeypatch, "0.5", "20480")
    assert tuneyard.limit_gpu_memory() == ()
    assert torch.told == tensorflow.told == []


def test_no_framework_is_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    share(monkeypatch, "0.5", "20480")
    assert tuneyard.limit_gpu_memory() == ()
    assert "torch" not in sys.modules


@pytest.mark.parametrize("text", ["half", "-1", "0"])
def test_nonsense_is_ignored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    share(monkeypatch, text)
    assert tuneyard.limit_gpu_memory() == ()
    assert "TUNEYARD_GPU_FRACTION" in capsys.readouterr().err
