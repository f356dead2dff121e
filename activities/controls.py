"""What a person may change inside running copies: kept in a file per run, so that it outlives this
process, and passed on to every copy of the run in this process."""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.calls import ControlInput
from transfer.control import Control


class Controls:
    """The pause switch and the bandwidth limit of every run on this mover.

    The limit is one for the whole machine: it is shared out evenly among its running copies.

    Args:
        directory: Where a file per run is kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, list[Control]] = defaultdict(list)
        self._orders: dict[str, ControlInput] = {}
        self._lock = threading.Lock()

    def order(self, order: ControlInput) -> None:
        """From now on, for running and coming copies of the run."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._path(order.run_id)
        new = path.with_suffix(".new")
        new.write_text(order.model_dump_json())
        os.replace(new, path)
        with self._lock:
            self._orders[order.run_id] = order
            self._share(order.run_id)

    @contextmanager
    def copying(self, asked: ControlInput, stop: threading.Event) -> Iterator[Control]:
        """The control of one running copy.

        Args:
            asked: What the workflow knew when it scheduled the copy; a later order wins.
            stop: Ends the copy.
        """
        control = Control(stopping=stop)
        with self._lock:
            if asked.run_id not in self._orders:
                self._orders[asked.run_id] = self._kept(asked.run_id) or asked
            self._running[asked.run_id].append(control)
            self._share(asked.run_id)
        try:
            yield control
        finally:
            with self._lock:
                running = self._running.get(asked.run_id, [])
                if control in running:  # not if the run was forgotten meanwhile
                    running.remove(control)
                    self._share(asked.run_id)

    def forget(self, run_id: str) -> None:
        """The run is over."""
        with self._lock:
            self._orders.pop(run_id, None)
            self._running.pop(run_id, None)
        self._path(run_id).unlink(missing_ok=True)

    def _share(self, run_id: str) -> None:
        order, running = self._orders[run_id], self._running[run_id]
        for control in running:
            limit = order.bandwidth_limit
            control.set_limit(max(1, limit // len(running)) if limit else None)
            if order.paused:
                control.pause()
            else:
                control.resume()

    def _kept(self, run_id: str) -> ControlInput | None:
        try:
            return ControlInput.model_validate(json.loads(self._path(run_id).read_text()))
        except FileNotFoundError:
            return None

    def _path(self, run_id: str) -> Path:
        return self._directory / f"{run_id}.json"
