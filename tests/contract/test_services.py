"""What a service of somebody else's promises, asked as the operator asks it: one in the tests, and Optuna's."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from _services import RandomService, serving
from _spaces import SPACES

from tuneyard_api.common import API_VERSION, timestamp
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import InProcess
from tuneyard_operator.strategy_services import WithServices
from tuneyard_strategy.space import Space

NOW = 1_700_000_000.0
PYTHON = Path.home() / ".cache/tuneyard/peers/optuna/bin/python"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/optuna-service/service.py"
UNCONSTRAINED = ["momentum", "thousand", "single", "xgboost"]
Configurations = dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def optuna() -> Iterator[str]:
    """The example, in the environment that benchmarks compare with."""
    if not PYTHON.exists():
        pytest.skip("Optuna is not there: make peers")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen([PYTHON, EXAMPLE, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, "the example ended"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def own() -> Iterator[str]:
    with serving(RandomService()) as url:
        yield url


@pytest.fixture(params=["own", "optuna"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def client() -> AsyncIterator[WithServices]:
    found = WithServices(InProcess(), ["*"])
    yield found
    await found.close()


class Yard:
    """A study, and its trials as they come to be and end."""

    def __init__(self, url: str, space: str, uid: str) -> None:
        meta = {"name": "s", "namespace": "ns", "uid": uid, "generation": 1, "resourceVersion": "1"}
        self.version = 1
        spec = {
            "objectives": [{"metric": "loss", "goal": "minimize"}],
            "parameters": SPACES[space]["parameters"],
            "strategy": {"seed": 3, "service": {"url": url, "timeout": "60s"}},
            "trials": {"max": 1000},
            "template": {"spec": {"containers": [{"name": "train", "image": "train:1"}]}},
        }
        study = {"apiVersion": API_VERSION, "kind": "Study", "metadata": meta, "spec": spec}
        self.state = StudyState({**study, "metadata": {**meta, "creationTimestamp": timestamp(NOW)}}, NOW)
        self.space = Space.from_spec(self.state.spec.parameters)

    def put(self, index: int, parameters: dict[str, Any], phase: str = "Pending", loss: float | None = None) -> None:
        self.version += 1
        meta = {"name": f"s-{index}", "uid": f"u-{index}", "resourceVersion": str(self.version)}
        status: dict[str, Any] = {"phase": phase}
        if loss is not None:
            status |= {"value": loss, "observation": {"metrics": {"loss": loss}}}
        spec = {"study": "s", "index": index, "parameters": parameters}
        item = {"metadata": {**meta, "creationTimestamp": timestamp(NOW)}, "spec": spec, "status": status}
        self.state.set_trial(item, NOW)

    async def live(self, client: WithServices, count: int) -> Configurations:
        """Three at a time: some succeed, some fail; until so many are there, or there are no more."""
        all_of_them: Configurations = {}
        for first in range(0, count, 3):
            answer = await client.ask(self.state, [first, first + 1, first + 2])
            for index, parameters in answer.configurations.items():
                all_of_them[index] = parameters
                self.put(index, parameters)
            for index, parameters in answer.configurations.items():
                fails = index % 7 == 3
                loss = None if fails else float(((self.space.encode(parameters) - 0.4) ** 2).sum())
                self.put(index, parameters, "Failed" if fails else "Succeeded", loss)
            if answer.exhausted:
                break
        return all_of_them


@pytest.mark.parametrize("space", UNCONSTRAINED)
async def test_configurations_are_of_the_space_and_new(url: str, client: WithServices, space: str) -> None:
    yard = Yard(url, space, f"new-{space}")
    found = await yard.live(client, 15)
    assert len(found) == (1 if space == "single" else 15)
    assert not any(yard.space.problems(parameters) for parameters in found.values())
    assert len({yard.space.key(parameters) for parameters in found.values()}) == len(found)


async def test_the_same_question_has_the_same_answer_also_from_one_that_forgot(url: str, client: WithServices) -> None:
    yard = Yard(url, "momentum", "same")
    await yard.live(client, 12)
    first = await client.ask(yard.state, [12, 13])
    again = WithServices(InProcess(), ["*"])
    try:
        assert await again.ask(yard.state, [12, 13]) == first
    finally:
        await again.close()
    assert await client.ask(yard.state, [12, 13]) == first


async def test_a_finite_space_comes_to_its_end(url: str, client: WithServices) -> None:
    yard = Yard(url, "finite", "finite")
    found = await yard.live(client, 90)
    assert len(found) == yard.space.cardinality
    assert len({yard.space.key(parameters) for parameters in found.values()}) == len(found)


async def test_optuna_learns(optuna: str, client: WithServices) -> None:
    yard = Yard(optuna, "svm", "learns")
    found = await yard.live(client, 45)
    losses = [float(((yard.space.encode(parameters) - 0.4) ** 2).sum()) for parameters in found.values()]
    assert sum(losses[30:]) / 15 < sum(losses[:10]) / 10 / 2


async def test_optuna_says_what_it_cannot_do(optuna: str, client: WithServices) -> None:
    yard = Yard(optuna, "svm", "check")
    assert await client.check(yard.state) == []
    yard.state.spec.constraints.append("C > gamma")
    assert await client.check(yard.state) == ["strategy.service: constraints: this service knows none"]
