"""Whole studies on a real API server: operator, scheduler and strategy service as processes, kwok as the kubelet."""

import json
import time

import pytest
from _studies import Studies, study, until

from devcluster.cluster import Cluster
from devcluster.stack import Stack


@pytest.fixture
def studies(cluster: Cluster, stack: Stack, namespace: str) -> Studies:
    return Studies(cluster, namespace)


def condition(status: dict, kind: str) -> dict:
    return next(entry for entry in status["conditions"] if entry["type"] == kind)


def test_a_study_runs_to_its_end_and_leaves_nothing_behind(studies: Studies) -> None:
    studies.apply(study("digits", trials={"max": 8, "parallel": 3}))
    status = studies.wait("digits")

    trials = studies.trials("digits")
    assert [trial["spec"]["index"] for trial in trials] == list(range(8))
    assert {trial["status"]["phase"] for trial in trials} == {"Succeeded"}
    best = min(trials, key=lambda trial: trial["spec"]["parameters"]["x"])
    assert status["best"]["trial"] == best["metadata"]["name"]
    assert status["best"]["value"] == pytest.approx(best["spec"]["parameters"]["x"])
    assert status["progress"] == "8/8"
    assert status["trials"]["succeeded"] == 8
    assert condition(status, "Complete")["reason"] == "MaxTrialsReached"
    assert len(studies.objects("jobs")) == 8

    assert json.loads(studies.tuneyard("best digits -o json"))["trial"] == best["metadata"]["name"]
    listed = studies.kubectl("get", "studies")
    assert "Complete" in listed
    assert "8/8" in listed
    described = studies.kubectl("describe", "study", "digits")
    assert "MaxTrialsReached" in described
    events = [event["reason"] for event in studies.objects("events") if event["involvedObject"]["kind"] == "Study"]
    assert sorted(events) == ["MaxTrialsReached", "Started"]

    studies.kubectl("delete", "study", "digits")
    until(lambda: "No resources" in studies.kubectl("get", "trials,jobs,pods"), "everything of the study is deleted")


def test_several_objectives_have_a_front(studies: Studies) -> None:
    trade_off = '{"loss": $(TUNEYARD_PARAM_x), "speed": $(TUNEYARD_PARAM_x)}'
    goals = [{"metric": "loss", "goal": "minimize"}, {"metric": "speed", "goal": "maximize"}]
    spec = {"objectives": goals, "strategy": {"name": "tpe"}, "trials": {"max": 7, "parallel": 3}}
    studies.apply(study("two", annotations={"message": trade_off}, **spec))
    status = studies.wait("two")
    assert "best" not in status
    assert status["front"]["size"] == len(status["front"]["trials"]) == 7
    losses = [trial["metrics"]["loss"] for trial in status["front"]["trials"]]
    assert losses == sorted(losses)
    front = json.loads(studies.tuneyard("pareto two -o json"))
    assert [trial["trial"] for trial in front["trials"]] == [each["trial"] for each in status["front"]["trials"]]
    header, row = studies.kubectl("get", "study", "two").splitlines()
    assert row[header.index("FRONT") :].split()[0] == "7"
    trials = studies.trials("two")
    assert all("value" not in trial["status"] for trial in trials)
    wide = studies.kubectl("get", "trials", "-o", "wide")
    assert '"speed":' in wide
    with pytest.raises(Exception, match="at most 4 of the objectives can have a goal"):
        studies.apply(study("five", objectives=[{"metric": f"m{i}", "goal": "minimize"} for i in range(5)]))


