"""The requests of the Kubernetes world, and what it makes of the answers."""

from dataclasses import replace
from typing import Any

import pytest
from operator_objects import Object, Yard, trial

from tuneyard_api.common import ATTEMPT_LABEL, INDEX_LABEL, TRIAL_UID_LABEL, UID_LABEL
from tuneyard_operator.actions import Emit
from tuneyard_operator.world import Conflict, Rejected, WorldError
from tuneyard_operator.worlds.kubernetes import KubernetesWorld
from tuneyard_scheduler.kube import Kube, KubeError, path

JOBS, TRIALS = path("jobs", "ns"), path("trials", "ns")


class Script(Kube):
    """An API server that answers each request as it was told to: with an object, or with a refusal."""

    def __init__(self, **answers: Object | KubeError) -> None:
        self.answers = answers
        self.heard: list[tuple[str, str, Any, Any]] = []

    async def request(self, method: str, url_path: str, **options: Any) -> Object:
        self.heard.append((method, url_path, options.get("body"), options.get("params")))
        found = self.answers.get(method, {})
        if isinstance(found, KubeError):
            raise found
        return found

    async def text(self, method: str, url_path: str, **options: Any) -> str:
        self.heard.append((method, url_path, None, options.get("params")))
        return "x" * 70_000 + "the end"


class Pages(Script):
    """An API server that gives one trial at a time."""

    async def request(self, method: str, url_path: str, **options: Any) -> Object:
        params = options["params"]
        self.heard.append((method, url_path, options.get("body"), params))
        if url_path == path("studies", "ns"):
            known = params == {"fieldSelector": "metadata.name=old"}
            return {"items": [{"metadata": {"uid": "u-old"}}] if known else []}
        assert params["labelSelector"] == f"{UID_LABEL}=u-old"
        page = int(params.get("continue", 0))
        return {"items": [trial(page, 5, {})], "metadata": {"continue": str(page + 1)} if page < 2 else {}}


def refusal(status: int, message: str = "no") -> KubeError:
    return KubeError(status, "Reason", message)


def owned(by: str) -> Object:
    return trial(0, 5, {}, ownerReferences=[{"uid": by}])


def job_of(trial_uid: str) -> Object:
    labels = {UID_LABEL: "u-s", TRIAL_UID_LABEL: trial_uid, INDEX_LABEL: "0", ATTEMPT_LABEL: "0"}
    return {"metadata": {"labels": labels, "uid": "j"}, "status": {}}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, None),
        (refusal(409), None),
        (refusal(422, 'Job.batch "s-dry-run" is invalid: spec.x: Required value'), "take the Job: spec.x: Required"),
        (refusal(400, 'strict decoding error: unknown field "spec.x"'), "take the Job: strict decoding error: unknown"),
    ],
)
async def test_a_template_is_tried_without_making_anything(answer: Any, said: str | None) -> None:
    kube, yard = Script(POST=answer), Yard(checked=False)
    found = await KubernetesWorld(kube, None).check_template(yard.state)
    assert (found is None) if said is None else found is not None and said in found
    ((method, url, body, params),) = kube.heard
    assert (method, url, params) == ("POST", JOBS, {"dryRun": "All", "fieldValidation": "Strict"})
    assert body["metadata"]["name"] == "s-dry-run"


async def test_a_template_that_cannot_be_tried_now_is_neither_good_nor_bad() -> None:
    with pytest.raises(WorldError, match="no route"):
        await KubernetesWorld(Script(POST=refusal(0, "no route")), None).check_template(Yard().state)


async def test_a_reference_to_no_parameter_needs_no_question() -> None:
    kube = Script()
    yard = Yard(template={"spec": {"containers": [{"name": "train", "args": ["${rl}"]}]}})
    found = await KubernetesWorld(kube, None).check_template(yard.state)
    assert found is not None
    assert found.startswith("template.spec.containers[0]: ${rl} is no parameter of this study")
    assert kube.heard == []


async def test_a_trial_that_is_there_already_is_taken_if_it_is_the_studys() -> None:
    world = KubernetesWorld(Script(POST=refusal(409), GET=owned("u-s")), None)
    assert await world.create_trials(Yard().state, {0: {"lr": 0.1}}) == [owned("u-s")]
    world = KubernetesWorld(Script(POST=refusal(409), GET=owned("earlier")), None)
    with pytest.raises(WorldError, match="of an earlier study of this name is still being deleted"):
        await world.create_trials(Yard().state, {0: {"lr": 0.1}})


async def test_a_job_that_is_there_already_is_taken_if_it_is_the_trials() -> None:
    yard = Yard().placed(0)
    one = yard.state.trials[0]
    await KubernetesWorld(Script(POST=refusal(409), GET=job_of("u-0")), None).start_attempt(yard.state, one)
    with pytest.raises(WorldError, match="Job s-0-0 exists and is not this trial's") as error:
        await KubernetesWorld(Script(POST=refusal(409), GET=job_of("other")), None).start_attempt(yard.state, one)
    assert not isinstance(error.value, Conflict | Rejected)


