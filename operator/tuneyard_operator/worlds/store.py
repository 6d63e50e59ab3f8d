"""Studies and trials of a laptop, in SQLite: small objects in API form, with the API server's promises.

Each write gives the object a higher resourceVersion, from one counter for all objects. A status is patched only if the
object is still the one that was planned for. Several processes may use the same file at the same time.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from tuneyard_api.common import API_VERSION, timestamp
from tuneyard_operator.world import Conflict, WorldError

Object = dict[str, Any]

NAMESPACE: Final = "local"
FILE: Final = "tuneyard.db"
_LAYOUT: Final = 1
_WAIT_SECONDS: Final = 10.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS counter (value INTEGER NOT NULL);
INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM counter);
CREATE TABLE IF NOT EXISTS study (
    uid TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, object TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trial (
    study TEXT NOT NULL REFERENCES study (uid) ON DELETE CASCADE, number INTEGER NOT NULL, version INTEGER NOT NULL,
    object TEXT NOT NULL, PRIMARY KEY (study, number)
) WITHOUT ROWID;
"""


class Exists(WorldError):
    """There is a study of this name already."""


class Store:
    """The objects of one home folder.

    A commit survives the death of this process; the very last ones may be lost with the machine's power, and are then
    found out again from the attempts' folders. All methods raise WorldError where the file cannot be used.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        with self._sentences():
            home.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._lay_out()

    def _lay_out(self) -> None:
        (layout,) = self._db.execute("PRAGMA user_version").fetchone()
        if layout > _LAYOUT:
            raise WorldError(f"{self._path} was written by a newer Tuneyard; update this one")
        if layout < _LAYOUT:
            self._db.execute("PRAGMA journal_mode = WAL")
            with self._transaction():
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {_LAYOUT}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Studies ---------------------------------------------------------------------------------------------------

    def studies(self) -> list[Object]:
        """All studies, by name."""
        return self._objects("SELECT object FROM study ORDER BY name")

    def study(self, name: str) -> Object | None:
        """The study of this name."""
        return next(iter(self._objects("SELECT object FROM study WHERE name = ?", name)), None)

    def study_if_changed(self, uid: str, version: int) -> Object | None:
        """The study, if it is newer than this version.

        Raises:
            Conflict: it is gone.
        """
        found = self._rows("SELECT version FROM study WHERE uid = ?", uid)
        if not found:
            raise Conflict("the study is gone")
        if found[0][0] <= version:
            return None
        return next(iter(self._objects("SELECT object FROM study WHERE uid = ?", uid)), None)

    def create_study(self, name: str, annotations: dict[str, str], spec: Object) -> Object:
        """Create a study.

        Raises:
            Exists: there is one of this name.
        """
        study: Object = {
            "apiVersion": API_VERSION,
            "kind": "Study",
            "metadata": {"name": name, "annotations": annotations, "generation": 1},
            "spec": spec,
        }
        with self._transaction():
            if self._rows("SELECT 1 FROM study WHERE name = ?", name):
                raise Exists(f"there is a study {name} already")
            self._stamp(study)
            meta = study["metadata"]
            row = (meta["uid"], name, int(meta["resourceVersion"]), _text(study))
            self._db.execute("INSERT INTO study VALUES (?, ?, ?, ?)", row)
        return study

    def change_study(self, uid: str, change: Callable[[Object], None]) -> Object:
        """Change a study in place, as one step; its generation grows where its spec changed.

        Raises:
            Conflict: it is gone.
        """
        with self._transaction():
            found = self._objects("SELECT object FROM study WHERE uid = ?", uid)
            if not found:
                raise Conflict("the study is gone")
            study = found[0]
            before, text = _text(study["spec"]), _text(study)
            change(study)
            if _text(study) == text:
                return study
            if _text(study["spec"]) != before:
                study["metadata"]["generation"] += 1
            study["metadata"]["resourceVersion"] = str(self._next_version())
            row = (int(study["metadata"]["resourceVersion"]), _text(study), uid)
            self._db.execute("UPDATE study SET version = ?, object = ? WHERE uid = ?", row)
        return study

    def delete_study(self, uid: str) -> None:
        """Remove a study and its trials; fine when it is gone."""
        with self._transaction():
            self._db.execute("DELETE FROM study WHERE uid = ?", (uid,))

    # Trials ----------------------------------------------------------------------------------------------------

    def trials(self, study: str) -> list[Object]:
        """The trials of a study (by its uid), by index."""
        return self._objects("SELECT object FROM trial WHERE study = ? ORDER BY number", study)

    def trial(self, study: str, index: int) -> Object | None:
        """One of them."""
        return next(iter(self._objects("SELECT object FROM trial WHERE study = ? AND number = ?", study, index)), None)

    def create_trials(self, study: str, trials: Iterable[Object]) -> list[Object]:
        """Create these trials of a study (by its uid); of an index that is there already, the present one is returned.

        Raises:
            Conflict: the study is gone.
        """
        created = []
        with self._transaction():
            if not self._rows("SELECT 1 FROM study WHERE uid = ?", study):
                raise Conflict("the study is gone")
            for trial in trials:
                index = trial["spec"]["index"]
                existing = self.trial(study, index)
                if existing is None:
                    self._stamp(trial)
                    row = (study, index, int(trial["metadata"]["resourceVersion"]), _text(trial))
                    self._db.execute("INSERT INTO trial VALUES (?, ?, ?, ?)", row)
                created.append(existing or trial)
        return created

    def patch_trial(self, study: str, index: int, version: int, status: Object) -> Object:
        """Merge into a trial's status if the trial still has this version; None removes a field (RFC 7386).

        Raises:
            Conflict: it has changed, or is gone.
        """
        with self._transaction():
            trial = self.trial(study, index)
            if trial is None:
                raise Conflict("the trial is gone")
            if int(trial["metadata"]["resourceVersion"]) != version:
                raise Conflict("the trial has changed meanwhile")
            trial["status"] = merge(trial.get("status") or {}, status)
            new = self._next_version()
            trial["metadata"]["resourceVersion"] = str(new)
            row = (new, _text(trial), study, index)
            self._db.execute("UPDATE trial SET version = ?, object = ? WHERE study = ? AND number = ?", row)
        return trial

    # SQLite ----------------------------------------------------------------------------------------------------

    def _stamp(self, item: Object) -> None:
        """What the API server adds to a new object."""
        item["metadata"] |= {
            "namespace": NAMESPACE,
            "uid": str(uuid.uuid4()),
            "resourceVersion": str(self._next_version()),
            "creationTimestamp": timestamp(time.time()),
        }

    def _next_version(self) -> int:
        self._db.execute("UPDATE counter SET value = value + 1")
        (version,) = self._db.execute("SELECT value FROM counter").fetchone()
        return int(version)

    def _objects(self, query: str, *values: object) -> list[Object]:
        return [json.loads(text) for (text,) in self._rows(query, *values)]

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._sentences():
            return self._db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._sentences():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise WorldError(f"{self._path} cannot be used: {error}") from error


def _text(value: Object) -> str:
    return json.dumps(value, allow_nan=False)


def merge(target: Object, patch: Object) -> Object:
    """A JSON merge patch (RFC 7386) applied to an object."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            before = merged.get(key)
            merged[key] = merge(before if isinstance(before, dict) else {}, value)
        else:
            merged[key] = value
    return merged
