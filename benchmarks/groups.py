"""The situations that are measured, and who takes part in each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.disks import Disks, make_disks
from benchmarks.measure import measure, python_module
from benchmarks.server import Served, serving


@dataclass(frozen=True)
class Contender:
    """One who takes part.

    Attributes:
        name: In the table.
        command: What runs.
        prepare: Puts its target into the state it starts from, outside of the clock.
        program: Must be installed; empty for our own.
    """

    name: str
    command: list[str]
    prepare: Callable[[], None]
    program: str = ""

    @property
    def is_here(self) -> bool:
        """Whether it can run on this machine."""
        return not self.program or shutil.which(self.program) is not None


@dataclass
class Group:
    """One situation; the first contender is what the others are divided by.

    Attributes:
        key: For `--only`.
        title: For people.
        disks: All contenders work on these.
        contenders: In the order they take turns.
    """

    key: str
    title: str
    disks: Disks
    contenders: list[Contender] = field(default_factory=list)


KEYS = ("delta", "new", "http", "https")


@contextmanager
def build(key: str, directory: Path, size: int, dirty_share: float) -> Iterator[Group]:
    """Make the disks of a situation and everything it needs; all is removed afterwards."""
    place = directory / key
    shutil.rmtree(place, ignore_errors=True)
    disks = make_disks(place, size, dirty_share)
    try:
        with ExitStack() as stack:
            if key == "delta":
                yield _delta(disks, dirty_share)
            elif key == "new":
                yield _new(disks)
            else:
                tls = key == "https"
                served = stack.enter_context(serving(disks.source, place / "server", tls=tls))
                yield _wire(key, disks, served, dirty_share)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _delta(disks: Disks, dirty_share: float) -> Group:
    """An existing disk, the source on a local file."""
    title = (
        f"existing disk, {dirty_share:.0%} of its 64 KiB clusters differ, source is a local file"
    )
    group = Group("delta", title, disks)
    state = disks.directory / "state"
    fresh = _fresh(disks, state)
    add = group.contenders.append
    local = str(disks.source), str(disks.target), str(state)
    add(Contender("engine compare (journal, read-back)", _engine(*local), fresh))
    quick = _engine(*local, "--no-read-back")
    add(Contender("engine compare (journal)", quick, fresh))
    changes = ["--method", "changed-ranges", "--round", "2", "--changes", str(disks.changes)]
    based = _based(disks, state)
    add(Contender("engine changed-ranges (journal, read-back)", _engine(*local, *changes), based))
    for peer in _local_peers(disks, disks.reset):
        add(peer)
    return group


def _new(disks: Disks) -> Group:
    """A disk created for the run."""
    group = Group("new", "new empty disk, source is a local file", disks)
    state = disks.directory / "state"

    def fresh() -> None:
        shutil.rmtree(state, ignore_errors=True)
        disks.empty_target()

    local = str(disks.source), str(disks.target), str(state)
    full = ["--method", "full", "--new-disk"]
    add = group.contenders.append
    add(Contender("engine full (read-back)", _engine(*local, *full), fresh))
    add(Contender("engine full", _engine(*local, *full, "--no-read-back"), fresh))
    for peer in _local_peers(disks, fresh):
        add(peer)
    return group


def _wire(key: str, disks: Disks, served: Served, dirty_share: float) -> Group:
    """An existing disk, the source behind HTTP or HTTPS."""
    title = f"existing disk, {dirty_share:.0%} differ, source behind {key.upper()} ({served.kind})"
    group = Group(key, title, disks)
    state = disks.directory / "state"
    trust = ["--ca-file", served.ca_file] if served.ca_file else []
    wire = served.address, str(disks.target), str(state), *trust
    add = group.contenders.append
    add(Contender("engine compare (journal, read-back)", _engine(*wire), _fresh(disks, state)))
    changes = ["--method", "changed-ranges", "--round", "2", "--changes", str(disks.changes)]
    add(Contender("engine changed-ranges", _engine(*wire, *changes), _based(disks, state)))
    sdk = python_module("benchmarks.sdk_download", served.address, str(disks.target))
    trusted = [served.ca_file] if served.ca_file else []
    add(Contender("Azure SDK download_blob", [*sdk, *trusted], disks.reset))
    return group


def _local_peers(disks: Disks, prepare: Callable[[], None]) -> Iterator[Contender]:
    source, target = str(disks.source), str(disks.target)
    convert = ["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, target]
    yield Contender("qemu-img convert -n", convert, prepare, "qemu-img")
    rsync = ["rsync", "--inplace", "--no-whole-file", "--ignore-times", source, target]
    yield Contender("rsync --inplace --no-whole-file", rsync, prepare, "rsync")


def _engine(*arguments: str) -> list[str]:
    return python_module("benchmarks.engine", *arguments)


def _fresh(disks: Disks, state: Path) -> Callable[[], None]:
    def prepare() -> None:
        shutil.rmtree(state, ignore_errors=True)
        disks.reset()

    return prepare


def _based(disks: Disks, state: Path) -> Callable[[], None]:
    """The state of a first round that made the target the base, kept aside and put back."""
    kept = state.with_name("state-after-round-1")

    def prepare() -> None:
        disks.reset()
        if not kept.exists():
            command = _engine(str(disks.base), str(disks.target), str(kept))
            first = json.loads(measure(command, disks.target).output)
            assert first["bytes_written"] == 0
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(kept, state)

    return prepare
