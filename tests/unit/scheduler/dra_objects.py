"""GPUs as a driver publishes them in ResourceSlices."""

from typing import Any

Object = dict[str, Any]
GPU, DRIVER = "nvidia.com/gpu", "gpu.nvidia.com"
IS_GPU = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'gpu'"
IS_MIG = IS_GPU.replace("'gpu'", "'mig'")
CLASSES = {DRIVER: IS_GPU, "mig.nvidia.com": IS_MIG}


def device(name: str, *, shared: bool = False, memory: Any = "80Gi", **more: Any) -> Object:
    """As NVIDIA's driver publishes it, or as KEP-5075 has it."""
    attributes = {"type": "gpu", "productName": "NVIDIA A100-SXM4-80GB", "uuid": f"GPU-{name}"}
    attributes |= more.pop("attributes", {})
    capacity = {"memory": memory, **more.pop("capacity", {})}
    item = {
        "name": name,
        "attributes": {key: {"string": value} for key, value in attributes.items() if value is not None},
        "capacity": {key: {"value": each} if isinstance(each, str) else each for key, each in capacity.items() if each},
        **more,
    }
    return item | ({"allowMultipleAllocations": True} if shared else {})