def test_scale_suspend_resume_and_extend(studies: Studies) -> None:
    # Long enough that no poll, however slow the machine, misses the four that run beside each other.
    studies.apply(study("s", trials={"max": 12, "parallel": 1}, annotations={"duration-ms": "4000"}))
    until(lambda: studies.status("s").get("trials", {}).get("succeeded"), "a first trial succeeds")
    studies.patch("s", suspend=True)
    studies.wait("s", "Suspended")
    until(lambda: studies.status("s")["replicas"] == 0, "the running trial ends")
    done = studies.status("s")["trials"]["succeeded"]
    time.sleep(5)
    assert studies.status("s")["trials"]["succeeded"] == done
    assert studies.status("s")["phase"] == "Suspended"

    studies.kubectl("scale", "study/s", "--replicas", "4")
    studies.patch("s", suspend=False)
    until(lambda: studies.status("s")["replicas"] == 4, "four trials run")
    assert studies.wait("s")["progress"] == "12/12"

    studies.patch("s", trials={"max": 14})
    until(lambda: studies.status("s")["progress"] == "14/14", "two further trials")
    assert studies.wait("s")["trials"]["succeeded"] == 14


def test_a_failing_program_is_retried_then_failed_and_the_study_gives_up(studies: Studies) -> None:
    failing = {"exit-code": "3", "message": "ValueError: no such column"}
    retry = {"limit": 1, "backoff": {"initial": "1s"}}
    studies.apply(
        study("f", annotations=failing, retry=retry, trials={"max": 6, "parallel": 2, "maxFailed": 1, "pauseAfter": 0})
    )
    status = studies.wait("f", "Failed")
    assert condition(status, "Failed")["reason"] == "TooManyFailed"
    failed = [trial for trial in studies.trials("f") if trial["status"]["phase"] == "Failed"]
    assert len(failed) == 2
    for trial in failed:
        attempts = trial["status"]["attempts"]
        assert [attempt["outcome"] for attempt in attempts] == ["ProgramFailed", "ProgramFailed"]
        assert "exit code 3: ValueError: no such column" in attempts[0]["message"]
    assert not [pod for pod in studies.objects("pods") if pod["status"]["phase"] == "Running"]


@pytest.mark.parametrize(
    ("annotations", "reason", "sentence"),
    [
        ({"message": '{"loss": "nan"}'}, "BadMetrics", "metric loss is nan: not a finite number"),
        ({"message": '{"other": 1}'}, "BadMetrics", "without metric loss (it reported other)"),
        ({"message": "no json"}, "BadMetrics", "call tuneyard.report(loss=...)"),
        ({"exit-code": "137", "reason": "OOMKilled", "message": ""}, "OutOfMemory", "ran out of memory"),
    ],
)
def test_what_cannot_be_used_is_infeasible_with_its_reason(
    studies: Studies, annotations: dict[str, str], reason: str, sentence: str
) -> None:
    studies.apply(study("bad", annotations=annotations, trials={"max": 1, "parallel": 1}))
    status = studies.wait("bad")
    assert status["trials"]["infeasible"] == 1
    assert "best" not in status
    trial = studies.trials("bad")[0]["status"]
    assert (trial["phase"], trial["attempts"][0]["outcome"]) == ("Infeasible", reason)
    assert sentence in trial["attempts"][0]["message"]


def test_a_lost_pod_is_infrastructure_and_retried_without_counting(studies: Studies) -> None:
    slow = {"duration-ms": "2000"}
    studies.apply(study("lost", annotations=slow, trials={"max": 1, "parallel": 1}, retry={"limit": 0}))
    pod = until(lambda: studies.objects("pods"), "the pod")[0]["metadata"]["name"]
    until(lambda: studies.objects("pods")[0]["status"]["phase"] == "Running", "the pod runs")
    studies.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
    assert studies.wait("lost")["trials"]["succeeded"] == 1
    attempts = studies.trials("lost")[0]["status"]["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["Infrastructure", "Succeeded"]


def test_an_image_that_cannot_be_pulled_blocks_the_study_until_it_is_corrected(studies: Studies) -> None:
    manifest = study("image", annotations={"image-pull": "fail"}, trials={"max": 20, "parallel": 2})
    studies.apply(manifest)
    status = studies.wait("image", "Blocked")
    assert "ImagePullBackOff" in condition(status, "Blocked")["message"]
    created = status["trials"]["created"]
    assert created <= 4
    until(lambda: studies.status("image")["phase"] == "Blocked", "the phase says so")

    del manifest["spec"]["template"]["metadata"]["annotations"]["kwok.tuneyard.dev/image-pull"]
    manifest["spec"]["trials"]["max"] = 5
    studies.apply(manifest)
    done = studies.wait("image")
    assert done["trials"]["succeeded"] == 5
    assert condition(done, "Blocked")["status"] == "False"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"constraints": ["x * <= 1"]}, "constraints[0]"),
        ({"constraints": ["y <= 1"]}, "constraints[0]"),
        (
            {"template": {"spec": {"containers": [{"name": "t", "image": "i", "args": ["${lr}"]}]}}},
            "${lr} is no parameter",
        ),
        ({"template": {"spec": {"containers": [{"name": "t", "imag": "i"}]}}}, "template:"),
    ],
)
def test_what_no_schema_sees_becomes_a_condition_and_no_trial_is_burnt(
    studies: Studies, change: dict, sentence: str
) -> None:
    studies.apply(study("odd", **change))
    status = until(lambda: studies.status("odd"), "a status")
    valid = condition(status, "Valid")
    assert (valid["status"], valid["reason"]) == ("False", "InvalidSpec")
    assert sentence in valid["message"]
    assert studies.trials("odd") == []


