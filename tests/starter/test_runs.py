"""The commands against a real server and the real workflows: a whole failback by the words a person
types, rejections, repeated and unanswered words, checks, leftovers."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.starter.conftest import BINARIES, Server, failback
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("control_worker")

SpecFile = Callable[..., str]


@pytest.fixture
def say(server: Server) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command against the server."""

    def run(*words: str, by: str = "tester") -> subprocess.CompletedProcess[str]:
        return failback(*words, server=server, by=by)

    return run


Say = Callable[..., subprocess.CompletedProcess[str]]


def until(say: Say, machine: str, phase: str) -> None:
    """Wait for a phase by the product's own means."""
    done = say("watch", machine, "--until", phase)
    assert done.returncode == 0, done.stdout + done.stderr


def state(say: Say, machine: str) -> dict[str, object]:
    """What `show --json` says."""
    shown: dict[str, object] = json.loads(say("show", machine, "--json").stdout)
    return shown


def test_check_shows_direction_and_every_check_and_starts_nothing(
    say: Say, spec_file: SpecFile
) -> None:
    done = say("check", spec_file("checked"))
    assert done.returncode == 0, done.stderr
    for expected in ("Azure → on-premises", "vm-1 in resource group rg-1", "hv1", "warning"):
        assert expected in done.stdout
    as_json = json.loads(say("check", spec_file("checked"), "--json").stdout)
    assert as_json["passed"] is True
    assert as_json["direction"] == "azure-to-on-premises"
    assert say("show", "checked").returncode == 4


def test_a_failed_check_ends_check_and_start_and_nothing_is_started(
    say: Say, spec_file: SpecFile
) -> None:
    spec = spec_file("unlucky", vm="gone")
    for command in (("check", spec), ("start", spec, "--yes")):
        done = say(*command)
        assert done.returncode == 5
        assert "No machine [gone] in rg-1." in done.stdout
        assert "Correct azure.vm." in done.stdout
        assert "FB-CHK-VM" in done.stderr
        error = json.loads(say(*command, "--json").stdout)["error"]
        assert error["code"] == "FB-PREFLIGHT"
    assert say("show", "unlucky").returncode == 4


def test_checks_that_do_not_answer_end_by_their_timeout(say: Say, spec_file: SpecFile) -> None:
    done = say("check", spec_file("quiet", vm="silent"), "--timeout", "5")
    assert done.returncode == 6
    assert "within 5 s" in done.stderr


def test_a_failback_from_start_to_commit_by_the_words_a_person_types(
    say: Say, spec_file: SpecFile, tmp_path: Path
) -> None:
    spec = spec_file("home", plan="shop", commit={"approvers": 2})
    assert "Next: failback watch home" in say("start", spec, by="alice").stdout
    again = say("start", spec)
    assert again.returncode == 3
    assert again.stderr.startswith("FB-ALREADY-RUNNING: ")
    until(say, "home", "ready")
    listed = json.loads(say("list", "--json", "--plan", "shop").stdout)["runs"]
    assert [(run["machine"], run["platform"]) for run in listed] == [("home", "hyperv")]
    assert json.loads(say("list", "--json", "--phase", "committing").stdout) == {"runs": []}
    assert "accepted" in say("limit", "home", "100MiB/s", "--json").stdout
    assert state(say, "home")["bandwidth_limit"] == 100 * 2**20
    assert say("limit", "home", "none").returncode == 0
    assert state(say, "home")["bandwidth_limit"] is None
    early = say("commit", "home", "--yes")
    assert early.returncode == 3
    assert "Allowed now: set_limits, run_failover" in early.stderr
    assert say("run-failover", "home", "--reason", "window 42", by="bob").returncode == 0
    until(say, "home", "commit_pending")
    refused = say("abort", "home")
    assert refused.returncode == 3
    assert "--discard-onprem-changes" in refused.stderr
    assert "one more person" in say("commit", "home", "--yes", by="alice").stdout
    assert "commit follows" in say("commit", "home", "--yes", by="bob").stdout
    done = say("watch", "home")
    assert done.returncode == 0
    assert "home: completed" in done.stdout
    audit = state(say, "home")["audit"]
    assert isinstance(audit, list)
    said = [(entry["by"], entry["what"], entry["reason"]) for entry in audit]
    assert ("bob", "run_failover", "window 42") in said
    page = tmp_path / "home.html"
    assert say("report", "home", "--output", str(page)).returncode == 0
    assert "home is home." in page.read_text()
    over = say("pause", "home")
    assert over.returncode == 3
    assert "is over (completed)" in over.stderr
    assert say("pause", "home", "--signal").returncode == 3
    ended = json.loads(say("list", "--all", "--json").stdout)["runs"]
    assert ("home", "completed") in [(run["machine"], run["phase"]) for run in ended]


def test_an_abort_is_followed_to_its_end_with_a_status_of_its_own(
    say: Say, spec_file: SpecFile
) -> None:
    assert say("start", spec_file("turned")).returncode == 0
    until(say, "turned", "syncing")
    assert say("abort", "turned", "--reason", "wrong window").returncode == 0
    done = say("watch", "turned")
    assert done.returncode == 8
    assert "Rolled back" in done.stdout
    streamed = say("watch", "turned", "--json")
    assert streamed.returncode == 8
    assert json.loads(streamed.stdout.splitlines()[-1])["phase"] == "rolled_back"


