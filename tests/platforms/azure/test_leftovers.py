"""Leftovers are found by tag, with the grants on them, and only what bears the tag is removed."""

from __future__ import annotations

from models.machine import Leftover
from platforms.azure import AzurePlatform
from platforms.base import Call
from tests.platforms.azure.cloud import RUN, Cloud, machine_of, take

SNAPSHOTS = "Microsoft.Compute/snapshots"


def test_snapshots_and_grants_of_runs_are_found_and_removed(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("left", group="left-rg")
    machine = machine_of(platform, source)
    snapshots = take(platform, source, machine, "r1")
    platform.take_snapshots(source, machine, {"os": "untagged"}, {"failback-run": "x"}, Call())
    with platform.open_snapshot(snapshots["os"], None, Call()):
        pass

    found = platform.leftovers(source)
    ours = [leftover for leftover in found if leftover.run_id == RUN]
    assert ours[0].kind == "disk-grant"
    assert sorted((leftover.kind, leftover.name) for leftover in ours) == [
        ("disk-grant", "left-os-r1"),
        ("snapshot", "left-data-r1"),
        ("snapshot", "left-os-r1"),
    ]
    assert {leftover.machine for leftover in ours} == {"web"}

    assert len(platform.remove_leftovers(source, ours, Call())) == 3
    left = platform.leftovers(source)
    assert [leftover.name for leftover in left] == ["untagged"]
    assert not cloud.state()["grants"]


def test_a_grant_alone_is_revoked_and_its_snapshot_stays(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("granted", group="granted-rg")
    snapshots = take(platform, source, machine_of(platform, source), "r1")
    with platform.open_snapshot(snapshots["os"], None, Call()):
        pass
    grants = [leftover for leftover in platform.leftovers(source) if leftover.kind == "disk-grant"]

    assert platform.remove_leftovers(source, grants, Call()) == grants
    assert "granted-os-r1" in cloud.names(SNAPSHOTS)
    assert not cloud.state()["grants"]


def test_what_bears_another_tag_by_now_is_left_alone(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("retagged", group="retagged-rg")
    take(platform, source, machine_of(platform, source), "r1")
    wrong = [
        leftover.model_copy(update={"run_id": run})
        for leftover in platform.leftovers(source)
        for run in ("run-2", "")
    ]

    assert platform.remove_leftovers(source, wrong, Call()) == []
    assert {"retagged-os-r1", "retagged-data-r1"} <= cloud.names(SNAPSHOTS)


def test_what_is_gone_already_counts_as_removed(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("vanished", group="vanished-rg")
    take(platform, source, machine_of(platform, source), "r1")
    found = platform.leftovers(source)
    platform.remove_leftovers(source, found, Call())
    assert platform.remove_leftovers(source, found, Call()) == found


def test_things_of_other_platforms_are_not_ours_to_remove(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    source = cloud.seed("elsewhere", group="elsewhere-rg")
    machine = Leftover(kind="machine", name="web", place="host1", run_id=RUN)
    assert platform.remove_leftovers(source, [machine], Call()) == []


def test_a_group_that_is_gone_has_no_leftovers(cloud: Cloud, platform: AzurePlatform) -> None:
    source = cloud.seed("nogroup", group="nogroup-rg")
    elsewhere = source.model_copy(update={"snapshot_resource_group": "never-there"})
    assert platform.leftovers(elsewhere) == []
