"""The command line itself: help that teaches, exit statuses, one clear message per error."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.errors import all_error_classes
from models.spec import parse_spec
from starter import exits
from starter.main import app, run
from starter.options import read_spec
from tests.starter.conftest import BINARIES, failback, spec_text

COMMANDS = [
    *("check", "start", "list", "show", "watch", "run-failover", "commit", "abort", "retry"),
    *("pause", "resume", "limit", "verify", "report", "doctor", "schema", "backup", "restore"),
    *("worker", "demo", "lab"),
]


@dataclass
class Said:
    """What a command said, run inside this process: for what ends before it needs Temporal."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command line without a process of its own."""

    def call(*words: str) -> Said:
        status = run(words)
        return Said(status, *capsys.readouterr())

    return call


Here = Callable[..., Said]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("demo", "lab")])
def test_help_teaches_with_an_example_and_what_to_do_next(here: Here, command: str) -> None:
    text = here(command, "--help").stdout
    assert "Example:" in text
    assert f"failback {command}" in text
    assert "Next:" in text


def test_every_command_is_there_and_no_other() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert {name.replace("_", "-") for name in names} == set(COMMANDS)


def test_without_a_command_it_shows_its_help_and_the_exit_statuses() -> None:
    done = failback()
    assert done.returncode == 0
    assert "run-failover" in done.stdout
    for status in exits.MEANING:
        assert f"{status}: " in done.stdout


def test_every_exit_status_of_an_error_has_its_meaning_written_down() -> None:
    assert {error.exit_status for error in all_error_classes()} <= set(exits.MEANING)


