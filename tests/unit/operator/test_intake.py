"""Who may report, and what comes of a report: tokens of an own key, and the intake over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric import rsa
from operator_objects import Object, Yard

from tuneyard_operator import tokens
from tuneyard_operator.controller import Controller
from tuneyard_operator.intake import Intake as Taker
from tuneyard_operator.pods import AttemptKey
from tuneyard_operator.tokens import TokenVerifier, Unauthorized
from tuneyard_scheduler.kube import KubeError

ISSUER = "https://kubernetes.default.svc"
KEY, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))


class ApiServer:
    """The two documents that an API server publishes of its keys."""

    def __init__(self) -> None:
        self.keys = {"one": KEY}
        self.fetched: list[str] = []
        self.down = False

    async def fetch(self, url_path: str) -> Object:
        self.fetched.append(url_path)
        await asyncio.sleep(0)
        if self.down:
            raise KubeError(0, "Unreachable", "no route")
        if url_path == "/.well-known/openid-configuration":
            return {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/openid/v1/jwks"}
        assert url_path == "/openid/v1/jwks"
        to_jwk = jwt.algorithms.RSAAlgorithm.to_jwk
        return {"keys": [to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig", "alg": "RS256"}
                         for kid, key in self.keys.items()]}  # fmt: skip


def token(kid: str = "one", key: Any = KEY, algorithm: str = "RS256", **claims: Any) -> str:
    """A token as the kubelet mounts it, for a day since tables of tests are made long before they run.

    A claim that is None is left out.
    """
    whole = {"iss": ISSUER, "aud": ["tuneyard"], "exp": time.time() + 86_400, "iat": time.time(),
             "kubernetes.io": {"namespace": "ns", "pod": {"name": "p", "uid": "pod-1"}}} | claims  # fmt: skip
    kept = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


async def test_a_good_token_names_its_pod(server: ApiServer) -> None:
    verifier = TokenVerifier(server.fetch)
    assert await verifier.pod_uid(token()) == "pod-1"
    assert await verifier.pod_uid(token()) == "pod-1"
    assert len(server.fetched) == 2, "the keys are kept"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (token(aud=["https://kubernetes.default.svc"]), "Audience"),
        (token(aud=None), "aud"),
        (token(exp=time.time() - 60), "expired"),
        (token(exp=None), "exp"),
        (token(iss="https://elsewhere"), "issuer"),
        (token(key=OTHER), "Signature verification failed"),
        (token(kid="two", key=OTHER), "signed by a key that this cluster does not have"),
        (token(key=None, algorithm="none"), "alg value is not allowed"),
        (token(key="x" * 32, algorithm="HS256"), "alg value is not allowed"),
        (token(**{"kubernetes.io": {"namespace": "ns"}}), "not bound to a pod"),
        (token(**{"kubernetes.io": None}), "not bound to a pod"),
        (token(**{"kubernetes.io": "x"}), "not bound to a pod"),
        (token()[:-4] + "AAAA", "Signature verification failed"),
        ("garbage", "not valid"),
        ("a.b.c", "not valid"),
        ("", "not valid"),
        ("\udcff.b.c", "not valid"),
    ],
)
async def test_tokens_that_tell_nothing(server: ApiServer, bad: str, said: str) -> None:
    with pytest.raises(Unauthorized) as error:
        await TokenVerifier(server.fetch).pod_uid(bad)
    assert said in str(error.value)


async def test_new_keys_are_fetched_but_not_for_every_token(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(tokens, "time", SimpleNamespace(monotonic=lambda: clock.now))
    verifier = TokenVerifier(server.fetch)
    await verifier.pod_uid(token())
    server.keys = {"two": OTHER}
    rotated = token(kid="two", key=OTHER)
    for later in (0.0, 9.0):
        clock.now = 1000.0 + later
        with pytest.raises(Unauthorized):
            await verifier.pod_uid(rotated)
    assert len(server.fetched) == 2
    clock.now = 1010.0
    assert await verifier.pod_uid(rotated) == "pod-1"
    assert len(server.fetched) == 4


async def test_all_who_report_at_once_after_a_start_are_known(server: ApiServer) -> None:
    verifier = TokenVerifier(server.fetch)
    assert await asyncio.gather(*(verifier.pod_uid(token()) for _ in range(5))) == ["pod-1"] * 5
    assert len(server.fetched) == 2


# The intake --------------------------------------------------------------------------------------------------------

GOOD = {"reports": [{"step": 1, "metrics": {"accuracy": 0.4}}, {"step": 2, "metrics": {"accuracy": 0.5}}]}


class Intake:
    """The intake of a controller that knows one study with running trials 0 and 1; pod-1 is of trial 0."""

    def __init__(self, server: ApiServer) -> None:
        self.yard = Yard().runs(0, 1)
        self.controller = Controller(None, None, report_url=None, keep_jobs=0)  # type: ignore[arg-type]
        self.controller.engine.studies["u-s"] = self.yard.state
        self.controller.running_pods["pod-1"] = AttemptKey("u-s", "u-0", 0, 0)
        self.taker = Taker(TokenVerifier(server.fetch), lambda: self.leader)
        self.taker.controller = self.controller
        self.leader: str | None = None
        self.client: TestClient[Any, Any] = TestClient(TestServer(self.taker.create_app()))

    async def post(self, bearer: str | None = None, **options: Any) -> tuple[int, Object]:
        headers = {"Authorization": f"Bearer {token() if bearer is None else bearer}"}
        async with self.client.post("/v1/reports", **{"headers": headers, "json": GOOD} | options) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else {"error": await response.text()}


@pytest.fixture
async def intake(server: ApiServer) -> AsyncIterator[Intake]:
    found = Intake(server)
    async with found.client:
        yield found


async def test_a_report_reaches_its_own_trial(intake: Intake) -> None:
    assert await intake.post() == (200, {"accepted": 2})
    trials = intake.yard.state.trials
    assert [(trials[index].reports.last, trials[index].reports.count) for index in (0, 1)] == [
        ({"accuracy": 0.5}, 2), ({}, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "send the token of TUNEYARD_TOKEN_FILE"),
        ({"Authorization": "Basic abc"}, "send the token"),
        ({"Authorization": "Bearer "}, "send the token"),
        ({"Authorization": "Bearer garbage"}, "the token is not valid"),
        ({"Authorization": f"Bearer {token(aud=['other'])}"}, "the token is not valid"),
    ],
)
async def test_who_does_not_say_who_they_are(intake: Intake, headers: dict[str, str], said: str) -> None:
    status, answer = await intake.post(headers=headers)
    assert status == 401
    assert said in answer["error"]
    assert intake.yard.state.trials[0].reports.count == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b"1", b'{"reports": {}}', b'{"reports": [1]}', b"[" * 100_000, b'{"reports": "abc"}',
     b"\xff", b'{"reports": [' + b"{}," * 1000 + b"{}]}"],
    ids=lambda body: body[:16],
)  # fmt: skip
async def test_bodies_that_are_no_reports(intake: Intake, body: bytes) -> None:
    status, answer = await intake.post(json=None, data=body)
    assert status == 400
    assert "reports" in answer["error"]


@pytest.mark.parametrize("report", [{}, {"step": "x", "metrics": 3}, {"metrics": {"a b": 1}}, {"step": 1}])
async def test_a_report_that_says_nothing_is_noted_as_the_problem(intake: Intake, report: Object) -> None:
    assert (await intake.post(json={"reports": [report]}))[0] == 200
    assert intake.yard.state.trials[0].reports.problem


async def test_a_body_that_is_too_large(intake: Intake) -> None:
    assert (await intake.post(json=None, data=b" " * (256 * 1024 + 1)))[0] == 413


async def test_a_pod_that_is_not_known_may_try_again(intake: Intake) -> None:
    status, answer = await intake.post(token(**{"kubernetes.io": {"pod": {"uid": "pod-2"}}}))
    assert (status, answer["error"]) == (503, "this pod is not known as a running trial (yet)")


async def test_without_an_api_server_reports_may_come_again(intake: Intake, server: ApiServer) -> None:
    server.down = True
    status, answer = await intake.post()
    assert status == 503
    assert answer["error"] == "tokens cannot be checked now: Unreachable: no route"


@pytest.mark.parametrize(
    "key",
    [AttemptKey("u-s", "u-0", 0, 1), AttemptKey("u-s", "another", 0, 0), AttemptKey("gone", "u-0", 0, 0)],
    ids=["another attempt", "a trial before this one", "a study that is gone"],
)
async def test_a_pod_that_is_over_changes_nothing(intake: Intake, key: AttemptKey) -> None:
    intake.controller.running_pods["pod-1"] = key
    assert (await intake.post())[0] == 200
    assert intake.yard.state.trials[0].reports.count == 0


async def test_a_replica_that_does_not_lead_passes_reports_on(intake: Intake, server: ApiServer) -> None:
    standby = Intake(server)
    standby.taker.controller = None
    async with standby.client:
        status, answer = await standby.post()
        assert (status, answer["error"]) == (503, "no operator leads at this moment")
        standby.leader = f"127.0.0.1:{intake.client.port}"
        assert await standby.post() == (200, {"accepted": 2})
        assert intake.yard.state.trials[0].reports.count == 2
        assert (await standby.post(json={"reports": [1]}))[0] == 400, "the leader's answer comes back as it is"
        assert (await standby.post("garbage"))[0] == 401, "what is no token is not passed on"
        intake.controller.running_pods.clear()
        assert (await standby.post())[1]["error"] == "this pod is not known as a running trial (yet)"


async def test_replicas_that_take_each_other_for_the_leader_pass_on_once(intake: Intake) -> None:
    intake.taker.controller = None
    intake.leader = f"127.0.0.1:{intake.client.port}"
    assert (await intake.post())[0] == 503


async def test_a_leader_that_is_gone_is_no_error_of_the_pod(intake: Intake) -> None:
    intake.taker.controller = None
    intake.leader = "127.0.0.1:1"
    status, answer = await intake.post()
    assert (status, answer["error"]) == (503, "the operator that leads cannot be reached at this moment")


async def test_planning_that_is_stuck_is_seen(intake: Intake) -> None:
    runner = SimpleNamespace(beat=time.monotonic())
    intake.controller._runners["u-s"] = runner  # type: ignore[assignment]
    assert intake.controller.healthy
    runner.beat -= 61
    assert not intake.controller.healthy
