"""Stopping, holding and slowing a copy that runs."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from models.errors import Stopped
from tests.transfer.disks import MIB, session, write_sparse
from tests.waiting import wait_until
from transfer import Control, FileSource, Progress, RoundPlan

SIZE = 32 * MIB
PLAN = RoundPlan(1, "one", extent_bytes=MIB, in_flight_bytes=4 * MIB)


def test_a_limit_holds_within_a_tenth(tmp_path: Path) -> None:
    control = Control(50 * MIB)
    started = time.monotonic()
    for _ in range(100):
        control.throttle(MIB // 4)
    assert 0.45 <= time.monotonic() - started <= 0.75


def test_a_limit_is_shared_by_all_threads() -> None:
    control = Control(40 * MIB)
    started = time.monotonic()

    def take_five() -> None:
        for _ in range(5):
            control.throttle(MIB)

    threads = [threading.Thread(target=take_five) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.4 <= time.monotonic() - started <= 0.8


def test_lifting_a_limit_frees_who_waits() -> None:
    control = Control(1)
    control.throttle(1000)
    waiting = threading.Thread(target=control.throttle, args=(1000,))
    waiting.start()
    control.set_limit(None)
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_limit_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="above zero"):
        Control().set_limit(0)


class Order:
    """Gives an order once a round has written something, from the progress callback."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.seen: list[Progress] = []
        self.written = threading.Event()

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)
        if progress.bytes_written:
            self.written.set()


def test_a_round_is_held_slowed_resumed_and_stopped_while_it_runs(tmp_path: Path) -> None:
    target = write_sparse(tmp_path / "target", bytes(SIZE))
    content = random.Random(2).randbytes(SIZE)
    source = FileSource(write_sparse(tmp_path / "source", content))
    control = Control(8 * MIB)
    order = Order(control)
    errors = list[BaseException]()

    def run() -> None:
        try:
            with session(tmp_path, target, SIZE) as opened:
                opened.apply_round(PLAN, source, source.allocated, control, order)
        except Stopped as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert order.written.wait(10)
    control.pause()
    assert control.paused
    wait_until(lambda: _stands_still(order), 10)
    held = order.seen[-1]
    assert held.bytes_done < SIZE
    control.set_limit(4 * MIB)
    control.resume()
    wait_until(lambda: order.seen[-1].bytes_done > held.bytes_done, 10)
    assert order.seen[-1].in_flight <= PLAN.in_flight_bytes
    control.stop()
    thread.join(5)
    assert errors
    with session(tmp_path, target, SIZE) as opened:
        result = opened.apply_round(PLAN, source, source.allocated)
        assert result.resumed
    assert target.read_bytes() == content
    source.close()


def _stands_still(order: Order) -> bool:
    last = [progress.bytes_done for progress in order.seen[-3:]]
    return len(last) == 3 and len(set(last)) == 1


def test_what_the_progress_callback_raises_ends_the_round(tmp_path: Path) -> None:
    target = write_sparse(tmp_path / "target", bytes(SIZE))
    source = FileSource(write_sparse(tmp_path / "source", b"x" * SIZE))

    def cancelled(_: Progress) -> None:
        raise KeyboardInterrupt

    with session(tmp_path, target, SIZE) as opened, pytest.raises(KeyboardInterrupt):
        opened.apply_round(PLAN, source, source.allocated, Control(8 * MIB), cancelled)
    assert threading.active_count() == 1
    source.close()