def test_what_takes_too_long_is_stopped(studies: Studies) -> None:
    slow = {"duration-ms": "600000"}
    studies.apply(study("slow", annotations=slow, trials={"max": 2, "parallel": 2, "timeout": "2s"}))
    assert studies.wait("slow")["trials"]["infeasible"] == 2
    assert studies.trials("slow")[0]["status"]["attempts"][0]["outcome"] == "TimedOut"
    until(lambda: not studies.objects("pods"), "the pods are gone")


def test_a_target_ends_the_study_and_stops_what_runs(studies: Studies) -> None:
    objective = {"metric": "loss", "goal": "minimize", "target": 0.9}
    studies.apply(study("t", objectives=[objective], trials={"max": 500, "parallel": 4}))
    status = studies.wait("t")
    assert condition(status, "Complete")["reason"] == "TargetReached"
    assert status["best"]["value"] <= 0.9
    assert status["trials"]["created"] < 20
    until(lambda: not [p for p in studies.objects("pods") if p["status"]["phase"] == "Running"], "no pod runs")


def test_a_finite_space_is_exhausted(studies: Studies) -> None:
    levels = [{"name": "x", "int": {"min": 1, "max": 3}}, {"name": "k", "categorical": {"values": ["a", "b"]}}]
    studies.apply(study("g", parameters=levels, strategy={"name": "grid"}, trials={"parallel": 3}))
    status = studies.wait("g")
    assert condition(status, "Complete")["reason"] == "SpaceExhausted"
    found = {json.dumps(trial["spec"]["parameters"], sort_keys=True) for trial in studies.trials("g")}
    assert len(found) == len(studies.trials("g")) == 6


def test_gpus_of_other_pods_are_taken(studies: Studies) -> None:
    nodes = studies.cluster.objects("nodes")
    others = [{"name": "other", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "8"}}}]
    for node in nodes[:-1]:
        spec = {"nodeName": node["metadata"]["name"], "containers": others}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": node["metadata"]["name"]}, "spec": spec}
        studies.apply(pod)
    studies.apply(study("packed", gpu={"count": 3}, trials={"max": 4, "parallel": 4}))
    assert studies.wait("packed")["trials"]["succeeded"] == 4
    last = nodes[-1]["metadata"]["name"]
    placed = [trial["status"]["attempts"][0] for trial in studies.trials("packed")]
    assert {attempt["node"] for attempt in placed} == {last}


def _asking(container: dict, **pod: object) -> dict:
    template = study("s", annotations={"duration-ms": "600000"})["spec"]["template"]
    template["spec"] |= pod
    template["spec"]["containers"][0] |= container
    return template


