"""Any sequence of rounds, failures, restarts and rollbacks leaves the bytes a simple model says."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from models.errors import BaseUnavailable, SourceUnavailable
from tests.transfer.disks import (
    SMALL_SIZE,
    FailingSource,
    change,
    expected_root,
    random_disk,
    session,
    small_plan,
    write_sparse,
)
from transfer import FileSource, Range

SEEDS = st.integers(0, 2**32 - 1)
METHODS = st.sampled_from(("full", "compare", "changed-ranges"))


class Rounds(RuleBasedStateMachine):
    """A disk, the rounds that are durable, and one that may have failed half way."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="failback-rounds-"))
        self.target = self.directory / "target.raw"
        content = random_disk(SMALL_SIZE, random.Random(0))
        write_sparse(self.target, content)
        self.after: list[bytes] = [content]
        self.half_done = False
        self.snapshots = 0
        self.session = session(self.directory, self.target, SMALL_SIZE)

    def teardown(self) -> None:
        self.session.close()
        shutil.rmtree(self.directory)

    @property
    def number(self) -> int:
        return len(self.after)

    def base_id(self) -> str | None:
        return self.session.status().manifest_source_id

    def snapshot(self, seed: int, changes: int) -> tuple[str, bytes, list[Range], Path]:
        """A new recovery point that differs from the last one in unaligned places."""
        self.snapshots += 1
        content, changed = change(self.after[-1], random.Random(seed), changes)
        path = write_sparse(self.directory / f"snapshot-{self.snapshots}.raw", content)
        return f"snapshot-{self.snapshots}", content, changed, path

    @rule(seed=SEEDS, changes=st.integers(0, 6), method=METHODS)
    def a_round_brings_the_target_to_the_snapshot(
        self, seed: int, changes: int, method: str
    ) -> None:
        name, content, changed, path = self.snapshot(seed, changes)
        base = self.base_id()
        if method == "changed-ranges" and (base is None or self.number == 1):
            method = "compare"
        plan = small_plan(self.number, name, method=method, base_id=base)
        source = FileSource(path)
        ranges = changed if method == "changed-ranges" else list(source.allocated())
        result = self.session.apply_round(plan, source, ranges)
        assert self.target.read_bytes() == content
        assert result.root == expected_root(content)
        assert self.session.apply_round(plan, source, ranges) == result
        self.session.verify_round(self.number)
        assert self.session.verify_all(source=source).root == result.root
        source.close()
        self.after.append(content)
        self.half_done = False

    @rule(seed=SEEDS, changes=st.integers(1, 6), reads=st.integers(0, 20), resumes=st.booleans())
    def a_round_fails_half_way_and_may_go_on(
        self, seed: int, changes: int, reads: int, resumes: bool
    ) -> None:
        name, content, _, path = self.snapshot(seed, changes)
        source = FileSource(path)
        ranges = list(source.allocated())
        plan = small_plan(self.number, name, method="compare")
        failing = FailingSource(path, reads, SourceUnavailable("the wire is cut"))
        try:
            self.session.apply_round(plan, failing, ranges)
            done = True
        except SourceUnavailable:
            done = False
        if resumes and not done:
            result = self.session.apply_round(plan, source, ranges)
            assert result.resumed
            assert result.bytes_recopied <= plan.in_flight_bytes
            done = True
        if done:
            assert self.target.read_bytes() == content
            self.after.append(content)
        self.half_done = not done
        failing.close()
        source.close()

    @rule(back=st.integers(0, 3))
    def rolling_back_gives_the_bytes_of_that_round(self, back: int) -> None:
        to_round = max(0, self.number - 1 - back)
        result = self.session.roll_back(to_round)
        del self.after[to_round + 1 :]
        self.half_done = False
        assert result.verified
        assert self.target.read_bytes() == self.after[-1]
        assert self.session.roll_back(to_round).blocks == 0

    @rule()
    def the_mover_restarts(self) -> None:
        self.session.close()
        self.session = session(self.directory, self.target, SMALL_SIZE)

    @precondition(lambda self: self.half_done)
    @rule(seed=SEEDS)
    def a_delta_after_a_failed_round_takes_that_round_back_first(self, seed: int) -> None:
        if self.base_id() is None:
            return
        name, content, changed, path = self.snapshot(seed, 3)
        plan = small_plan(self.number, name, method="changed-ranges", base_id=self.base_id())
        source = FileSource(path)
        self.session.apply_round(plan, source, changed)
        source.close()
        assert self.target.read_bytes() == content
        self.after.append(content)
        self.half_done = False

    @invariant()
    def the_rounds_are_those_of_the_model(self) -> None:
        status = self.session.status()
        assert status.rounds == tuple(range(1, self.number))
        if not self.half_done:
            assert self.target.read_bytes() == self.after[-1]


TestRounds = Rounds.TestCase
TestRounds.settings = settings(
    max_examples=40,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)


def test_a_delta_on_another_base_than_the_manifests_is_refused(tmp_path: Path) -> None:
    content = random_disk(SMALL_SIZE, random.Random(1))
    target = write_sparse(tmp_path / "target.raw", content)
    source = FileSource(write_sparse(tmp_path / "source.raw", content))
    with session(tmp_path, target, SMALL_SIZE) as opened:
        plan = small_plan(1, "second", method="changed-ranges", base_id="first")
        with pytest.raises(BaseUnavailable, match="no recovery point"):
            opened.apply_round(plan, source, [])
        opened.apply_round(small_plan(1, "other"), source, source.allocated)
        plan = small_plan(2, "second", method="changed-ranges", base_id="first")
        with pytest.raises(BaseUnavailable, match="other"):
            opened.apply_round(plan, source, [])
    source.close()
