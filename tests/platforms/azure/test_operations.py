"""A long-running operation outlives the process that began it; a lost one is begun again."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from lab import chaos
from models.errors import AzureDenied, AzureThrottled, AzureUnavailable, FailbackError, Stopped
from platforms.azure import AzurePlatform
from tests.platforms.azure.cloud import QUICK, TAGS, Cloud, Memory, machine_of
from tests.waiting import wait_until

CALLER = """
import sys
from pathlib import Path
from models.spec import AzureMachineRef
from platforms.azure import AzurePlatform, AzureSettings
from tests.platforms.azure.cloud import Memory

url, scope, ca, subscription, group, vm, tokens = sys.argv[1:]
settings = AzureSettings(
    base_url=url, credential_scopes=(scope,), ca_file=ca, polling_interval_seconds=0.05
)
source = AzureMachineRef(subscription_id=subscription, resource_group=group, vm=vm)
AzurePlatform(settings).deallocate(source, Memory(Path(tokens)).call())
"""


def test_an_operation_is_resumed_after_its_caller_was_killed(cloud: Cloud, tmp_path: Path) -> None:
    source = cloud.seed("killed")
    tokens = tmp_path / "tokens.json"
    posts = cloud.count("virtualMachines.deallocate")
    # Polls hang, so that the operation cannot end before the caller does.
    hang = chaos.add(cloud.directory, {"operation": "operations.get", "action": "hang"})
    arguments = [
        cloud.ready["arm_url"],
        cloud.ready["credential_scope"],
        cloud.ready["ca_file"],
        source.subscription_id,
        source.resource_group,
        source.vm,
        str(tokens),
    ]
    caller = subprocess.Popen([sys.executable, "-c", CALLER, *arguments])
    wait_until(lambda: Memory(tokens).tokens, 30)
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    chaos.remove(cloud.directory, hang)

    memory = Memory(tokens)
    assert list(memory.tokens) == ["deallocate"]
    cloud.platform().deallocate(source, memory.call())

    assert cloud.platform().power_state(source) == "deallocated"
    assert posts() == 1
    assert memory.tokens == {}


def test_a_stopped_caller_leaves_the_token_and_another_resumes(cloud: Cloud) -> None:
    platform = cloud.platform()
    source = cloud.seed("handed", running=False)
    memory, stop = Memory(), threading.Event()
    posts = cloud.count("virtualMachines.start")
    with cloud.misbehaving(operation="operations.get", action="throttle", retry_after=30):
        timer = threading.Timer(0.5, stop.set)
        timer.start()
        with pytest.raises(Stopped):
            platform.start(source, memory.call(stop))
    assert list(memory.tokens) == ["start"]

    platform.start(source, memory.call())
    assert platform.power_state(source) == "running"
    assert posts() == 1


def test_a_kept_token_holds_no_credential(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("token")
    memory, stop = Memory(), threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        platform.deallocate(source, memory.call(stop))
    content = base64.b64decode(memory.tokens["deallocate"]).decode()
    assert "operations/" in content
    assert "bearer" not in content.lower()
    assert "authorization" not in content.lower()


def test_a_connection_cut_once_is_not_worth_an_error(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("cut")
    with cloud.misbehaving(operation="virtualMachines.instanceView", action="drop", times=1):
        assert platform.power_state(source) == "running"


def test_an_operation_azure_no_longer_knows_is_begun_again(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("forgotten")
    machine = machine_of(platform, source)
    for number, token in enumerate(("bm9uc2Vuc2U=", "not even base64 !", "")):
        memory = Memory()
        memory.tokens[f"take-snapshot/forgotten-{number}"] = token
        names = {"os": f"forgotten-{number}"}
        assert platform.take_snapshots(source, machine, names, TAGS, memory.call())


def test_a_poll_address_that_is_gone_begins_the_operation_again(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("expired")
    memory, stop = Memory(), threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        platform.deallocate(source, memory.call(stop))
    with cloud.misbehaving(
        operation="operations.get", action="fail", status=404, code="NotFound", times=1
    ):
        platform.deallocate(source, memory.call())
    assert platform.power_state(source) == "deallocated"
    assert memory.tokens == {}


def test_a_few_failed_polls_do_not_end_the_operation(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("shaky")
    posts = cloud.count("virtualMachines.deallocate")
    with cloud.misbehaving(operation="operations.get", action="fail", status=503, times=2):
        platform.deallocate(source, Memory().call())
    assert posts() == 1


def test_polls_that_keep_failing_end_the_attempt_and_keep_the_token(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    cases: list[tuple[dict[str, Any], type[FailbackError]]] = [
        ({"action": "fail"}, AzureUnavailable),
        ({"action": "drop"}, AzureUnavailable),
        ({"action": "throttle"}, AzureThrottled),
        ({"action": "fail", "status": 401, "code": "ExpiredAuthenticationToken"}, AzureDenied),
    ]
    for number, (rule, error) in enumerate(cases):
        source = cloud.seed(f"mute-{number}")
        memory = Memory()
        posts = cloud.count("virtualMachines.deallocate", f"*/mute-{number}/*")
        with cloud.misbehaving(operation="operations.get", retry_after=0, **rule):
            with pytest.raises(error):
                platform.deallocate(source, memory.call())
        assert list(memory.tokens) == ["deallocate"]
        platform.deallocate(source, memory.call())
        assert posts() == 1


def test_an_answer_lost_on_its_way_leaves_nothing_wrong(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("lostanswer")
    machine = machine_of(platform, source)
    names = {"os": "lostanswer-r1"}
    memory = Memory()
    with cloud.misbehaving(operation="snapshots.createOrUpdate", action="drop", when="after"):
        with pytest.raises(AzureUnavailable):
            platform.take_snapshots(source, machine, names, TAGS, memory.call())
    assert platform.take_snapshots(source, machine, names, TAGS, memory.call())


def test_a_throttled_begin_names_the_wait(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("throttled")
    with cloud.misbehaving(
        operation="virtualMachines.deallocate", action="throttle", retry_after=42
    ):
        with pytest.raises(AzureThrottled) as refusal:
            platform.deallocate(source, Memory().call())
    assert vars(refusal.value)["retry_after_seconds"] == 42.0


def test_an_operation_without_end_is_given_up_and_runs_on(cloud: Cloud) -> None:
    source = cloud.seed("endless")
    platform = cloud.platform(operation_seconds=0.1)
    with cloud.misbehaving(operation="operations.get", action="delay", seconds=1):
        with pytest.raises(AzureUnavailable, match="not done in time"):
            platform.deallocate(source, Memory().call())
    wait_until(lambda: platform.power_state(source) == "deallocated", 10)


def test_a_service_killed_in_mid_operation_is_found_again(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, latency={**QUICK["latency"], "vm": 1.0})
    cloud.start()
    try:
        platform = cloud.platform()
        source = cloud.seed("surviving")
        machine = machine_of(platform, source)
        memory = Memory()
        posts = cloud.count("virtualMachines.deallocate")

        def deallocate() -> bool:
            """One attempt, as an activity makes it; whether it was the last."""
            try:
                platform.deallocate(source, memory.call())
            except FailbackError as failure:
                failures.append(failure)
                return False
            return True

        failures: list[FailbackError] = []
        done = threading.Event()

        def attempts() -> None:
            wait_until(deallocate, 60)
            done.set()

        thread = threading.Thread(target=attempts)
        thread.start()
        wait_until(lambda: memory.tokens, 20)
        cloud.kill()
        cloud.start()
        assert done.wait(60)
        thread.join()
        assert all(failure.retryable for failure in failures), failures
        assert posts() == 1
        assert platform.power_state(source) == "deallocated"
        assert machine_of(platform, source).vm_id == machine.vm_id
    finally:
        cloud.stop()
