"""What an operator may write, and what is refused before anything is touched."""

import json

import pytest
import yaml

from models.errors import InvalidSpec, all_error_classes, error_class
from models.spec import FailbackSpec, SyncMode, parse_spec
from models.status import Phase
from models.units import human_duration, human_size, parse_duration, parse_size

MINIMAL = {
    "apiVersion": "failback/v1",
    "machine": "web01",
    "azure": {"subscription_id": "sub", "resource_group": "rg", "vm": "web01"},
    "on_premises": {"host": "hv01"},
    "mover": "mover01",
}


def text(**changes: object) -> str:
    """A spec as YAML with some fields changed."""
    return yaml.safe_dump({**MINIMAL, **changes})


def test_the_least_that_must_be_said_is_enough() -> None:
    spec = parse_spec(text())
    assert spec.workflow_id == "failback-web01"
    assert spec.on_premises_name == "web01"
    assert spec.sync.mode is SyncMode.DELTA
    assert [check.kind for check in spec.validation] == ["heartbeat"]


def test_two_specs_that_name_one_machine_clash_in_any_case() -> None:
    one = parse_spec(text())
    azure = {"subscription_id": "SUB", "resource_group": "RG", "vm": "WEB01"}
    elsewhere = {"host": "hv02", "vm": "other"}
    assert "RG/WEB01" in parse_spec(
        text(machine="app", azure=azure, on_premises=elsewhere)
    ).clash_with(one)
    other_vm = {**azure, "vm": "app"}
    same_target = {"host": "HV01", "vm": "Web01"}
    assert "Web01 on HV01" in parse_spec(
        text(machine="app", azure=other_vm, on_premises=same_target)
    ).clash_with(one)
    assert not parse_spec(text(machine="app", azure=other_vm, on_premises=elsewhere)).clash_with(
        one
    )


def test_sizes_and_durations_are_taken_as_people_write_them() -> None:
    spec = parse_spec(text(sync={"bandwidth_limit": "200Mbit/s", "interval": "1h30m"}))
    assert spec.sync.bandwidth_limit == 25_000_000
    assert spec.sync.interval == 5400


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("machine: [", "not YAML"),
        ("- a list", "no mapping"),
        (text(machin="typo"), "machin"),
        (text(machine="../etc"), "machine"),
        (text(sync={"interval": "soon"}), "soon"),
        (text(sync={"interval": "10ms"}), "at least 1s"),
        (text(sync={"extent": "3KiB"}), "extent"),
        (text(run_failover={"at": "2026-12-01T02:00:00"}), "time zone"),
        (text(validation=[{"kind": "ping"}]), "ping"),
        (text(on_premises={"host": "h", "location": "alternate"}), "storage_path"),
        (text(commit={"approvers": 3}), "approvers"),
    ],
)
def test_a_wrong_spec_is_refused_and_says_which_field(document: str, said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        parse_spec(document)


def test_the_schema_describes_every_field_of_the_top_level() -> None:
    schema = FailbackSpec.model_json_schema()
    assert set(schema["properties"]) >= {"apiVersion", "machine", "azure", "on_premises", "mover"}
    json.dumps(schema)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [cls.code for cls in all_error_classes()]
    assert len(codes) == len(set(codes))
    assert all(code.startswith("FB-") for code in codes)
    assert all(error_class(cls.code) is cls for cls in all_error_classes())


def test_phases_are_in_the_order_of_the_life_cycle() -> None:
    order = ["preflight", "preparing", "syncing", "ready", "shutting_down", "final_sync"]
    assert [phase.value for phase in Phase][:6] == order
    assert Phase.COMMITTING.position > Phase.COMMIT_PENDING.position


@pytest.mark.parametrize(
    ("typed", "size"), [("1KiB", 1024), ("1.5 GiB/s", 1610612736), ("8Mbit/s", 10**6), (7, 7)]
)
def test_sizes(typed: object, size: int) -> None:
    assert parse_size(typed) == size


@pytest.mark.parametrize(("typed", "seconds"), [("90s", 90), ("1h30m", 5400), ("500ms", 0.5)])
def test_durations(typed: str, seconds: float) -> None:
    assert parse_duration(typed) == seconds


def test_people_see_sizes_and_durations_in_their_words() -> None:
    assert human_size(1536) == "1.5 KiB"
    assert human_size(3 * 2**40) == "3.0 TiB"
    assert human_duration(4.24) == "4.2 s"
    assert human_duration(3720) == "1 h 02 min"
