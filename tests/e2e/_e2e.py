"""What the end-to-end tests share: programs that run in real containers."""

from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLES: Final = ROOT / "examples"
IMAGE: Final = "tuneyard/examples:0.1.0"
RESTRICTED: Final = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
TRAIN: Final = """\
import os, time, tuneyard
x = tuneyard.parameters(x=0.5)["x"]
for step in range(int(os.environ["STEPS"])):
    time.sleep(0.5)
    tuneyard.report(step=step, loss=x + 1 / (step + 1))
"""
"""Takes half a second a step; its last loss is x + 1 / STEPS."""

Object = dict[str, Any]


def real_study(name: str, program: str = TRAIN, *, steps: int = 2, image: str = IMAGE, **spec: Any) -> Object:
    """A study of x in [0, 1] whose trials run `program` (Python) in a container."""
    container = {
        "name": "trial",
        "image": image,
        "command": ["python", "-c", program],
        "env": [{"name": "STEPS", "value": str(steps)}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": RESTRICTED,
    }
    ours: Object = {
        "objectives": [{"metric": "loss", "goal": "minimize"}],
        "parameters": [{"name": "x", "double": {"min": 0, "max": 1}}],
        "strategy": {"name": "random", "seed": 3},
        "trials": {"max": 4, "parallel": 2},
        "template": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}},
    }
    return {"apiVersion": "tuneyard.dev/v1alpha1", "kind": "Study", "metadata": {"name": name}, "spec": ours | spec}


def condition(status: Object, kind: str) -> Object:
    """A condition of a study."""
    found: Object = next(entry for entry in status["conditions"] if entry["type"] == kind)
    return found
