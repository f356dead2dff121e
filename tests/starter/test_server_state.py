"""Backup and restore of the embedded server's state, with a real server that is killed (V10)."""

import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import FailbackError, NotFound, ServerStateExists, StateCorrupt
from starter.server_state import back_up, check, restore
from tests.starter.conftest import BINARIES as BIN
from tests.starter.conftest import Server, failback


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may kill."""
    running = Server(tmp_path / "temporal.db")
    running.start()
    yield running
    if running.process:
        running.kill()


def temporal(server: Server, *words: str) -> str:
    """Temporal's own command line."""
    done = subprocess.run(
        [str(BIN / "temporal"), *words, "--address", server.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def start_run(server: Server, machine: str) -> None:
    """A run that nobody works on; the server keeps it all the same."""
    temporal(
        server,
        *("workflow", "start", "--task-queue", "failback.control", "--type", "FailbackWorkflow"),
        *("--workflow-id", f"failback-{machine}", "--input", "{}"),
        *("--search-attribute", f'FailbackMachine="{machine}"'),
    )


def test_a_backup_of_a_running_server_goes_on_where_it_was(
    own_server: Server, tmp_path: Path
) -> None:
    start_run(own_server, "before")
    backup = tmp_path / "backup.db"
    done = failback("backup", "--db", str(own_server.database), "--output", str(backup))
    assert done.returncode == 0, done.stderr
    start_run(own_server, "after")
    own_server.kill()
    restored = Server(tmp_path / "elsewhere" / "temporal.db")
    restored.database.parent.mkdir()
    done = failback("restore", "--from", str(backup), "--db", str(restored.database))
    assert done.returncode == 0, done.stderr
    restored.start()
    try:
        listed = failback("list", server=restored).stdout
        assert "before" in listed
        assert "after" not in listed
        assert failback("pause", "before", "--signal", server=restored).returncode == 0
        shown = temporal(restored, "workflow", "show", "--workflow-id", "failback-before")
        assert "WorkflowExecutionSignaled" in shown
    finally:
        restored.kill()


def test_a_server_killed_while_it_wrote_can_be_backed_up(
    own_server: Server, tmp_path: Path
) -> None:
    start_run(own_server, "busy")
    enough = threading.Event()

    def write() -> None:
        for number in range(200):
            if enough.is_set():
                return
            try:
                temporal(
                    own_server,
                    *("workflow", "signal", "--workflow-id", "failback-busy", "--name", "pause"),
                    *("--input", f'{{"request_id":"{number}"}}'),
                )
            except subprocess.CalledProcessError:
                return

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for number in range(3):
        back_up(own_server.database, tmp_path / f"live-{number}.db")
    own_server.kill()
    enough.set()
    for writer in writers:
        writer.join()
    copied = back_up(own_server.database, tmp_path / "dead.db")
    assert copied.workflows >= 1
    assert check(tmp_path / "dead.db") == copied.workflows
    assert check(own_server.database) == copied.workflows


def test_restore_refuses_while_the_server_runs_even_by_force(
    own_server: Server, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    back_up(own_server.database, backup)
    done = failback("restore", "--from", str(backup), "--db", str(own_server.database), "--force")
    assert done.returncode == 2
    assert done.stderr.startswith("FB-SERVER-STATE: ")
    assert "(temporal)" in done.stderr
    assert failback("list", server=own_server).returncode == 0


def test_restore_refuses_while_somebody_writes(tmp_path: Path) -> None:
    state, backup = a_state(tmp_path / "state.db"), a_state(tmp_path / "backup.db")
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [str(BIN / "python"), "-c", code, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ServerStateExists, match="is open in process"):
            restore(backup, state, overwrite=True)
    finally:
        holder.kill()
        holder.communicate()


def a_state(path: Path, executions: int = 1) -> Path:
    """A database with the tables a server's state has."""
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE executions (x); CREATE TABLE namespaces (x);")
    connection.executemany("INSERT INTO executions VALUES (?)", [(n,) for n in range(executions)])
    connection.commit()
    connection.close()
    return path


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    state, other = a_state(tmp_path / "state.db", 1), a_state(tmp_path / "other.db", 2)
    with pytest.raises(ServerStateExists):
        back_up(state, other)
    with pytest.raises(ServerStateExists):
        restore(other, state)
    assert (check(state), check(other)) == (1, 2)


def test_a_replaced_state_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    state, backup = a_state(tmp_path / "state.db", 1), a_state(tmp_path / "backup.db", 2)
    done = restore(backup, state, overwrite=True)
    assert check(state) == 2
    assert done.replaced is not None
    assert check(done.replaced) == 1
    assert check(backup) == 2


def test_a_journal_left_by_a_kill_is_settled_before_the_state_is_replaced(tmp_path: Path) -> None:
    state, backup = a_state(tmp_path / "state.db", 1), a_state(tmp_path / "backup.db", 2)
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size=1'); c.execute('BEGIN IMMEDIATE');"
        "c.executemany('INSERT INTO executions VALUES (randomblob(5000))', [()] * 200);"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([str(BIN / "python"), "-c", code, str(state)], check=False)
    journal = state.with_name("state.db-journal")
    assert journal.exists(), "the kill left no hot journal, so this test tests nothing"
    done = restore(backup, state, overwrite=True)
    assert not journal.exists()
    assert check(state) == 2
    assert done.replaced is not None
    assert check(done.replaced) == 1, "the half transaction was not rolled back"


def test_a_journal_without_its_database_is_refused(tmp_path: Path) -> None:
    backup = a_state(tmp_path / "backup.db")
    (tmp_path / "state.db-journal").write_bytes(b"left over")
    with pytest.raises(ServerStateExists, match="would spoil"):
        restore(backup, tmp_path / "state.db")


def test_only_sound_server_states_are_taken(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("no database" * 1000)
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).close()
    damaged = a_state(tmp_path / "damaged.db", 5000)
    content = bytearray(damaged.read_bytes())
    content[8192:16384] = b"\xff" * 8192
    damaged.write_bytes(content)
    for unsound in (text, empty, damaged):
        with pytest.raises(StateCorrupt):
            restore(unsound, tmp_path / "state.db")
        with pytest.raises(StateCorrupt):
            back_up(unsound, tmp_path / "copy.db")
    assert not (tmp_path / "state.db").exists()
    assert not (tmp_path / "copy.db").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_a_missing_file_or_folder_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no server state"):
        back_up(tmp_path / "no.db", tmp_path / "out.db")
    with pytest.raises(NotFound, match="no backup"):
        restore(tmp_path / "no.db", tmp_path / "state.db")
    with pytest.raises(FailbackError, match="cannot be written"):
        back_up(a_state(tmp_path / "state.db"), tmp_path / "no-folder" / "out.db")
    done = failback("backup", "--db", "/nowhere.db", "--output", str(tmp_path / "x.db"))
    assert done.returncode == 4


def test_a_backup_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    done = back_up(a_state(tmp_path / "state.db"), tmp_path / "backup.db")
    assert done.path.stat().st_mode & 0o077 == 0
