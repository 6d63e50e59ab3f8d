"""The store keeps the API server's promises: versions that only grow, compare-and-swap, merge patches."""

from __future__ import annotations

import sqlite3

import pytest

from tuneyard_operator.world import Conflict, WorldError
from tuneyard_operator.worlds.store import FILE, Exists, Store, merge

SPEC = {"suspend": False, "trials": {"max": 3}}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    yield made
    made.close()


def trial(index: int, **more: object) -> dict:
    return {"metadata": {"name": f"toy-{index}"}, "spec": {"index": index}, **more}


def version(item: dict) -> int:
    return int(item["metadata"]["resourceVersion"])


def test_objects_get_what_the_api_server_would_add(store):
    study = store.create_study("toy", {}, SPEC)
    meta = study["metadata"]
    assert (meta["namespace"], meta["generation"]) == ("local", 1)
    assert meta["uid"] != store.create_study("other", {}, SPEC)["metadata"]["uid"]
    assert meta["creationTimestamp"].endswith("Z")
    assert store.study("toy") == study
    assert [item["metadata"]["name"] for item in store.studies()] == ["other", "toy"]


def test_there_is_one_study_of_a_name(store):
    store.create_study("toy", {}, SPEC)
    with pytest.raises(Exists):
        store.create_study("toy", {}, SPEC)


def test_versions_grow_over_all_objects(store):
    study = store.create_study("toy", {}, SPEC)
    uid = study["metadata"]["uid"]
    (first,) = store.create_trials(uid, [trial(0)])
    patched = store.patch_trial(uid, 0, version(first), {"phase": "Placed"})
    changed = store.change_study(uid, lambda item: item.update(status={"phase": "Running"}))
    assert version(study) < version(first) < version(patched) < version(changed)


def test_generation_grows_with_the_spec_only(store):
    uid = store.create_study("toy", {}, SPEC)["metadata"]["uid"]
    assert store.change_study(uid, lambda s: s.update(status={"phase": "Running"}))["metadata"]["generation"] == 1
    assert store.change_study(uid, lambda s: s["spec"].update(suspend=True))["metadata"]["generation"] == 2


def test_a_change_that_changes_nothing_is_no_new_version(store):
    study = store.create_study("toy", {}, SPEC)
    assert store.change_study(study["metadata"]["uid"], lambda s: s["spec"].update(suspend=False)) == study


def test_a_trial_that_is_there_is_returned_and_not_made_again(store):
    uid = store.create_study("toy", {}, SPEC)["metadata"]["uid"]
    (first,) = store.create_trials(uid, [trial(0, x=1)])
    again, second = store.create_trials(uid, [trial(0, x=2), trial(1)])
    assert again == first
    assert [item["spec"]["index"] for item in store.trials(uid)] == [0, 1]
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_patch_is_refused_where_the_trial_has_changed_since(store):
    uid = store.create_study("toy", {}, SPEC)["metadata"]["uid"]
    (first,) = store.create_trials(uid, [trial(0)])
    store.patch_trial(uid, 0, version(first), {"phase": "Placed"})
    with pytest.raises(Conflict, match="changed"):
        store.patch_trial(uid, 0, version(first), {"phase": "Running"})
    assert store.trial(uid, 0)["status"] == {"phase": "Placed"}


def test_what_belongs_to_a_deleted_study_is_gone_and_cannot_be_written(store):
    study = store.create_study("toy", {}, SPEC)
    uid = study["metadata"]["uid"]
    store.create_trials(uid, [trial(0)])
    store.delete_study(uid)
    assert store.trials(uid) == []
    for write in (
        lambda: store.create_trials(uid, [trial(1)]),
        lambda: store.patch_trial(uid, 0, 2, {}),
        lambda: store.change_study(uid, dict.clear),
        lambda: store.study_if_changed(uid, 0),
    ):
        with pytest.raises(Conflict, match="gone"):
            write()


def test_another_process_sees_what_changed(store, tmp_path):
    study = store.create_study("toy", {}, SPEC)
    uid, known = study["metadata"]["uid"], version(study)
    other = Store(tmp_path)
    assert other.study_if_changed(uid, known) is None
    store.change_study(uid, lambda s: s["spec"].update(suspend=True))
    assert other.study_if_changed(uid, known)["spec"]["suspend"] is True
    other.close()


def test_a_failed_change_leaves_everything_as_it_was(store):
    study = store.create_study("toy", {}, SPEC)

    def fail(item: dict) -> None:
        item["spec"] = {"x": float("nan")}

    with pytest.raises(ValueError, match="JSON"):
        store.change_study(study["metadata"]["uid"], fail)
    assert store.study("toy") == study
    store.create_study("other", {}, SPEC)


def test_a_file_of_a_newer_tuneyard_is_left_alone(tmp_path):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(WorldError, match="newer Tuneyard"):
        Store(tmp_path)


def test_a_file_that_is_no_database_is_a_sentence(tmp_path):
    (tmp_path / FILE).write_text("something else" * 100)
    with pytest.raises(WorldError, match="cannot be used"):
        Store(tmp_path)


@pytest.mark.parametrize(
    ("patch", "want"),
    [
        ({"a": 2}, {"a": 2, "b": {"c": 1, "d": 2}}),
        ({"a": None}, {"b": {"c": 1, "d": 2}}),
        ({"b": {"c": None}}, {"a": 1, "b": {"d": 2}}),
        ({"b": [1]}, {"a": 1, "b": [1]}),
        ({"a": {"e": None, "f": 1}}, {"a": {"f": 1}, "b": {"c": 1, "d": 2}}),
        ({"z": None}, {"a": 1, "b": {"c": 1, "d": 2}}),
    ],
)
def test_merge_patches_are_those_of_rfc_7386(patch, want):
    target = {"a": 1, "b": {"c": 1, "d": 2}}
    assert merge(target, patch) == want
    assert target == {"a": 1, "b": {"c": 1, "d": 2}}