async def test_what_a_pod_claims_is_there_before_its_job_and_may_be_there_already() -> None:
    claim = {"deviceClass": "gpu.nvidia.com", "count": 1}
    place = {"attempt": 0, "gpus": 1, "node": "n1", "resource": "gpu.nvidia.com", "backend": "dra", "claim": claim}
    yard = Yard(gpu={"count": 1}).placed(0)
    yard.set(0, {"phase": "Placed", "attempt": 0, "placement": place | {"devices": ["gpu-0"]}})
    for answers in ({}, {"POST": refusal(409), "GET": job_of("u-0")}):
        kube = Script(**answers)
        await KubernetesWorld(kube, None).start_attempt(yard.state, yard.state.trials[0])
        posted = [url for method, url, *_ in kube.heard if method == "POST"]
        assert posted == [path("resourceclaimtemplates", "ns"), JOBS]


@pytest.mark.parametrize(
    ("status", "kind"), [(409, Conflict), (404, Conflict), (422, Rejected), (400, Rejected), (413, Rejected)]
)
async def test_a_patch_names_the_version_and_its_refusals_have_their_kinds(status: int, kind: type[Exception]) -> None:
    kube, yard = Script(PATCH=refusal(status)), Yard().placed(0)
    with pytest.raises(kind):
        await KubernetesWorld(kube, None).patch_trial(yard.state, yard.state.trials[0], {"phase": "Running"})
    body = {"metadata": {"resourceVersion": str(yard.version)}, "status": {"phase": "Running"}}
    assert kube.heard == [("PATCH", f"{TRIALS}/s-0/status", body, None)]


@pytest.mark.parametrize("status", [0, 403, 429, 500, 503])
async def test_other_refusals_may_pass(status: int) -> None:
    yard = Yard().placed(0)
    with pytest.raises(WorldError) as error:
        await KubernetesWorld(Script(PATCH=refusal(status)), None).patch_trial(yard.state, yard.state.trials[0], {})
    assert not isinstance(error.value, Conflict | Rejected)


async def test_what_is_gone_already_is_stopped_and_told() -> None:
    kube, state = Script(DELETE=refusal(404), PATCH=refusal(404)), Yard().state
    world = KubernetesWorld(kube, None)
    await world.stop_attempt(state, 3, 1)
    await world.write_study(state, {"phase": "Running"})
    assert [heard[:2] for heard in kube.heard] == [
        ("DELETE", f"{JOBS}/s-3-1"), ("PATCH", path("studies", "ns", "s", "status")),
    ]  # fmt: skip
    test, write = kube.heard[1][2]
    assert test == {"op": "test", "path": "/metadata/uid", "value": "u-s"}
    assert write == {"op": "add", "path": "/status", "value": {"phase": "Running"}}


async def test_the_jobs_of_many_trials_go_in_one_request_with_their_pods() -> None:
    kube = Script()
    await KubernetesWorld(kube, None).delete_jobs(["u-1", "u-2"], "ns")
    selector = f"{TRIAL_UID_LABEL} in (u-1,u-2)"
    assert kube.heard == [("DELETE", JOBS, None, {"labelSelector": selector, "propagationPolicy": "Background"})]


async def test_the_same_news_is_one_event() -> None:
    news = Emit("Started", "go", turn="before")
    yard, names = Yard(), []
    for told in (news, news, replace(news, turn="later"), replace(news, reason="Resumed")):
        kube = Script(POST=refusal(409, "exists"))
        await KubernetesWorld(kube, None).emit(yard.state, told)
        [(_, _, event, _)] = kube.heard
        names.append(event["metadata"]["name"])
    assert names[0] == names[1]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("job", "state"), [(refusal(404), "ended"), (job_of("other"), "ended"), (job_of("u-0") | {"items": []}, None),
                       (job_of("u-0") | {"items": [{"message": "exceeded quota"}]}, "waiting")],
    ids=["gone", "another trial's", "no event", "quota"],
)  # fmt: skip
async def test_what_is_left_of_an_attempt(job: Any, state: str | None) -> None:
    yard = Yard().placed(0)
    found = await KubernetesWorld(Script(GET=job), None).inspect_attempt(yard.state, yard.state.trials[0])
    assert (found.state if found else None) == state


async def test_the_end_of_a_log() -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "train"}, {"name": "side"}]}}
    kube, yard = Script(GET={"items": [pod]}), Yard().placed(0)
    text = await KubernetesWorld(kube, None).read_log(yard.state, 0, 0)
    assert (len(text), text[-7:]) == (64 * 1024, "the end")
    assert kube.heard[0][3] == {"labelSelector": f"{TRIAL_UID_LABEL}=u-0,{ATTEMPT_LABEL}=0"}
    assert (kube.heard[1][1], kube.heard[1][3]["container"]) == (path("pods", "ns", "p", "log"), "train")
    assert await KubernetesWorld(Script(GET={"items": []}), None).read_log(yard.state, 0, 0) == ""


async def test_the_trials_of_another_study_come_in_pages() -> None:
    found = await KubernetesWorld(Pages(), None).trials_of(Yard().state, "old")
    assert found is not None
    assert [item["spec"]["index"] for item in found] == [0, 1, 2]
    assert await KubernetesWorld(Pages(), None).trials_of(Yard().state, "other") is None