def test_help_and_schema_do_not_load_temporal() -> None:
    code = (
        "import sys; from starter.main import run; run(['schema']); run(['--help']);"
        "sys.exit(any(name.startswith('temporalio') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_help_is_fast() -> None:
    began = time.monotonic()
    failback("--help")
    took = time.monotonic() - began
    # 0.3 s on an idle machine; the rest is for a busy one.
    assert took < 3, f"failback --help took {took:.2f} s"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not YAML"),
        ("- a list", "holds no mapping"),
        ("machine: a", "azure: Field required"),
        (spec_text("a", surprise=1), "surprise: Extra inputs are not permitted"),
        (spec_text("../../etc"), "machine: "),
        (spec_text("a", sync={"interval": "soon"}), "is not a duration"),
    ],
)
def test_a_wrong_spec_is_one_clear_message(
    here: Here, text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    done = here("start", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith("FB-SPEC: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_spec_that_is_not_there_or_not_text_is_one_clear_message(
    here: Here, tmp_path: Path
) -> None:
    assert "No such file" in here("check", str(tmp_path / "no.yaml")).stderr
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "it is not text" in here("check", str(binary)).stderr
    for command in ("check", "doctor"):
        assert here(command, str(tmp_path)).returncode == 2


def test_errors_are_json_too() -> None:
    done = failback("check", "-", "--json", stdin="machine: 1")
    error = json.loads(done.stdout)["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["code"] == "FB-SPEC"
    assert done.returncode == 2
    usage = failback("show", "--json")
    assert json.loads(usage.stdout)["error"]["code"] == "FB-USAGE"
    assert usage.returncode == 2


def test_a_spec_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, spec_text("app01").encode())
    os.close(writing)
    with os.fdopen(reading) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert read_spec("-").machine == "app01"


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["show", "app01"],
        ["watch", "app01"],
        ["report", "app01"],
        ["pause", "app01"],
        ["pause", "app01", "--signal"],
        ["commit", "app01", "--yes"],
        ["verify", "app01"],
    ],
)
def test_a_server_that_does_not_answer_is_one_clear_message(words: list[str]) -> None:
    done = failback(*words)
    assert done.returncode == 6
    assert done.stderr.startswith("FB-UNREACHABLE: Temporal does not answer at 127.0.0.1:1")
    assert "TEMPORAL_ADDRESS" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_profile_is_a_configuration_error() -> None:
    environment = {**os.environ, "TEMPORAL_PROFILE": "nowhere", "TEMPORAL_CONFIG_FILE": "/dev/null"}
    done = subprocess.run(
        [str(BINARIES / "failback"), "list"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("FB-CONFIG: ")


def test_commit_without_a_person_needs_yes(here: Here) -> None:
    done = here("commit", "app01")
    assert done.returncode == 2
    assert "--yes" in done.stderr


@pytest.mark.parametrize("rate", ["fast", "0", "-5", "MiB"])
def test_a_wrong_rate_is_refused(here: Here, rate: str) -> None:
    assert here("limit", "app01", "--", rate).returncode == 2


def test_completion_can_be_installed_and_proposes_commands() -> None:
    done = subprocess.run(
        [str(BINARIES / "failback")],
        env={
            **os.environ,
            "COMP_WORDS": "failback run",
            "COMP_CWORD": "1",
            "_FAILBACK_COMPLETE": "complete_bash",
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["run-failover"]
    assert done.returncode == 0
    assert "--install-completion" in failback("--help").stdout


def test_completion_of_machines_without_a_server_proposes_nothing() -> None:
    environment = {
        **os.environ,
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
        "COMP_WORDS": "failback watch a",
        "COMP_CWORD": "2",
        "_FAILBACK_COMPLETE": "complete_bash",
    }
    done = subprocess.run(
        [str(BINARIES / "failback")], env=environment, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_the_schema_is_a_schema_and_accepts_what_the_parser_accepts(tmp_path: Path) -> None:
    schema = tmp_path / "spec.schema.json"
    schema.write_text(failback("schema", "spec").stdout)
    good, wrong = tmp_path / "good.yaml", tmp_path / "wrong.yaml"
    good.write_text(spec_text("app01", sync={"interval": "5m", "bandwidth_limit": "100MiB/s"}))
    wrong.write_text(spec_text("app01", surprise=1))
    parse_spec(good.read_text())
    tool = str(BINARIES / "check-jsonschema")
    assert subprocess.run([tool, "--check-metaschema", str(schema)]).returncode == 0
    assert subprocess.run([tool, "--schemafile", str(schema), str(good)]).returncode == 0
    assert subprocess.run([tool, "--schemafile", str(schema), str(wrong)]).returncode == 1
    assert json.loads(schema.read_text())["$id"] == "urn:failback:spec:v1"


def test_every_field_of_the_schema_is_described(here: Here) -> None:
    schema = json.loads(here("schema").stdout)
    bare = [
        f"{owner}.{name}"
        for owner, model in {"spec": schema, **schema["$defs"]}.items()
        for name, value in model.get("properties", {}).items()
        if "description" not in value and "$ref" not in value and "const" not in value
    ]
    # Health checks and sections say what they are by the description of their own type.
    assert all("Check." in name or name == "spec.validation" for name in bare), bare


def test_no_schema_of_anything_else(here: Here) -> None:
    assert here("schema", "status").returncode == 2


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    done = subprocess.run(
        f"{BINARIES / 'failback'} schema | head -1", shell=True, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


def test_a_message_that_is_too_long_is_one_clear_message(here: Here) -> None:
    done = here("pause", "app01", "--reason", "x" * 3000)
    assert done.returncode == 2
    assert "--reason: " in done.stderr


def test_the_labs_help_comes_from_the_lab_itself() -> None:
    for words in (["lab", "--help"], ["lab"]):
        shown = failback(*words)
        assert shown.returncode == 0
        assert "failback lab up" in shown.stdout
        assert "misbehave" in shown.stdout


def test_the_demos_help_teaches_and_lists_the_options_of_the_lab() -> None:
    shown = failback("demo", "--help")
    assert shown.returncode == 0
    assert "Example:" in shown.stdout
    assert shown.stdout.count("--interactive") >= 2


def test_the_labs_exit_status_is_passed_on() -> None:
    assert failback("lab", "nonsense").returncode == 2


def test_a_worker_gets_its_own_options() -> None:
    own = failback("worker", "mover", "--help")
    assert own.returncode == 0
    assert "--name" in own.stdout
    assert failback("worker", "nonsense").returncode == 2
