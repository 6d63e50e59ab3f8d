"""parameters() and trial(): what a program learns about itself."""

import dataclasses

import pytest

import tuneyard


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PARAMETERS", "STUDY", "TRIAL", "INDEX", "ATTEMPT"):
        monkeypatch.delenv(f"TUNEYARD_{name}", raising=False)


def test_a_program_that_runs_by_hand_gets_its_defaults() -> None:
    assert tuneyard.parameters() == {}
    assert tuneyard.parameters(lr=0.01, layers=2) == {"lr": 0.01, "layers": 2}


def test_the_trial_overrides_defaults_and_keeps_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEYARD_PARAMETERS", '{"lr": 1.0, "layers": 3, "nesterov": true, "optimizer": "sgd"}')

    given = tuneyard.parameters(lr=0.01, momentum=0.9)

    assert given == {"lr": 1.0, "layers": 3, "nesterov": True, "optimizer": "sgd", "momentum": 0.9}
    assert [type(given[name]) for name in ("lr", "layers", "nesterov")] == [float, int, bool]


@pytest.mark.parametrize("text", ["lr=0.1", "[0.1]", "3", "null"])
def test_parameters_that_are_no_object_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TUNEYARD_PARAMETERS", text)

    with pytest.raises(ValueError, match=r"TUNEYARD_PARAMETERS is '.*'; write a JSON object such as"):
        tuneyard.parameters()


def test_trial_is_none_by_hand() -> None:
    assert tuneyard.trial() is None


def test_trial_says_who_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STUDY": "digits", "TRIAL": "digits-7", "INDEX": "7", "ATTEMPT": "2"}.items():
        monkeypatch.setenv(f"TUNEYARD_{name}", value)

    trial = tuneyard.trial()

    assert trial == tuneyard.Trial(study="digits", name="digits-7", index=7, attempt=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        trial.index = 8  # type: ignore[misc]


def test_a_broken_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEYARD_TRIAL", "digits-7")
    monkeypatch.setenv("TUNEYARD_INDEX", "seven")

    with pytest.raises(ValueError, match=r"TUNEYARD_INDEX is 'seven'; write a whole number"):
        tuneyard.trial()


def test_the_checkpoint_folder_is_made_and_there_is_none_by_hand(monkeypatch, tmp_path):
    monkeypatch.delenv("TUNEYARD_CHECKPOINT_DIR", raising=False)
    assert tuneyard.checkpoint_dir() is None
    monkeypatch.setenv("TUNEYARD_CHECKPOINT_DIR", str(tmp_path / "a" / "b"))
    for _ in range(2):
        assert tuneyard.checkpoint_dir() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
