"""Out of memory: whose memory it was, and how a trial gets more of it."""

from typing import Any

import pytest
from operator_objects import NOW, Yard, merge

from tuneyard_api.trial import TrialStatus
from tuneyard_operator import needs
from tuneyard_operator.actions import ReadLog
from tuneyard_operator.attempts import AttemptSeen, classify, out_of_memory
from tuneyard_operator.render import job
from tuneyard_scheduler.memory import MIB, Memory, of

GPU, HOST = "GpuOutOfMemory", "HostOutOfMemory"


@pytest.mark.parametrize(
    ("whose", "words"),
    [
        (GPU, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"),
        (GPU, "torch.cuda.OutOfMemoryError: HIP out of memory"),
        (GPU, "RuntimeError: CUDA error: out of memory"),
        (GPU, "XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 137438953472 bytes."),
        (GPU, "XlaRuntimeError: RESOURCE_EXHAUSTED: Failed to allocate request for 2.0GiB on device ordinal 0"),
        (GPU, "ResourceExhaustedError: OOM when allocating tensor with shape[9] on /job:localhost/device:GPU:0 by bfc"),
        (
            HOST,
            "ResourceExhaustedError: OOM when allocating tensor with shape[9] on /job:localhost/device:CPU:0 by cpu",
        ),
        (GPU, "E external/xla: failed call to cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        (GPU, "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        (GPU, "cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 1 bytes"),
        (GPU, "Memory allocation error on worker 0: std::bad_alloc: cudaErrorMemoryAllocation: out of memory"),
        (HOST, "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        (HOST, "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7 TiB"),
        (HOST, "MemoryError"),
        (HOST, "OSError: [Errno 12] Cannot allocate memory"),
        (HOST, "terminate called after throwing an instance of 'std::bad_alloc'"),
        (HOST, "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed."),
        (HOST, "java.lang.OutOfMemoryError: Java heap space"),
        (None, "RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Requests'"),
        (None, "InMemoryErrors: 3"),
        (None, "ValueError: the memory of the model is short"),
    ],
)
def test_frameworks_say_it_in_their_own_words(whose: str | None, words: str) -> None:
    trace = f"Traceback (most recent call last):\n  File train.py\n{words}\n"
    shortage = out_of_memory(AttemptSeen(0, "ended", exit_code=1, termination=trace))
    assert shortage == (whose and (whose, f": {words}"))


def test_the_kernel_kills_for_the_hosts_memory() -> None:
    assert out_of_memory(AttemptSeen(0, "ended", exit_code=137, reason="OOMKilled")) == (HOST, "")


def test_the_message_has_the_words_whatever_is_printed_around_them() -> None:
    """As PyTorch on an H200 said it, with 800 characters in the line, and a line about memory after it."""
    words = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 8.79 GiB. GPU 0 has a total capacity of 139.80"
    )
    log = f"Traceback:\n  File train.py\n{words}{' GiB of which 1.77 GiB is free.' * 30}\nSee the documentation.\n"
    end = classify(AttemptSeen(0, "ended", exit_code=1, termination=log))
    assert end.message.startswith(f"the program ran out of GPU memory: {words}")
    assert end.message.endswith("GiB is free.")
    assert len(end.message) < 600


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", ""),
        ("one\ntwo\n three\nfour\n", ": two | three | four"),
        ("a" * 600 + "\nValueError: no\n", ": " + "a" * 483 + " | ValueError: no"),
        ("two\nValueError: " + "b" * 600 + "!\n", ": ValueError: " + "b" * 238 + " … " + "b" * 246 + "!"),
    ],
)
def test_of_another_failure_the_last_line_matters_most(log: str, said: str) -> None:
    end = classify(AttemptSeen(0, "ended", exit_code=2, termination=log))
    assert end.message == f"the program ended with exit code 2{said}"


# Growing


def template(**resources: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "train", "image": "train:1", "resources": resources}]}}


LIMITED = template(limits={"memory": "4Gi"}, requests={"memory": "2Gi"})


def ran_out(yard: Yard, index: int = 0, *, attempt: int = 0, **status: Any) -> dict[str, Any]:
    """The patch that follows when the trial's attempt is OOMKilled."""
    yard.placed(index, attempt=attempt, **status)
    yard.sees(index, "ended", attempt=attempt, exit_code=137, reason="OOMKilled", started=NOW, finished=NOW + 5)
    return yard.write()