def test_start_can_wait_for_the_end(server: Server, say: Say, spec_file: SpecFile) -> None:
    waiting = subprocess.Popen(
        [str(BINARIES / "failback"), "start", spec_file("awaited"), "--wait", "--json"],
        env={**os.environ, "TEMPORAL_ADDRESS": server.address},
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: say("abort", "awaited").returncode == 0, timeout=30, interval=0.2)
    out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 8
    phases = [json.loads(line)["phase"] for line in out.splitlines()]
    assert phases[-1] == "rolled_back"


def test_the_same_request_id_acts_once(say: Say, spec_file: SpecFile) -> None:
    assert say("start", spec_file("twice")).returncode == 0
    until(say, "twice", "syncing")
    first = json.loads(say("pause", "twice", "--request-id", "r1", "--json").stdout)
    second = json.loads(say("pause", "twice", "--request-id", "r1", "--json").stdout)
    assert first["reply"]["accepted"] is True
    assert second["reply"]["accepted"] is True
    assert say("pause", "twice", "--request-id", "r1", "--signal").returncode == 0
    audit = state(say, "twice")["audit"]
    assert isinstance(audit, list)
    assert [entry["what"] for entry in audit].count("pause") == 1
    assert say("resume", "twice").returncode == 0
    assert say("abort", "twice").returncode == 0


def test_verify_waits_for_its_outcome_and_says_when_sides_differ(
    say: Say, spec_file: SpecFile
) -> None:
    assert say("start", spec_file("same")).returncode == 0
    assert say("start", spec_file("other", vm="differs")).returncode == 0
    for machine, status in (("same", 0), ("other", 1)):
        until(say, machine, "ready")
        done = say("verify", machine, "--json")
        assert done.returncode == status, done.stderr
        records = json.loads(done.stdout)["verifications"]
        assert [(record["disk_id"], record["equal"]) for record in records] == [("os", status == 0)]
        assert say("abort", machine).returncode == 0


def test_a_blocked_run_offers_the_commands_to_say(say: Say, spec_file: SpecFile) -> None:
    assert say("start", spec_file("ill", vm="sick")).returncode == 0
    assert say("run-failover", "ill", "--signal").returncode == 0
    wait_until(lambda: state(say, "ill")["blocked"], timeout=30, interval=0.2)
    shown = say("show", "ill").stdout
    assert "failback commit ill --override" in shown
    assert "failback abort ill --discard-onprem-changes" in shown
    without = say("commit", "ill", "--yes")
    assert without.returncode == 3
    assert "--override" in without.stderr
    assert say("retry", "ill").returncode == 0
    assert say("abort", "ill", "--discard-onprem-changes").returncode == 0
    assert say("watch", "ill").returncode == 8


def test_ctrl_c_stops_watching_and_not_the_run(
    server: Server, say: Say, spec_file: SpecFile
) -> None:
    assert say("start", spec_file("watched")).returncode == 0
    watching = subprocess.Popen(
        [str(BINARIES / "failback"), "watch", "watched"],
        env={**os.environ, "TEMPORAL_ADDRESS": server.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    assert "watched: " in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=10)
    assert watching.returncode == 130
    assert "Traceback" not in errors
    assert "watched" in say("list").stdout
    assert say("abort", "watched").returncode == 0


def test_machines_of_runs_are_completed(server: Server, say: Say, spec_file: SpecFile) -> None:
    assert say("start", spec_file("tabbed")).returncode == 0
    done = subprocess.run(
        [str(BINARIES / "failback")],
        env={
            **os.environ,
            "TEMPORAL_ADDRESS": server.address,
            "COMP_WORDS": "failback watch tab",
            "COMP_CWORD": "2",
            "_FAILBACK_COMPLETE": "complete_bash",
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["tabbed"]
    assert say("abort", "tabbed").returncode == 0


def test_a_run_ended_from_outside_is_said_and_not_called_a_success(
    server: Server, say: Say, spec_file: SpecFile
) -> None:
    assert say("start", spec_file("cut")).returncode == 0
    until(say, "cut", "syncing")
    subprocess.run(
        [
            *(str(BINARIES / "temporal"), "workflow", "terminate", "--workflow-id"),
            *("failback-cut", "--address", server.address),
        ],
        check=True,
        capture_output=True,
    )
    done = say("watch", "cut")
    assert done.returncode == 1
    assert "terminated" in done.stderr
    assert "failback doctor" in done.stderr


def test_doctor_finds_asks_to_remove_and_removes_leftovers(say: Say, spec_file: SpecFile) -> None:
    spec = spec_file("littered", vm="littered")
    found = say("doctor", spec)
    assert found.returncode == 7
    assert "fb-dead-r1-os" in found.stdout
    assert "--remove" in found.stderr
    removed = json.loads(say("doctor", spec, "--remove", "--json").stdout)
    assert [item["name"] for item in removed["removed"]] == ["fb-dead-r1-os"]
    assert say("doctor", spec).returncode == 0


def test_words_to_a_machine_that_nobody_knows_are_one_clear_message(say: Say) -> None:
    for words in (
        ["show", "nobody"],
        ["watch", "nobody"],
        ["report", "nobody"],
        ["pause", "nobody"],
        ["abort", "nobody", "--signal"],
        ["verify", "nobody"],
    ):
        done = say(*words)
        assert done.returncode == 4, words
        assert done.stderr.startswith("FB-NOT-FOUND: ")
        assert "failback list --all" in done.stderr
