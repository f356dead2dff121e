"""Backup and restore of the embedded Temporal server's state, one SQLite file (V10). The backup is
consistent while the server runs; a restore is refused while anybody has the file open."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from models.errors import FailbackError, NotFound, ServerStateExists, StateCorrupt

_BUSY_SECONDS = 30.0
"""How long the server's own writes may hold the file before a backup gives up."""

_SERVER_TABLES = {"executions", "namespaces"}
"""Tables that every release of the server's SQLite schema has."""


@dataclass(frozen=True)
class Copied:
    """What a backup or restore wrote. `replaced` is where the former state was put."""

    path: Path
    bytes: int
    workflows: int
    replaced: Path | None = None


def back_up(database: Path, output: Path, *, overwrite: bool = False) -> Copied:
    """Copy the server's state while it runs, or after it was killed.

    Raises:
        NotFound: There is no such file.
        ServerStateExists: The output exists and is not to be overwritten.
        StateCorrupt: The state, or the copy, is not a sound server database.
        FailbackError: The server held the file for too long.
    """
    if not database.is_file():
        raise NotFound(
            f"There is no server state at {str(database)!r}.",
            hint="--db is the file given to the server as --db-filename.",
        )
    if output.exists() and not overwrite:
        raise ServerStateExists(f"{str(output)!r} exists.", hint="Choose another, or say --force.")
    return _write(database, output, replaced=None)


def restore(backup: Path, database: Path, *, overwrite: bool = False, address: str = "") -> Copied:
    """Put a backup where the server finds it. A former state is kept beside it, never deleted.

    Args:
        address: `host:port` of the server; asked only where open files cannot be listed.

    Raises:
        NotFound: There is no such backup.
        ServerStateExists: There is a state already and it is not to be replaced, or it is in use.
        StateCorrupt: The backup is not a sound server database.
    """
    if not backup.is_file():
        raise NotFound(f"There is no backup at {str(backup)!r}.")
    check(backup)
    if not database.exists():
        _settle_orphans(database)
        return _write(backup, database, replaced=None)
    _refuse_if_in_use(database, address)
    if not overwrite:
        raise ServerStateExists(
            f"{str(database)!r} exists already.",
            hint="Say --force to replace it; the former state is kept beside it.",
        )
    _settle(database)
    former = database.with_name(f"{database.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    # A hard link first: at every instant there is a whole state under the server's own name.
    try:
        os.link(database, former)
    except OSError as error:
        raise FailbackError(
            f"The former state cannot be kept as {str(former)!r}: {error.strerror}.",
            hint="Move it away yourself, then restore again.",
        ) from error
    try:
        return _write(backup, database, replaced=former)
    except FailbackError:
        former.unlink(missing_ok=True)
        raise


def check(path: Path) -> int:
    """Check one server database and return how many workflow executions it holds.

    Raises:
        StateCorrupt: SQLite or this program finds it unsound.
    """
    try:
        with _open(path) as connection:
            verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if verdict != "ok":
                raise StateCorrupt(f"{str(path)!r} is damaged: {verdict}.", hint=_OTHER_BACKUP)
            names = {
                row[0]
                for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            }
            if not names >= _SERVER_TABLES:
                raise StateCorrupt(
                    f"{str(path)!r} is no state of a Temporal server.", hint=_OTHER_BACKUP
                )
            return int(connection.execute("SELECT count(*) FROM executions").fetchone()[0])
    except sqlite3.OperationalError as error:
        raise FailbackError(
            f"{str(path)!r} cannot be read: {error}.", hint="Try again in a moment."
        ) from error
    except sqlite3.DatabaseError as error:
        raise StateCorrupt(f"{str(path)!r} cannot be read: {error}.", hint=_OTHER_BACKUP) from error


_OTHER_BACKUP = "Use another backup."


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    # Writable, though only read: after a kill SQLite must first roll its own journal back.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS
    )
    try:
        yield connection
    finally:
        connection.close()


def _write(source: Path, target: Path, *, replaced: Path | None) -> Copied:
    """Copy a database to a temporary file, check it, and let it appear whole under its name."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        draft.touch(mode=0o600, exist_ok=False)  # histories name machines and people
        _copy(source, draft)
        workflows = check(draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise FailbackError(
            f"{str(target)!r} cannot be written: {error.strerror or error}.",
            hint="Choose a folder that exists, is writable and has room.",
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return Copied(target, target.stat().st_size, workflows, replaced)


def _copy(source: Path, draft: Path) -> None:
    try:
        with _open(source) as origin, _open(draft) as copy:
            # In one step: in many, every write of a busy server would start it over.
            origin.backup(copy, pages=-1)
    except sqlite3.OperationalError as error:
        raise FailbackError(
            f"{str(source)!r} could not be copied: {error}.", hint="Try again in a moment."
        ) from error
    except sqlite3.DatabaseError as error:
        raise StateCorrupt(
            f"{str(source)!r} could not be copied: {error}.", hint=_OTHER_BACKUP
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle_orphans(database: Path) -> None:
    """Refuse side files without their database: SQLite would apply them to the restored one."""
    for suffix in ("-journal", "-wal"):
        side = database.with_name(database.name + suffix)
        if side.exists():
            raise ServerStateExists(
                f"{str(side)!r} is left of a database that is gone and would spoil "
                "the restored one.",
                hint="Move it away, then restore again.",
            )


def _settle(database: Path) -> None:
    """Let SQLite finish what a killed server left, so that no side file outlives the state."""
    try:
        with _open(database) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("BEGIN EXCLUSIVE")
            connection.rollback()
    except sqlite3.OperationalError as error:
        raise ServerStateExists(
            f"{str(database)!r} is in use: {error}.", hint="Stop the server first."
        ) from error
    except sqlite3.DatabaseError:
        # A damaged state is what a restore is for; its side files go with it, under its new name.
        for suffix in ("-journal", "-wal", "-shm"):
            side = database.with_name(database.name + suffix)
            if side.exists():
                side.rename(side.with_name(f"{side.name}.before-restore"))


def _refuse_if_in_use(database: Path, address: str) -> None:
    holders, complete = _holders(database)
    if holders:
        who = ", ".join(holders)
        raise ServerStateExists(
            f"{str(database)!r} is open in {who}.", hint="Stop the server first, then restore."
        )
    if not complete and address and _listens(address):
        raise ServerStateExists(
            f"A server answers at {address} and may have {str(database)!r} open.",
            hint="Stop it first, then restore.",
        )


def _holders(database: Path) -> tuple[list[str], bool]:
    """Processes that have the file open, and whether all that could have were looked at (Linux)."""
    processes = Path("/proc")
    if not (processes / "self" / "fd").is_dir():
        return [], False
    wanted = database.stat()
    found: list[str] = []
    complete = True
    for process in processes.iterdir():
        if not process.name.isdigit() or process.name == str(os.getpid()):
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    opened = descriptor.stat()
                    if (opened.st_dev, opened.st_ino) == (wanted.st_dev, wanted.st_ino):
                        name = (process / "comm").read_text().strip()
                        found.append(f"process {process.name} ({name})")
                        break
        except PermissionError:
            complete = False
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return found, complete


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]") or "localhost", int(port)), timeout=2):
            return True
    except (OSError, ValueError):
        return False
