"""The words of ``failback lab``, each by its own command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab import chaos
from lab.stack import Lab
from lab.stack.commandline import main, parser
from lab.stack.supervisor import NAMES
from tests.waiting import wait_until


class Words:
    """Runs commands against one lab, in this process."""

    def __init__(self, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
        self._directory = str(lab.directory)
        self._capsys = capsys

    def __call__(self, *words: str, status: int = 0) -> str:
        assert main([words[0], "--dir", self._directory, *words[1:]]) == status
        seen = self._capsys.readouterr()
        return seen.out + seen.err

    def json(self, *words: str, status: int = 0) -> Any:
        return json.loads(self(*words, "--json", status=status))


@pytest.fixture
def say(lab: Lab, capsys: pytest.CaptureFixture[str]) -> Words:
    return Words(lab, capsys)


def test_status_names_every_process_and_address(lab: Lab, say: Words) -> None:
    facts = say.json("status")
    assert set(facts["processes"]) == set(NAMES)
    assert all(one["running"] for one in facts["processes"].values())
    assert lab.temporal.web_ui in say("status")


def test_kill_and_restart_one_process(lab: Lab, say: Words) -> None:
    pid = lab.pid("mover")
    assert f"process {pid}" in say("kill", "mover")
    assert say.json("status", status=1)["processes"]["mover"]["running"] is False
    assert "does not run" in say("kill", "mover", status=1)
    assert "mover is ready" in say("restart", "mover")
    assert lab.pid("mover") not in (None, pid)


def test_up_starts_what_does_not_run_and_says_what_to_try(lab: Lab, say: Words) -> None:
    lab.kill("hyperv")
    said = say("up")
    assert lab.pid("hyperv") is not None
    assert "run-failover web01" in said
    assert str(lab.temporal.web_ui) in said
    assert (lab.directory / "env.sh").stat().st_mode & 0o077 == 0


def test_misbehaviour_is_put_into_force_listed_and_ended(lab: Lab, say: Words) -> None:
    options = ["--times", "2", "--retry-after", "0.5", "--emulator", "azure-arm"]
    say("misbehave", "virtualMachines.get", "throttle", *options)
    say("misbehave", "Start-VM", "boot_failure", "--resource", "web*", "--message", "no loader")
    rules = say.json("rules")
    first, second = rules.values()
    assert {name: first[name] for name in ("action", "times", "retry_after", "emulator")} == {
        "action": "throttle",
        "times": 2,
        "retry_after": 0.5,
        "emulator": "azure-arm",
    }
    assert second["resource"] == "web*"
    rule_id = next(iter(rules))
    say("behave", rule_id)
    assert list(say.json("rules")) == list(rules)[1:]
    assert "no rule" in say("behave", rule_id, status=1)
    say("behave")
    assert lab.rules() == {}
    assert "everything behaves" in say("rules")


def test_a_rule_strikes_the_product(lab: Lab, say: Words) -> None:
    say("misbehave", "virtualMachines.get", "fail", "--status", "403", "--code", "Forbidden!")
    done = lab.failback("check", str(lab.spec_file), check=False)
    assert done.returncode == 5
    (rule,) = say.json("rules").values()
    assert rule["matched"] > 0


def test_env_is_what_a_shell_needs(lab: Lab, say: Words) -> None:
    lines = say("env").splitlines()
    assert f"export TEMPORAL_ADDRESS='{lab.temporal.address}'" in lines
    assert any(line.startswith("export IDENTITY_HEADER='") for line in lines)


def test_guest_tells_where_it_runs_and_what_it_was_promised(lab: Lab, say: Words) -> None:
    wait_until(lambda: lab.guests()["azure"].get("heartbeat") == "OK", 20)
    facts = say.json("guest")
    assert facts["guests"]["azure"]["power"] == "running"
    assert facts["guests"]["onprem"]["power"] == "Off"
    assert facts["acknowledged"]["azure"]["records"] > 0
    assert "running" in say("guest")


def test_world_shows_both_sides(say: Words) -> None:
    facts = say.json("world")
    (machine,) = facts["azure"]["machines"]
    assert machine["disks"] == {"os": "web01-os", "lun0": "web01-lun0"}
    assert {one["name"] for one in facts["hyperv"]["machines"]} == {"web01", "mover01"}
    assert "Production" in say("world")


def test_logs_show_the_end_of_what_a_process_wrote(say: Words) -> None:
    assert "worker polls failback.control" in say("logs", "control")


def test_a_directory_without_a_lab_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--dir", str(tmp_path / "none")]) == 1
    assert "There is no lab" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_every_word_has_help_and_the_whole_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for words in ("lab up", "lab kill mover", "misbehave", "lab down", "failback demo"):
        assert words in said
    for word in ("up", "down", "status", "env", "world", "guest", "behave", "rules", "demo"):
        with pytest.raises(SystemExit):
            main([word, "--help"])
        assert "--dir" in capsys.readouterr().out


def test_help_on_misbehaviour_explains_every_action(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["misbehave", "--help"])
    said = capsys.readouterr().out
    explained = said[said.index("actions:") :]
    for action in chaos.ACTIONS:
        assert f"  {action}" in explained or f", {action} " in explained
    for example in said[said.index("examples:") :].splitlines()[1:]:
        words = example.split("failback lab ", 1)
        if len(words) == 2:
            # Quotes are the shell's.
            parsed = parser().parse_args(words[1].replace("'GET blob'", "GET-blob").split())
            assert parsed.action in chaos.ACTIONS
