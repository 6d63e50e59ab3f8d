"""What bench-search and bench-ablation reckon: statistics by known answers, studies in simulated time, variants."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import _cells
import _searchers
import fidelity
import numpy as np
import pareto
import pytest
from _cells import Cell, losses, regrets, search
from _searchers import METHODS, present, requirements, searcher, sources
from _significance import chances, holm, normalised, ranks, won
from _suites import ROOM
from _tasks import TASKS
from _variants import VARIANTS, begin

NAN = float("nan")


def regret(*strategies: list[float]) -> np.ndarray:
    """One task, a seed a number, one budget."""
    return np.array(strategies)[:, None, :, None]


def test_holm_corrects_step_by_step() -> None:
    # The smallest of four times 4, the next times 3 ...; none below one before it, none above 1.
    assert holm(np.array([[0.01, 0.04], [0.03, 0.005]])) == pytest.approx(np.array([[0.03, 0.06], [0.06, 0.02]]))
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_holm_counts_only_tests_that_were_made() -> None:
    assert holm(np.array([0.01, NAN, 0.5])) == pytest.approx(np.array([0.02, NAN, 0.5]), nan_ok=True)


def test_ranks_share_ties_and_leave_out_who_did_not_run() -> None:
    found = ranks(regret([3, 1], [1, 1], [1, 5], [NAN, NAN]))
    assert found[:, 0] == pytest.approx([2.25, 1.5, 2.25, NAN], nan_ok=True)


def test_regret_is_a_part_of_the_mean_of_random_search() -> None:
    assert normalised(regret([1, 3], [1, 0]))[1, 0, :, 0].tolist() == [0.5, 0.0]
    assert np.isfinite(normalised(regret([0, 0], [0, 0]))).all()


def test_chances_are_those_of_the_signed_rank_test() -> None:
    own, other = [0.1 * i for i in range(8)], [1.0 + 0.11 * i for i in range(8)]
    relative = regret([9.0] * 8, own, other, own)
    # Ahead in all of n pairs: the exact p is 2 / 2^n. Two such tests and one of no difference are corrected for.
    assert chances(relative, 1, [0, 2, 3])[:, 0] == pytest.approx([3 * 2 / 2**8, 3 * 2 / 2**8, 1.0])
    assert won(relative, 1, 2, 0) == "8-0-0"
    assert won(relative, 1, 3, 0) == "0-8-0"


@pytest.mark.parametrize("mode", list(_cells.WORKERS))
def test_what_a_budget_shows_does_not_depend_on_how_long_the_study_goes_on(mode: str, tmp_path: Path) -> None:
    task, workers = TASKS["blend-noisy"], _cells.WORKERS[mode]
    short, long = (
        list(islice(search(task, searcher("tpe", task.parameters, 3), workers, 3), trials)) for trials in (15, 30)
    )
    assert long[:15] == short
    assert len(set(long)) > 1


def test_a_study_is_kept_until_its_code_changes_or_more_of_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cells, "KEPT", tmp_path / "kept")
    code, begun = tmp_path / "code.py", []

    def counted(name: str, parameters: list[dict[str, Any]], seed: int) -> Any:
        begun.append(name)
        return searcher("random", parameters, seed)

    def run(trials: int) -> list[float]:
        _cells.version.cache_clear()
        return losses(Cell("branin", "parallel4", "mine", 1), trials, begin=counted, files=lambda _: [code])

    code.write_text("1")
    first = run(6)
    assert run(6) == first
    assert run(3) == first[:3]
    assert len(begun) == 1
    assert run(9)[:6] == first
    assert len(begun) == 2
    code.write_text("2")
    run(6)
    assert len(begun) == 3
    (kept,) = {json.dumps(json.loads(path.read_text())[:6]) for path in (tmp_path / "kept").rglob("*.json")}
    assert json.loads(kept) == first


def test_regret_is_of_the_best_that_anybody_found_where_no_optimum_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cells, "KEPT", tmp_path)
    found = regrets(["sgd", "branin"], "sequential", ["random", "sobol"], range(2), [4, 8], {"sobol": 4})
    assert found.shape == (2, 2, 2, 2)
    assert np.nanmin(found[:, 0]) == 0.0
    assert np.nanmin(found[:, 1]) > 0.0
    assert np.isnan(found[1, ..., 1]).all()
    assert not np.isnan(found[0]).any()


def test_every_peer_has_a_script_and_requirements_with_hashes() -> None:
    of_fidelity = [fidelity.sources(name) for name in fidelity.PRUNERS]
    of_pareto = [[*sources("optuna-tpe")[:-1], requirements(room)] for room, _, _ in pareto.SAMPLERS.values()]
    of_suites = [_searchers.SCRIPTS / "suites.py", requirements(ROOM)]
    for files in [*map(sources, METHODS), *of_fidelity, *of_pareto, of_suites]:
        assert all(file.exists() for file in files)
        pinned_in = files[-1].read_text()
        pinned = [line for line in pinned_in.splitlines() if "==" in line and not line.startswith(" ")]
        assert pinned
        assert all(line.endswith("\\") for line in pinned)


def test_a_peer_that_is_not_installed_is_left_out_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_searchers, "PEERS", tmp_path)
    there = tmp_path / "optuna" / "bin" / "python"
    there.parent.mkdir(parents=True)
    there.touch()
    assert present(["tpe", "optuna-tpe", "smac", "hebo"]) == ["tpe", "optuna-tpe"]
    assert capsys.readouterr().err.splitlines() == [
        "smac is left out: it is not installed (make peers)",
        "hebo is left out: it is not installed (make peers HEAVY=1)",
    ]


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_variant_proposes_something_else_than_what_it_varies(name: str) -> None:
    task = TASKS["blend"]

    def asked(which: str) -> list[dict[str, Any]]:
        search, found = begin(which, task.parameters, 1), []
        noise = 0.1 * np.random.default_rng(1).standard_normal(28)  # ranks do not explain it best
        for index in range(28):
            found.append(search.ask(index))
            if index >= 3:  # three are running
                search.tell(index - 3, task.loss(found[index - 3]) + noise[index])
        return found

    plain, varied = asked("bayesian"), asked(name)
    assert plain[:8] == varied[:8]  # the Sobol start
    assert plain != varied
    assert asked("bayesian") == plain  # what was varied is as it was


def test_peers_leave_out_parameters_that_a_configuration_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(_cells.__file__).parent / "peers"))
    import lines

    sys.modules.pop("lines")
    given = {"method": "forest", "trees": 5, "penalty": 1.0, "depth": 2, "eta": 0.1, "subsample": 0.5, "x0": 0.2}
    parameters = TASKS["branches"].parameters
    assert lines.active(parameters, given) == {"method": "forest", "trees": 5, "x0": 0.2}
