"""The other deployment files: unit files, the image, the mover's device rules, the Azure role and
the example configuration, each checked by the program or the code that will read it."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from platforms.azure.permissions import MACHINE_ACTIONS, OPTIONAL_ACTIONS, SNAPSHOT_ACTIONS
from worker.settings import WorkerSettings, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PACKAGES = ("models", "workflows", "activities", "platforms", "transfer", "worker", "starter")


def _settings(unit: Path) -> Iterator[tuple[str, str]]:
    text = unit.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if "=" in line and not line.startswith(("#", " ")):
            key, _, value = line.partition("=")
            yield key, value


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_restarts_and_is_confined(unit: Path) -> None:
    settings = dict(_settings(unit))
    assert settings["Restart"] == "always"
    assert settings["NoNewPrivileges"] == "yes"
    assert settings["ProtectSystem"] == "strict"
    assert settings["WantedBy"] == "multi-user.target"
    assert settings["ExecStart"].startswith("/opt/failback/.venv/bin/")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_holds_for_systemd(unit: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return  # this machine runs no systemd; the test above has read the unit
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # The program is installed by the operator, not here.
    told = [
        line
        for line in done.stderr.splitlines()
        if unit.name.split("@")[0].removesuffix(".service") in line
        and "is not executable" not in line
    ]
    assert told == []


def test_embedded_server_listens_on_loopback_and_keeps_a_month() -> None:
    settings = dict(_settings(DEPLOY / "systemd" / "failback-temporal.service"))
    assert "--ip 127.0.0.1" in settings["ExecStart"]
    assert "--db-filename" in settings["ExecStart"]
    assert "--retention 720h" in settings["ExecStartPost"]


def test_image_is_built_from_the_lock_file_and_every_package() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert text.count("FROM python:3.11-slim") == 2
    assert "--constraints requirements.lock" in text
    assert re.search(r"^USER failback$", text, re.MULTILINE)
    for package in PACKAGES:
        assert f"COPY {package} {package}\n" in text
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {f"!{package}" for package in PACKAGES} <= set(ignored)
    assert not any(line.startswith("!deploy") for line in ignored)


def test_every_script_is_sound_shell() -> None:
    scripts = [*(DEPLOY / "temporal").glob("*.sh"), DEPLOY / "udev" / "failback-identity"]
    for script in scripts:
        subprocess.run(["sh", "-n", str(script)], timeout=30, check=True)


# --- the mover's device rules ----------------------------------------------------------------


def test_slot_rules_make_the_names_that_the_hypervisor_side_expects() -> None:
    """`scsi-<controller>-<location>`, as platforms.hyperv.attach names a slot."""
    rules = (DEPLOY / "udev" / "70-failback-slots.rules").read_text()
    slot = re.search(r'SYMLINK\+="failback/(scsi-[^"]+)"', rules)
    assert slot is not None
    assert slot[1].replace("$env{FAILBACK_CONTROLLER}", "0").replace("%c", "3") == "scsi-0-3"
    program = re.search(r"PROGRAM=\"/bin/sh -c '(.+?)'\"", rules)
    assert program is not None
    # udev puts the kernel's name of the SCSI device for %b and one dollar for two.
    line = program[1].replace("%b", "2:0:0:17").replace("$$", "$")
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "17"


@pytest.mark.parametrize("name", ["70-failback-slots.rules", "71-failback-identities.rules"])
def test_rules_say_that_they_were_not_seen_on_a_real_host(name: str) -> None:
    rules = (DEPLOY / "udev" / name).read_text()
    assert "Not verified on a real Hyper-V host" in " ".join(rules.replace("#", "").split())
    labels = set(re.findall(r'LABEL="(\w+)"', rules))
    assert set(re.findall(r'GOTO="(\w+)"', rules)) <= labels


def test_identity_is_the_disk_identifier_of_the_hypervisor(tmp_path: Path) -> None:
    identifier = "aabbccdd-eeff-1122-0102-030405060708"
    page = tmp_path / "vpd_pg83"
    raw = bytes.fromhex("ddccbbaa" + "ffee" + "2211" + "0102030405060708")
    page.write_bytes(b"\x00\x83\x00\x1c\x01\x01\x00\x18MSFT    " + raw)
    program = str(DEPLOY / "udev" / "failback-identity")
    done = subprocess.run([program, str(page)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == identifier.replace("-", "")
    page.write_bytes(b"\x00\x83\x00\x04\x01\x01\x00\x00")
    assert subprocess.run([program, str(page)], check=False).returncode == 1


# --- Azure and the workers -------------------------------------------------------------------


def test_role_allows_exactly_what_preflight_asks_for() -> None:
    role = json.loads((DEPLOY / "azure-role.json").read_text())
    assert sorted(role["Actions"]) == sorted(
        {*MACHINE_ACTIONS, *SNAPSHOT_ACTIONS, *OPTIONAL_ACTIONS}
    )
    assert role["NotActions"] == role["DataActions"] == role["NotDataActions"] == []
    assert role["AssignableScopes"]


def test_example_configuration_loads_as_workers_load_theirs() -> None:
    settings = load_settings(DEPLOY / "worker.example.toml")
    host = settings.hyperv["hv01"]
    assert host.endpoint == "https://hv01.example:5986/wsman"
    assert host.movers == {"mover01": "failback-mover01"}
    assert settings.mover == WorkerSettings().mover, "the example shows the defaults"
    assert settings.azure == WorkerSettings().azure
