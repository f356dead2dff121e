"""The mover's own preflight checks: each says no once, with its own code."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.core.credentials import AccessToken
from temporalio.testing import ActivityEnvironment

from activities.mover import MoverActivities, MoverOptions
from models.calls import InspectInput
from models.machine import CheckResult, Verdict
from models.spec import AzureMachineRef, FailbackSpec, OnPremisesTarget
from platforms.azure import AzurePlatform, AzureSettings

SPEC = FailbackSpec(
    machine="web01",
    azure=AzureMachineRef(subscription_id="sub", resource_group="rg", vm="web01"),
    on_premises=OnPremisesTarget(host="hv01"),
    mover="mover01",
)


class SomeToken:
    """A credential, so that nobody is asked for one."""

    def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
        """A token for nobody."""
        return AccessToken("token", 2**33)


async def checks(state_dir: Path, device_dir: Path) -> dict[str, CheckResult]:
    """The failed checks of a mover, by code. Nothing listens where it looks for Azure."""
    nowhere = AzureSettings(base_url="https://127.0.0.1:1", connection_timeout_seconds=1)
    options = MoverOptions(
        name="mover01",
        state_dir=state_dir,
        device_dir=device_dir,
        device_timeout=1,
        threads=1,
        in_flight_bytes=2**20,
        lock_timeout=1,
    )
    mover = MoverActivities(AzurePlatform(nowhere, SomeToken()), options)
    asked = InspectInput(spec=SPEC, run_id="r")
    found = await ActivityEnvironment().run(mover.inspect, asked)
    return {check.code: check for check in found.checks if check.verdict is Verdict.FAILED}


async def test_a_mover_that_cannot_keep_a_journal_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = await checks(tmp_path / "file" / "state", tmp_path)
    assert "Not a directory" in failed["FB-CHK-MOVER-STATE"].seen


async def test_a_mover_without_devices_says_so(tmp_path: Path) -> None:
    failed = await checks(tmp_path / "state", tmp_path / "none")
    assert "none" in failed["FB-CHK-MOVER-DEVICES"].seen


@pytest.mark.parametrize("devices", ["devices"])
async def test_a_mover_that_does_not_reach_azure_says_so(tmp_path: Path, devices: str) -> None:
    (tmp_path / devices).mkdir()
    failed = await checks(tmp_path / "state", tmp_path / devices)
    assert set(failed) == {"FB-CHK-MOVER-AZURE"}
    assert failed["FB-CHK-MOVER-AZURE"].advice