def test_trials_go_where_their_template_lets_them_and_has_cpu(studies: Studies) -> None:
    """Two of the nodes are for these: 64 CPU each, 40 a trial, so one fits on each, however many GPUs are free."""
    for name in ("gpu-1", "gpu-2"):
        studies.kubectl("label", "node", name, f"pool={studies.namespace}")
        studies.kubectl(
            "taint", "node", name, "nvidia.com/gpu=present:NoSchedule", f"own={studies.namespace}:NoExecute"
        )
    try:
        asks = {"resources": {"requests": {"cpu": "40", "memory": "1Gi"}}}
        template = _asking(
            asks, nodeSelector={"pool": studies.namespace}, tolerations=[{"key": "own", "operator": "Exists"}]
        )
        studies.apply(study("own", template=template, trials={"max": 9, "parallel": 4}))
        until(lambda: studies.status("own").get("replicas") == 2, "two trials run")
        waits = "asks for 40 CPU and 1 GiB, and no node with the GPUs free has that left"
        until(lambda: [t for t in studies.trials("own") if waits in t["status"].get("message", "")], "one says why")
        running = [pod for pod in studies.objects("pods") if pod["status"]["phase"] == "Running"]
        assert {pod["spec"]["nodeName"] for pod in running} == {"gpu-1", "gpu-2"}
        assert len(running) == 2
    finally:
        studies.kubectl("delete", "studies", "--all")
        for name in ("gpu-1", "gpu-2"):
            studies.kubectl("label", "node", name, "pool-")
            studies.kubectl("taint", "node", name, "nvidia.com/gpu-", "own-")


def test_a_template_that_no_node_is_for_says_so(studies: Studies) -> None:
    studies.apply(
        study("nowhere", template=_asking({}, nodeSelector={"pool": "none"}), trials={"max": 2, "parallel": 1})
    )
    said = "is one that spec.template accepts: see its nodeSelector, affinity and tolerations"
    until(lambda: [t for t in studies.trials("nowhere") if said in t["status"].get("message", "")], "it says so")


def test_a_study_of_which_no_trial_gives_a_result_pauses_until_it_is_mended(studies: Studies) -> None:
    wrong = {"message": '{"acc": 0.9}'}
    typo = study("typo", annotations=wrong, trials={"max": 20, "parallel": 4, "pauseAfter": 4})
    studies.apply(typo)
    status = studies.wait("typo", "Blocked")
    assert condition(status, "Blocked")["reason"] == "NoTrialSucceeds"
    assert "without metric loss (it reported acc)" in status["message"]
    assert status["trials"]["created"] < 16
    right = study("typo", trials={"max": 20, "parallel": 4, "pauseAfter": 4})
    studies.apply(right)
    assert studies.wait("typo")["trials"]["succeeded"] > 4


def test_a_study_learns_from_an_earlier_one_and_says_which_trial_to_use(studies: Studies) -> None:
    studies.apply(study("first", trials={"max": 10, "parallel": 5}))
    studies.wait("first")
    time.sleep(1.1)  # the times that decide are whole seconds
    learning = {"strategy": {"name": "bayesian"}, "warmStart": [{"study": "first"}]}
    studies.apply(study("second", **learning, trials={"max": 10, "parallel": 5}))
    status = studies.wait("second")
    told = condition(status, "WarmStarted")
    assert (told["status"], told["message"]) == ("True", "10 of 10 earlier observations count")
    assert status["progress"] == "10/10"
    assert status["recommended"]["trial"] in {trial["metadata"]["name"] for trial in studies.trials("second")}
    assert status["recommended"]["deviation"] >= 0
    described = studies.kubectl("describe", "study", "second")
    assert "Recommended:" in described
    assert "10 of 10 earlier observations count" in described

    studies.kubectl("delete", "study", "first")
    until(lambda: condition(studies.status("second"), "WarmStarted")["reason"] == "StudyGone", "its loss is told")
    assert studies.status("second")["phase"] == "Complete"


def test_a_strategy_service_that_no_administrator_allowed_is_not_asked(studies: Studies) -> None:
    studies.apply(study("s", strategy={"service": {"url": "http://169.254.169.254"}}))
    until(lambda: studies.status("s").get("phase") == "Blocked", "the study is blocked")
    status = studies.status("s")
    assert "no strategy service at http://169.254.169.254 may be asked" in condition(status, "Valid")["message"]
    assert studies.trials("s") == []
