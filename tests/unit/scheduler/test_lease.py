"""Leader election: candidates on one Lease, with a clock that is moved by hand and an API server that can fail."""

import asyncio
import copy
from types import SimpleNamespace
from typing import Any

import pytest

from tuneyard_scheduler import lease as lease_module
from tuneyard_scheduler import process
from tuneyard_scheduler.kube import KubeError
from tuneyard_scheduler.lease import DEADLINE, DURATION, LeadershipLost, Lease

Object = dict[str, Any]


class Server:
    """One Lease object, changed only by who knows its version."""

    def __init__(self) -> None:
        self.item: Object | None = None
        self.version = 0
        self.down = False
        self.answers_get_lost = False

    async def request(self, method: str, url_path: str, *, body: Any = None, **_: Any) -> Object:
        if self.down:
            raise KubeError(0, "Unreachable", "no route")
        answer = self._answer(method, url_path, body)
        if self.answers_get_lost and method != "GET":
            raise KubeError(0, "Interrupted", "no answer")
        return answer

    def _answer(self, method: str, url_path: str, body: Any) -> Object:
        collection = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
        if method == "POST":
            assert url_path == collection
            if self.item is not None:
                raise KubeError(409, "AlreadyExists", "there is one")
            self.item = copy.deepcopy(body)
        else:
            assert url_path == f"{collection}/tuneyard"
            if self.item is None:
                raise KubeError(404, "NotFound", "there is none")
            if method == "PATCH":
                if body["metadata"]["resourceVersion"] != self.item["metadata"]["resourceVersion"]:
                    raise KubeError(409, "Conflict", "it has changed")
                self.item["spec"] |= body["spec"]
                self.item["metadata"].setdefault("annotations", {}).update(body["metadata"].get("annotations", {}))
        if method != "GET":
            self.version += 1
            self.item["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.item)


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def make(server: Server, clock: SimpleNamespace) -> Any:
    def candidate(identity: str) -> Lease:
        return Lease(
            server, "ns", "tuneyard", identity=identity, address=f"{identity}:80", clock=lambda: clock.now  # type: ignore[arg-type]
        )  # fmt: skip

    return candidate


async def test_the_first_leads_and_the_second_waits(make: Any, server: Server) -> None:
    first, second = make("one"), make("two")
    assert await first._attempt()
    assert first.held
    assert not await second._attempt()
    assert not second.held
    assert second.leader_address == "one:80"
    assert server.item is not None
    assert server.item["spec"]["holderIdentity"] == "one"
    assert server.item["spec"]["leaseDurationSeconds"] == DURATION


async def test_a_leader_that_renews_is_never_relieved(make: Any, clock: SimpleNamespace) -> None:
    first, second = make("one"), make("two")
    for _ in range(20):
        assert await first._attempt()
        assert not await second._attempt()
        clock.now += DURATION - 0.1


async def test_a_leader_that_died_is_relieved_after_the_lease_s_duration(
    make: Any, clock: SimpleNamespace, server: Server
) -> None:
    first, second = make("one"), make("two")
    await first._attempt()
    await second._attempt()
    clock.now += DURATION - 0.1
    assert not await second._attempt()
    clock.now += 0.2
    assert await second._attempt()
    assert second.leader_address == "two:80"
    assert server.item is not None
    assert server.item["spec"]["leaseTransitions"] == 1
    assert not await first._attempt()
    assert not first.held


async def test_who_waits_looks_again_the_moment_that_the_lease_runs_out(
    make: Any, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(lease_module, "asyncio", SimpleNamespace(sleep=sleep))
    await make("one")._attempt()
    began, second = clock.now, make("two")
    await second.acquire()
    assert clock.now - began == pytest.approx(DURATION, abs=0.1)
    assert max(pauses) <= 1.2 * lease_module.RETRY
    assert len(pauses) <= 8


async def test_who_comes_later_waits_for_the_whole_duration_by_its_own_clock(make: Any, clock: SimpleNamespace) -> None:
    await make("one")._attempt()
    clock.now += 5000  # whatever other clocks say, it has seen this renewal only now
    second = make("two")
    assert not await second._attempt()
    clock.now += DURATION
    assert await second._attempt()


async def test_two_never_lead_at_once(make: Any, clock: SimpleNamespace, server: Server) -> None:
    """The holder that cannot renew stops counting itself as such before another can take over."""
    first, second = make("one"), make("two")
    await first._attempt()
    await second._attempt()
    led_by_two = False
    for _ in range(150):
        clock.now += 0.1
        led_by_two = led_by_two or await second._attempt()
        assert not (first.held and led_by_two)
    assert led_by_two


async def test_the_container_that_starts_anew_in_the_same_pod_goes_on_at_once(make: Any) -> None:
    await make("one")._attempt()
    assert await make("one")._attempt()


async def test_a_lease_that_was_let_go_is_taken_at_once(make: Any) -> None:
    first, second = make("one"), make("two")
    await first._attempt()
    await second._attempt()
    await first.release()
    assert not first.held
    assert await second._attempt()
    await first.release()  # not its own any more
    assert second.held
    assert not await make("three")._attempt()


async def test_of_two_who_see_it_expired_one_wins(make: Any, clock: SimpleNamespace) -> None:
    first, second, third = make("one"), make("two"), make("three")
    await first._attempt()
    await second._attempt()
    await third._attempt()
    clock.now += DURATION + 1
    wins = await asyncio.gather(second._attempt(), third._attempt())
    assert sorted(wins) == [False, True]


async def test_a_renewal_whose_answer_was_lost_is_ours(make: Any, server: Server, clock: SimpleNamespace) -> None:
    first = make("one")
    await first._attempt()
    server.answers_get_lost = True
    clock.now += 2
    assert not await first._attempt()
    assert first.held
    server.answers_get_lost = False
    clock.now += 2
    assert not await first._attempt(), "a conflict with itself: it looks again"
    assert first.held
    clock.now += 1
    assert await first._attempt()


async def test_a_lease_that_somebody_deleted_is_made_again(make: Any, server: Server, clock: SimpleNamespace) -> None:
    first = make("one")
    await first._attempt()
    server.item = None
    clock.now += 2
    await first._attempt()
    assert await first._attempt()
    assert server.item is not None


async def test_who_was_relieved_knows_it_by_the_conflict(make: Any, server: Server, clock: SimpleNamespace) -> None:
    first = make("one")
    await first._attempt()
    assert server.item is not None
    server.item["spec"]["holderIdentity"] = "two"
    server.item["metadata"]["resourceVersion"] = "99"
    clock.now += 1
    await first._attempt()
    assert not first.held


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RETRY", 0.001)


async def test_work_ends_when_the_lease_is_lost(make: Any, server: Server, clock: SimpleNamespace, quick: None) -> None:
    lease, events = make("one"), []

    async def work() -> None:
        events.append("began")
        server.down = True
        clock.now += DEADLINE + 0.1
        try:
            await asyncio.sleep(60)
        finally:
            events.append("ended")

    with pytest.raises(LeadershipLost, match="could not be renewed for 6 s"):
        await process.lead(lease, work)
    assert events == ["began", "ended"]


async def test_the_lease_is_let_go_when_the_work_ends(make: Any, server: Server, quick: None) -> None:
    async def work() -> None:
        assert server.item is not None
        assert server.item["spec"]["holderIdentity"] == "one"

    await process.lead(make("one"), work)
    assert server.item is not None
    assert server.item["spec"]["holderIdentity"] == ""


async def test_a_failure_of_the_work_comes_out_and_the_lease_is_let_go(make: Any, server: Server, quick: None) -> None:
    async def work() -> None:
        raise KubeError(0, "Unreachable", "no route")

    with pytest.raises(KubeError):
        await process.lead(make("one"), work)
    assert server.item is not None
    assert server.item["spec"]["holderIdentity"] == ""


async def test_who_does_not_lead_waits_and_does_not_work(make: Any, quick: None) -> None:
    await make("one")._attempt()

    async def work() -> None:
        pytest.fail("it does not lead")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.lead(make("two"), work), 0.1)
