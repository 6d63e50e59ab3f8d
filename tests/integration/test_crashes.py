"""Operator, scheduler and strategy service are killed with -9 at random moments: nothing is lost or done twice."""

import random
import time

from _studies import Studies, study
from _witness import witness

from devcluster.cluster import Cluster
from devcluster.stack import Stack

TRIALS, PARALLEL = 100, 12


def test_kill_minus_nine_at_random_moments(cluster: Cluster, stack: Stack, namespace: str) -> None:
    studies, rng = Studies(cluster, namespace), random.Random(20)
    with witness(cluster, namespace) as seen:
        annotations = {"duration-ms": "700"}
        studies.apply(study("chaos", annotations=annotations, trials={"max": TRIALS, "parallel": PARALLEL}))
        kills = 0
        while sum(seen.outcomes.values()) < TRIALS and kills < 60:
            time.sleep(rng.uniform(0.05, 2.0))
            victim = rng.choice(stack.names)
            stack.kill(victim)
            kills += 1
            time.sleep(rng.uniform(0, 0.5))
            stack.start(victim)
        status = studies.wait("chaos", timeout=300)

    assert kills >= 5, "the study was over before it was disturbed"
    assert seen.outcomes == {"Succeeded": TRIALS}
    assert seen.changed_after_end == []
    assert [job for job, uids in seen.jobs.items() if len(uids) > 1] == []
    assert sorted(seen.jobs) == sorted(f"chaos-{index}-0" for index in range(TRIALS))
    assert seen.most_alive <= PARALLEL
    assert status["trials"]["succeeded"] == TRIALS
    values = {trial["status"]["value"] for trial in studies.trials("chaos")}
    assert len(values) == TRIALS
    assert status["best"]["value"] == min(values)
