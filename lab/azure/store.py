"""The emulated subscription's state: one JSON file, replaced in one step at every change.

A process killed at any moment leaves the state before the change or after it. Resources are kept
under their id in lower case, because Resource Manager compares ids without regard to case.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

State = dict[str, Any]

_EMPTY: State = {
    "groups": {},  # "/subscriptions/s/resourcegroups/g" -> {"id", "name", "location"}
    "resources": {},  # id in lower case -> {"id", "name", "type", "body", "lab"}
    "operations": {},  # operation id -> long-running operation
    "grants": {},  # policy id (the SAS's si=) -> grant
    "locks": {},  # id in lower case -> management lock
    "recent_snapshots": {},  # disk uuid -> times of incremental snapshots, seconds
    "permissions": {"actions": ["*"], "notActions": []},
}


class Store:
    """Loads and saves the state; one change at a time."""

    def __init__(self, path: Path) -> None:
        """Read the state from ``path``, or begin with an empty one."""
        self._path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._saved = path.read_text() if path.exists() else json.dumps(_EMPTY)
        self._state: State = {**json.loads(json.dumps(_EMPTY)), **json.loads(self._saved)}

    @contextmanager
    def reading(self) -> Iterator[State]:
        """The state, not changing meanwhile. The caller must not change it."""
        with self._lock:
            yield self._state

    @contextmanager
    def changing(self) -> Iterator[State]:
        """The state, saved when the block ends and taken back when it raises."""
        with self._lock:
            self._depth += 1
            try:
                yield self._state
                if self._depth == 1:
                    self._save()
            except BaseException:
                if self._depth == 1:
                    self._state = json.loads(self._saved)
                raise
            finally:
                self._depth -= 1

    def _save(self) -> None:
        content = json.dumps(self._state)
        temporary = self._path.with_name(self._path.name + ".new")
        temporary.write_text(content)
        temporary.replace(self._path)
        self._saved = content


def new_resource(
    resource_id: str, resource_type: str, body: dict[str, Any], lab: dict[str, Any]
) -> dict[str, Any]:
    """A resource to be kept: ``body`` goes over the wire, ``lab`` stays with us."""
    name = resource_id.rsplit("/", 1)[-1]
    wire = {"name": name, "id": resource_id, "type": resource_type, **body}
    return {"id": resource_id, "name": name, "type": resource_type, "body": wire, "lab": lab}
