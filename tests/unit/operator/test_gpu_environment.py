"""What programs are told of the part of a GPU that is theirs."""

import pytest

from tuneyard_operator.gpu_environment import gpu_environment

LIMITS = {
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2250",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "CUPY_GPU_MEMORY_LIMIT": "22.5%",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
}


@pytest.mark.parametrize(
    ("placement", "want"),
    [
        ({}, {}),
        ({"gpus": 0}, {}),
        ({"gpus": 1, "backend": "whole"}, {}),
        ({"gpus": 2.0, "memory": 8}, {}),
        ({"gpus": 0.25, "backend": "local"}, {"TUNEYARD_GPU_FRACTION": "0.25", **LIMITS}),
        (
            {"gpus": 0.25, "backend": "timeslice", "memory": 4096},
            {"TUNEYARD_GPU_FRACTION": "0.25", "TUNEYARD_GPU_MEMORY_MIB": "4096", **LIMITS}
            | {"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=4096M"},
        ),
        (
            {"gpus": 0.1429, "backend": "mig", "memory": 9728},
            {"TUNEYARD_GPU_FRACTION": "0.1429", "TUNEYARD_GPU_MEMORY_MIB": "9728"},
        ),
    ],
)
def test_what_is_told(placement: dict, want: dict) -> None:
    assert gpu_environment(placement) == want
