"""The demo as a user runs it: it proves the whole job, and it cleans up whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.stack.processes import ManagedProcess
from lab.stack.supervisor import NAMES, product_command
from tests.waiting import wait_until

DEMO_SECONDS = 180.0


def _demo(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*product_command(), "demo", "--dir", str(directory), "--small", *options],
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
    )


def _running(directory: Path) -> list[str]:
    return [name for name in NAMES if ManagedProcess(directory / "demo", name).identity()]


@pytest.mark.e2e
def test_a_machine_comes_home_and_everything_holds(tmp_path: Path) -> None:
    done = _demo(tmp_path, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    assert figures["holds"]
    assert all(check["holds"] for check in figures["checks"])
    assert len([one for one in figures["rounds"] if not one["final"]]) >= 3
    assert figures["rounds"][-1]["final"]
    assert 0 < figures["downtime_seconds"] < 10
    assert figures["records"]["missing"] == figures["records"]["corrupt"] == []
    assert figures["records"]["acknowledged_on_premises"] > 0
    assert set(figures["manifest_roots"]) == {"os", "lun0"}
    assert figures["bytes_moved"] >= figures["bytes_changed"] > 0
    assert _running(tmp_path) == []
    report = tmp_path / "demo" / "failback-web01.html"
    assert "web01" in report.read_text()


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_it_in_the_middle_leaves_nothing_running(
    tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "said"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [*product_command(), "demo", "--dir", str(tmp_path), "--small"],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    wait_until(lambda: "syncing" in log.read_text() or demo.poll() is not None, 60)
    assert _running(tmp_path)
    # As the terminal does it: to everybody in the foreground.
    os.killpg(demo.pid, number)
    assert demo.wait(60) == 130, log.read_text()
    assert _running(tmp_path) == []


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("all of it")
    done = _demo(tmp_path)
    assert done.returncode == 1
    assert "choose another --dir" in done.stdout + done.stderr
    assert (tmp_path / "demo" / "thesis.txt").read_text() == "all of it"


def test_an_image_that_is_not_there_or_not_usable_is_one_message(tmp_path: Path) -> None:
    done = _demo(tmp_path, "--disk", str(tmp_path / "none.vhd"))
    assert done.returncode == 1
    assert "There is no file" in done.stdout + done.stderr
    (tmp_path / "dynamic.vhdx").write_bytes(b"vhdxfile" + bytes(4096))
    command = [*product_command(), "demo", "--dir", str(tmp_path / "x")]
    done = subprocess.run(
        [*command, "--disk", str(tmp_path / "dynamic.vhdx")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "convert it first" in done.stdout + done.stderr