def test_a_trial_gets_more_memory_time_and_again_up_to_the_bound() -> None:
    yard = Yard(template=LIMITED, retry={"limit": 0, "memoryGrowth": 1.5, "maxMemory": "8Gi"})
    grown, status = [], {}
    for attempt in range(3):
        kept = {key: status[key] for key in ("needs", "attempts") if key in status}
        patch = ran_out(yard, attempt=attempt, **kept)
        if patch["phase"] != "Pending":
            break
        assert "notBefore" not in patch or patch["notBefore"] is None
        status = merge(status, patch)
        TrialStatus.model_validate({**status, "conditions": []})
        grown.append(patch["needs"]["memory"])
    assert grown == [6144, 8192]
    assert (patch["phase"], patch["reason"]) == ("Infeasible", HOST)
    assert "it had 8192 MiB, and retry.maxMemory allows 8192 MiB" in patch["message"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"template": LIMITED}, "retry.memoryGrowth would let it try again"),
        ({"retry": {"memoryGrowth": 2}}, "write resources.limits.memory"),
    ],
)
def test_where_it_cannot_get_more_it_is_infeasible_and_says_why(spec: dict[str, Any], said: str) -> None:
    patch = ran_out(Yard(**spec))
    assert (patch["phase"], patch["reason"]) == ("Infeasible", HOST)
    assert said in patch["message"]
    assert "needs" not in patch


def test_the_same_end_seen_again_gives_the_same_need() -> None:
    yard = Yard(template=LIMITED, retry={"memoryGrowth": 1.5})
    assert ran_out(yard)["needs"] == ran_out(yard)["needs"] == {"memory": 6144}


def test_four_times_the_template_is_the_bound_where_none_is_named() -> None:
    yard = Yard(template=LIMITED, retry={"memoryGrowth": 8})
    assert ran_out(yard)["needs"] == {"memory": 16384}


def test_the_job_is_given_what_the_trial_needs() -> None:
    yard = Yard(template=LIMITED).placed(0, needs={"memory": 6144})
    container = job(yard.state, yard.state.trials[0], None)["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["memory"] == "6144Mi"
    assert container["resources"]["requests"]["memory"] == "3072Mi"
    assert LIMITED["spec"]["containers"][0]["resources"]["limits"] == {"memory": "4Gi"}


@pytest.mark.parametrize(
    ("resources", "need", "after"),
    [
        ({"limits": {"memory": "1Gi"}}, 2048, Memory(2048 * MIB, 2048 * MIB)),
        ({"requests": {"memory": "1Gi"}}, 2048, Memory(2048 * MIB, 0)),
        ({"limits": {"memory": "4Gi"}, "requests": {"memory": "1Gi"}}, 2048, Memory(1024 * MIB, 4096 * MIB)),
        ({}, 2048, Memory()),
        ({"limits": {"memory": "1Gi"}}, None, Memory(1024 * MIB, 1024 * MIB)),
    ],
)
def test_memory_of_a_container(resources: dict[str, Any], need: int | None, after: Memory) -> None:
    assert of({"resources": resources}).grown(need) == after


# The GPU


def grow(placement: dict[str, Any], before: dict[str, Any] | None = None, **gpu: Any) -> needs.Growth:
    yard = Yard(gpu=gpu, retry={"memoryGrowth": 1.5}) if gpu else Yard(retry={"memoryGrowth": 1.5})
    return needs.after_out_of_memory(yard.state.spec, GPU, before or {}, placement)


def test_a_whole_gpu_is_all_there_is() -> None:
    assert grow({"gpus": 1}, count=1) == (None, "it had whole GPUs")
    assert grow({}).needs is None


def test_where_metrics_hide_the_log_it_is_read() -> None:
    yard = Yard().placed(0)
    yard.sees(0, "ended", exit_code=1, termination='{"accuracy": 0.5}', started=NOW, finished=NOW + 5)
    (action,) = yard.plan()
    assert isinstance(action, ReadLog)
    yard.state.trials[0].log_tail = "epoch 1\ntorch.OutOfMemoryError: CUDA out of memory"
    yard.state.touched.add(0)
    patch = yard.write()
    assert patch["reason"] == GPU
    assert "CUDA out of memory" in patch["attempts"][0]["message"]


def test_a_log_that_cannot_be_read_does_not_hold_it_up() -> None:
    yard = Yard(retry={"limit": 0}).placed(0)
    yard.sees(0, "ended", exit_code=1, termination='{"accuracy": 0.5}', started=NOW, finished=NOW + 5)
    yard.state.trials[0].log_failures = 5
    assert yard.write()["reason"] == "ProgramFailed"
