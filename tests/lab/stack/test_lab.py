"""The whole lab runs, survives ``kill -9`` of each of its processes, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.stack import Lab, LabError
from lab.stack.loopback import NoAnswerError, ask
from lab.stack.processes import ManagedProcess
from lab.stack.supervisor import NAMES
from lab.world import World
from tests.waiting import wait_until


def _records(lab: Lab) -> int:
    return int(lab.evidence.acknowledged(lab.machine)["azure"]["records"])


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_process_comes_back_where_it_was(lab: Lab, name: str) -> None:
    before = lab.running()
    ports = dict(lab.ports)
    assert lab.kill(name) == before[name]
    assert lab.running() == {other: pid for other, pid in before.items() if other != name}
    lab.start(name)
    after = lab.running()
    assert after.pop(name) != before[name]
    assert after.items() <= before.items()
    assert Lab(lab.directory).ports == ports
    # Everything that a run needs works again, each through the others.
    assert lab.failback_json("check", str(lab.spec_file))["passed"]


def test_an_orderly_restart_is_a_new_process_on_the_same_address(lab: Lab) -> None:
    before = lab.pid("azure")
    lab.restart("azure")
    assert lab.pid("azure") != before
    assert lab.guests()["azure"]["power"] == "running"


def test_the_guest_goes_on_with_its_numbers_after_a_kill_of_azure(lab: Lab) -> None:
    wait_until(lambda: _records(lab) > 5, 20)
    lab.kill("azure")
    kept = _records(lab)
    lab.start("azure")
    wait_until(lambda: _records(lab) > kept + 5, 20)
    last = lab.evidence.acknowledged(lab.machine)["azure"]["last"]
    assert last["sequence"] == _records(lab) or last["sequence"] > kept


def test_another_process_sees_and_ends_what_this_one_started(lab: Lab) -> None:
    other = Lab(lab.directory)
    assert other.running() == lab.running()
    other.stop("mover")
    assert lab.pid("mover") is None
    lab.start("mover")


def test_starting_what_runs_changes_nothing(lab: Lab) -> None:
    before = lab.running()
    lab.start()
    assert lab.running() == before


def test_temporal_keeps_its_history_for_thirty_days(lab: Lab) -> None:
    config = ask(f"{lab.temporal.http}/api/v1/namespaces/default")["config"]
    assert config["workflowExecutionRetentionTtl"] == f"{30 * 24 * 3600}s"


def test_everything_listens_on_loopback_only(lab: Lab) -> None:
    ours = {port: name for name, port in lab.ports.items()}
    heard: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, port = local.rpartition(":")
            if state == "0A" and int(port, 16) in ours:
                heard[ours[int(port, 16)]] = address
    assert set(heard) == set(ours.values())
    assert set(heard.values()) <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_nothing_of_a_persons_own_clouds_reaches_the_lab(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "a real one")
    monkeypatch.setenv("TEMPORAL_API_KEY", "a real one")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert "a real one" not in lab.child_environment("control").values()
    assert lab.failback_json("check", str(lab.spec_file))["passed"]


def test_a_worker_that_cannot_start_is_one_message_with_the_end_of_its_log(lab: Lab) -> None:
    lab.stop("control")
    config = lab.config_file.read_text()
    lab.config_file.write_text(config + "\n[nonsense]\n")
    try:
        with pytest.raises(LabError, match=r"(?s)control has ended.*nonsense"):
            lab.start("control")
    finally:
        lab.config_file.write_text(config)
        lab.start("control")


def test_an_unknown_process_is_refused_by_name(lab: Lab) -> None:
    with pytest.raises(LabError, match="no process 'vcenter'"):
        lab.kill("vcenter")


def test_a_question_to_a_run_that_is_not_there_is_an_error(lab: Lab) -> None:
    assert lab.phase("nobody") == ""
    with pytest.raises(LabError, match="not found"):
        lab.status("nobody")


def test_a_whole_lab_is_up_within_seconds_and_leaves_nothing(tmp_path: Path) -> None:
    with Lab(tmp_path, World.small()) as lab:
        began = time.monotonic()
        lab.start()
        seconds = time.monotonic() - began
        pids = list(lab.running().values())
        assert len(pids) == len(NAMES)
        address = lab.temporal.http
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(NoAnswerError):
        ask(address)
    # About 2 s on two cores; the rest is room for machines that do something else as well.
    assert seconds < 20


def test_the_death_of_the_supervisor_ends_everything(tmp_path: Path) -> None:
    code = (
        "import sys, signal, pathlib\n"
        "from lab.stack import Lab\nfrom lab.world import World\n"
        "lab = Lab(pathlib.Path(sys.argv[1]), World.small())\n"
        "lab.leash()\nlab.start('azure', 'temporal')\n"
        "print('up', flush=True)\nsignal.pause()\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ
    )
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == b"up\n"
    processes = [ManagedProcess(tmp_path, name) for name in ("azure", "temporal")]
    assert all(process.identity() for process in processes)
    supervisor.send_signal(signal.SIGKILL)
    supervisor.communicate()
    wait_until(lambda: not any(process.identity() for process in processes), 20)
