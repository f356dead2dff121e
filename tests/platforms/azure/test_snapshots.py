"""Snapshots are made once, belong to a run by tag, and go only with that tag."""

from __future__ import annotations

import threading

import pytest

from models.errors import (
    AzureConflict,
    AzureFailed,
    AzureThrottled,
    FailbackError,
    Stopped,
)
from platforms.azure import AzurePlatform
from platforms.base import Call
from tests.platforms.azure.cloud import RUN, TAGS, Cloud, Memory, machine_of, take

SNAPSHOTS = "Microsoft.Compute/snapshots"


def test_all_disks_are_snapshotted_incrementally_and_tagged(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("tagged")
    machine = machine_of(platform, source)

    taken = take(platform, source, machine, "r1")

    assert list(taken) == ["os", "lun0"]
    by_id = {disk.disk_id: disk for disk in machine.disks}
    for snapshot in taken.values():
        found = cloud.state()["resources"][snapshot.resource_id.lower()]["body"]
        assert found["tags"] == TAGS
        assert found["properties"]["incremental"] is True
        assert snapshot.disk_unique_id == by_id[snapshot.disk_id].unique_id
        assert snapshot.size_bytes == by_id[snapshot.disk_id].size_bytes


def test_asking_again_makes_no_second_snapshot(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("again")
    machine = machine_of(platform, source)
    first = take(platform, source, machine, "r1")
    puts = cloud.count("snapshots.createOrUpdate")

    assert take(platform, source, machine, "r1") == first
    assert puts() == 0


def test_a_foreign_snapshot_of_the_name_is_not_used(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("foreign")
    machine = machine_of(platform, source)
    take(platform, source, machine, "r1")
    names = {disk.disk_id: f"{disk.name}-r1" for disk in machine.disks}

    with pytest.raises(AzureConflict, match="not this run's"):
        platform.take_snapshots(source, machine, names, {"failback-run": "run-2"}, Call())


def test_a_replaced_disk_is_not_snapshotted(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("replaced")
    machine = machine_of(platform, source)
    old = machine.disks[0].model_copy(update={"unique_id": "another"})
    changed = machine.model_copy(update={"disks": [old]})

    with pytest.raises(AzureConflict, match="replaced"):
        platform.take_snapshots(source, changed, {"os": "replaced-r1"}, TAGS, Call())
    assert "replaced-r1" not in cloud.names(SNAPSHOTS)


def test_the_rate_limit_is_throttling_with_a_time_to_wait(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("rated")
    machine = machine_of(platform, source)

    with (
        cloud.misbehaving(operation="snapshots.createOrUpdate", action="throttle", retry_after=17),
        pytest.raises(AzureThrottled) as refusal,
    ):
        take(platform, source, machine, "r1")

    assert vars(refusal.value)["retry_after_seconds"] == 17.0
    assert refusal.value.retryable


def test_a_failed_snapshot_operation_says_what_azure_said(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("failing")
    machine = machine_of(platform, source)
    memory = Memory()
    names = {"os": "failing-os-r1"}

    with (
        cloud.misbehaving(
            operation="snapshots.createOrUpdate", action="lro_fail", code="SnapshotBroke", times=1
        ),
        pytest.raises(AzureFailed, match="SnapshotBroke"),
    ):
        platform.take_snapshots(source, machine, names, TAGS, memory.call())

    assert memory.tokens == {}
    assert platform.take_snapshots(source, machine, names, TAGS, memory.call())


def test_a_stopped_call_keeps_its_tokens_and_the_next_one_resumes(cloud: Cloud) -> None:
    platform = cloud.platform()
    source = cloud.seed("stopped")
    machine = machine_of(platform, source)
    memory, stop = Memory(), threading.Event()
    stop.set()
    puts = cloud.count("snapshots.createOrUpdate")
    names = {disk.disk_id: f"{disk.name}-r1" for disk in machine.disks}

    with pytest.raises(Stopped):
        platform.take_snapshots(source, machine, names, TAGS, memory.call(stop))
    assert memory.tokens

    taken = platform.take_snapshots(source, machine, names, TAGS, memory.call())
    assert len(taken) == 2
    assert puts() == 2
    assert memory.tokens == {}


def test_releasing_revokes_and_deletes_and_may_be_repeated(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("released")
    snapshots = list(take(platform, source, machine_of(platform, source), "r1").values())
    for snapshot in snapshots:
        with platform.open_snapshot(snapshot, None, Call()):
            pass

    platform.release_snapshots(snapshots, [], RUN, Call())
    assert not cloud.state()["grants"]
    assert {s.name for s in snapshots} <= cloud.names(SNAPSHOTS)

    for _ in range(2):
        platform.release_snapshots([], snapshots, RUN, Call())
    assert not {s.name for s in snapshots} & cloud.names(SNAPSHOTS)


def test_a_snapshot_that_is_still_granted_is_deleted_too(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("granted")
    snapshots = take(platform, source, machine_of(platform, source), "r1")
    with platform.open_snapshot(snapshots["os"], None, Call()):
        pass

    platform.release_snapshots([], [snapshots["os"]], RUN, Call())

    assert "granted-os-r1" not in cloud.names(SNAPSHOTS)


def test_a_foreign_snapshot_is_never_deleted_and_does_not_keep_the_others(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("mixed")
    machine = machine_of(platform, source)
    ours = take(platform, source, machine, "r1")
    other = platform.take_snapshots(
        source, machine, {"os": "mixed-os-other"}, {"failback-run": "run-2"}, Call()
    )

    with pytest.raises(AzureConflict, match="mixed-os-other"):
        platform.release_snapshots(other, [*other, *ours.values()], RUN, Call())

    left = cloud.names(SNAPSHOTS)
    assert "mixed-os-other" in left
    assert not {s.name for s in ours.values()} & left


def test_one_failure_does_not_keep_the_others_from_being_released(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("partly")
    snapshots = take(platform, source, machine_of(platform, source), "r1")

    with (
        cloud.misbehaving(
            operation="snapshots.delete", resource="*partly-os-r1", action="fail", status=500
        ),
        pytest.raises(FailbackError) as failure,
    ):
        platform.release_snapshots([], list(snapshots.values()), RUN, Call())

    assert "partly-os-r1" in failure.value.message
    assert failure.value.retryable
    assert "partly-os-r1" in cloud.names(SNAPSHOTS)
    assert "partly-data-r1" not in cloud.names(SNAPSHOTS)
