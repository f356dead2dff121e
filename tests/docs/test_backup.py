"""The commands of the page about backup, run against a real server with a run under way: it is
backed up, lost, restored, and the run goes on."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docs.tables import DOCS
from tests.starter.conftest import BINARIES, ROOT, Server, failback, spec_text
from tests.waiting import wait_until


def _commands(folder: Path) -> list[list[str]]:
    """Every `failback` command of the page, its paths moved to a folder of the test."""
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / "backup.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("failback")]
    moved = [line.replace(" /var/lib/failback-temporal/", f" {folder}/state/") for line in lines]
    return [line.replace(" /backup/", f" {folder}/backup/").split()[1:] for line in moved]


def _state(server: Server, machine: str) -> dict[str, Any]:
    shown = failback("show", machine, "--json", server=server)
    document: dict[str, Any] = json.loads(shown.stdout)
    return document if shown.returncode == 0 else {}


def test_a_run_goes_on_in_the_restored_server(tmp_path: Path) -> None:
    for name in ("state", "backup"):
        (tmp_path / name).mkdir()
    backup, restore = _commands(tmp_path)
    server = Server(tmp_path / "state" / "temporal.db")
    server.start()
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.starter.scripted_worker", server.address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        spec = tmp_path / "app01.yaml"
        spec.write_text(spec_text("app01", sync={"interval": "1h"}))
        assert failback("start", str(spec), "--json", server=server).returncode == 0
        wait_until(lambda: _state(server, "app01").get("phase") == "ready", timeout=30)

        assert failback(*backup, server=server).returncode == 0
        refused = failback(*restore, server=server)
        assert refused.returncode == 2, "the server still runs"
        assert "FB-SERVER-STATE" in refused.stderr
        server.kill()
        shutil.rmtree(tmp_path / "state")
        (tmp_path / "state").mkdir()
        assert failback(*restore, server=server).returncode == 0
        server.start()

        assert failback("run-failover", "app01", "--signal", server=server).returncode == 0
        wait_until(lambda: _state(server, "app01").get("phase") == "commit_pending", timeout=60)
    finally:
        worker.kill()
        worker.wait()
        if server.process is not None:
            server.kill()


def test_the_page_shows_the_programs_own_options() -> None:
    for command in _commands(Path("/nowhere")):
        shown = subprocess.run(
            [str(BINARIES / "failback"), command[0], "--help"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        assert [word for word in command if word.startswith("--") and word not in shown] == []
