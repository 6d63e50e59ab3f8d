"""Studies whose pods are kwok's: they take a node and a time, report their parameter as the loss, and run nothing."""

import json
from pathlib import Path
from typing import Any

CRDS = Path(__file__).parents[1] / "crds"


def pod(seconds: float) -> dict[str, Any]:
    """A template of pods that last so long."""
    annotations = {
        "kwok.tuneyard.dev/duration-ms": f"{1000 * seconds:.0f}",
        "kwok.tuneyard.dev/message": '{"loss": $(TUNEYARD_PARAM_x)}',
    }
    return {"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "trial", "image": "fake"}]}}


def study(name: str, seconds: float, *, trials: int, parallel: int, **spec: Any) -> dict[str, Any]:
    """A study of random values; fields of `spec` replace ours."""
    ours = {
        "objectives": [{"metric": "loss", "goal": "minimize"}],
        "parameters": [{"name": "x", "double": {"min": 0, "max": 1}}],
        "strategy": {"name": "random"},
        "trials": {"max": trials, "parallel": parallel},
        "gpu": {"count": 1},
        "template": json.loads(json.dumps(pod(seconds))),
    }
    return {"apiVersion": "tuneyard.dev/v1alpha1", "kind": "Study", "metadata": {"name": name}, "spec": ours | spec}
