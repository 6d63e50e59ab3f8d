"""parameters() and trial(): what a program learns about itself."""

import dataclasses
import shutil
import subprocess
import sys

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


@pytest.fixture
def handed(monkeypatch, tmp_path):
    """The folders of a trial and of the one that it continues, which has a state."""
    source, own = tmp_path / "0-a", tmp_path / "7-b"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "state").write_text("3 epochs")
    (source / "latest").symlink_to("deep")
    monkeypatch.setenv("TUNEYARD_CHECKPOINT_DIR", str(own))
    monkeypatch.setenv("TUNEYARD_CHECKPOINT_FROM", str(source))
    return source, own


def test_a_trial_that_continues_another_begins_with_a_copy_of_its_checkpoint(handed):
    source, own = handed
    assert tuneyard.checkpoint_dir() == own
    assert (own / "latest" / "state").read_text() == "3 epochs"
    (own / "latest" / "state").write_text("5 epochs")
    assert (source / "deep" / "state").read_text() == "3 epochs", "others may continue it as well"
    assert tuneyard.checkpoint_dir() == own
    assert (own / "deep" / "state").read_text() == "5 epochs", "an attempt that was interrupted goes on from its own"
    assert sorted(path.name for path in own.parent.iterdir()) == ["0-a", "7-b"]


def test_a_folder_that_is_there_and_empty_is_filled_and_a_source_without_state_is_none(handed):
    source, own = handed
    own.mkdir()
    tuneyard.checkpoint_dir()
    assert (own / "deep" / "state").exists()
    shutil.rmtree(source)
    shutil.rmtree(own)
    tuneyard.checkpoint_dir()
    assert list(own.iterdir()) == []


def test_a_copy_that_breaks_off_leaves_nothing_behind(handed, monkeypatch):
    source, own = handed

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", full)
        with pytest.raises(OSError, match="No space"):
            tuneyard.checkpoint_dir()
    assert [path.name for path in own.parent.iterdir()] == ["0-a"]
    tuneyard.checkpoint_dir()
    assert (own / "deep" / "state").read_text() == (source / "deep" / "state").read_text()


def test_processes_of_one_trial_that_copy_at_once_have_one_folder(handed):
    _, own = handed
    program = (
        "import tuneyard; print(tuneyard.checkpoint_dir(), sorted(p.name for p in tuneyard.checkpoint_dir().iterdir()))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate()[0] for process in processes}
    assert said == {f"{own} ['deep', 'latest']\n"}
    assert sorted(path.name for path in own.parent.iterdir()) == ["0-a", "7-b"]


def test_checkpoints_that_are_not_kept_are_deleted(monkeypatch, tmp_path):
    names = [
        "0-aaaaaaaa",
        "1-bbbbbbbb",
        "2-cccccccc",
        "3-dddddddd",
        "9-eeeeeeee",
        "10-ffffffff",
        ".2-cccccccc-x1",
        ".9-eeeeeeee-x",
    ]
    for name in [*names, "notes", "1-notes"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "state").write_text(name)
    monkeypatch.setenv("TUNEYARD_CHECKPOINT_DIR", str(tmp_path / "9-eeeeeeee"))
    monkeypatch.setenv("TUNEYARD_INDEX", "9")
    tuneyard.checkpoint_dir()
    assert len(list(tmp_path.iterdir())) == len(names) + 2, "unless it says which are kept, all are"
    monkeypatch.setenv("TUNEYARD_CHECKPOINTS_KEPT", "1-bbbbbbbb 3-dddddddd")
    for _ in range(2):
        assert (tuneyard.checkpoint_dir() / "state").read_text() == "9-eeeeeeee"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"1-bbbbbbbb", "3-dddddddd", "9-eeeeeeee", ".9-eeeeeeee-x", "10-ffffffff", "notes", "1-notes"}


def test_a_study_that_keeps_no_checkpoint_and_has_none_yet(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNEYARD_CHECKPOINT_DIR", str(tmp_path / "study" / "0-aaaaaaaa"))
    monkeypatch.setenv("TUNEYARD_INDEX", "0")
    monkeypatch.setenv("TUNEYARD_CHECKPOINTS_KEPT", "")
    assert tuneyard.checkpoint_dir().is_dir()
