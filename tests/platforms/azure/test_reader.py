"""Ranges come whole, in order and without the footer, whatever the windows and pages are; a grant
is renewed once, and its secret shows nowhere."""

from __future__ import annotations

import itertools
import logging
import random
import re
import ssl
import threading
import traceback
import urllib.request

import pytest

from models.errors import (
    AzureNotFound,
    AzureThrottled,
    BaseUnavailable,
    FailbackError,
    SourceDenied,
    SourceUnavailable,
    Stopped,
)
from models.machine import Snapshot
from models.spec import AzureMachineRef
from platforms.azure import AzurePlatform
from platforms.base import Call, SourceRange
from tests.platforms.azure.cloud import (
    DISK_BYTES,
    GROUP,
    MIB,
    RUN,
    SUBSCRIPTION,
    Cloud,
    machine_of,
    take,
)
from tests.waiting import wait_until

PAGE = 4096  # the emulator's holes have the granularity of its file system
SIGNATURE = re.compile(r"sig(=|%3D)(?!REDACTED)", re.IGNORECASE)


def _pair(cloud: Cloud, platform: AzurePlatform, name: str) -> tuple[Snapshot, Snapshot]:
    """Two snapshots of a disk; between them 1 MiB at 1 MiB was written, 64 KiB at 5 MiB cleared."""
    source = cloud.seed(name)
    machine = machine_of(platform, source)
    cloud.write(f"{name}-os", 4 * MIB, b"x" * 2 * MIB)
    base = take(platform, source, machine, "r1")["os"]
    cloud.write(f"{name}-os", MIB, b"y" * MIB)
    cloud.clear(f"{name}-os", 5 * MIB, 65536)
    return base, take(platform, source, machine, "r2")["os"]


def test_allocated_ranges_are_what_was_written(cloud: Cloud, platform: AzurePlatform) -> None:
    _, snapshot = _pair(cloud, platform, "allocated")
    with platform.open_snapshot(snapshot, None, Call()) as reader:
        assert reader.size_bytes == DISK_BYTES
        found = list(reader.allocated())
    assert found == [
        SourceRange(MIB, MIB, False),
        SourceRange(4 * MIB, MIB, False),
        SourceRange(5 * MIB + 65536, MIB - 65536, False),
    ]


def test_changed_ranges_are_written_and_cleared_ones(cloud: Cloud, platform: AzurePlatform) -> None:
    base, snapshot = _pair(cloud, platform, "changed")
    with platform.open_snapshot(snapshot, base, Call()) as reader:
        found = list(reader.changed())
    assert found == [SourceRange(MIB, MIB, False), SourceRange(5 * MIB, 65536, True)]


@pytest.mark.parametrize(("window", "results"), [(PAGE, 10_000), (65536, 1), (8 * MIB, 3)])
def test_windows_and_pages_do_not_show(cloud: Cloud, window: int, results: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    usual = cloud.platform()
    small = cloud.platform(page_range_window_bytes=window, page_range_results=results)
    size = 2 * MIB
    name = f"windows-{window}-{results}"
    source = cloud.seed(name, disks=[{"os": True, "name": f"{name}-os", "size_bytes": size}])
    machine = machine_of(usual, source)
    base = take(usual, source, machine, "r1")["os"]
    pages = {page: chance.random() < 0.3 for page in chance.sample(range(size // PAGE), 60)}
    for page, cleared in pages.items():
        if cleared:
            cloud.clear(f"{name}-os", page * PAGE, PAGE)
        else:
            cloud.write(f"{name}-os", page * PAGE, b"z" * PAGE)
    snapshot = take(usual, source, machine, "r2")["os"]

    with small.open_snapshot(snapshot, base, Call()) as reader:
        changed, allocated = list(reader.changed()), list(reader.allocated())

    written = {page: False for page, cleared in pages.items() if not cleared}
    assert _pages(changed, cleared=False) == written
    assert _pages(changed, cleared=True).keys() <= {p for p, cleared in pages.items() if cleared}
    assert _pages(allocated, cleared=False) == written
    for ranges in (changed, allocated):
        for left, right in itertools.pairwise(ranges):
            end = left.offset + left.length
            assert end < right.offset or (end == right.offset and left.cleared != right.cleared)


def _pages(ranges: list[SourceRange], *, cleared: bool) -> dict[int, bool]:
    return {
        page: cleared
        for found in ranges
        if found.cleared is cleared
        for page in range(found.offset // PAGE, (found.offset + found.length) // PAGE)
    }


def test_the_url_reads_the_disk(cloud: Cloud, platform: AzurePlatform) -> None:
    _, snapshot = _pair(cloud, platform, "readable")
    with platform.open_snapshot(snapshot, None, Call()) as reader:
        headers = {"Range": f"bytes={MIB}-{MIB + 15}", "x-ms-version": "2023-11-03"}
        request = urllib.request.Request(reader.url(renew=False), headers=headers)
        context = ssl.create_default_context(cafile=reader.ca_file)
        with urllib.request.urlopen(request, context=context) as answer:
            assert answer.read() == b"y" * 16
        assert "sig" not in repr(reader)


def test_the_grant_outlives_the_reader(cloud: Cloud, platform: AzurePlatform) -> None:
    _, snapshot = _pair(cloud, platform, "outlives")
    with platform.open_snapshot(snapshot, None, Call()) as reader:
        first = reader.url(renew=False)
    with platform.open_snapshot(snapshot, None, Call()) as reader:
        assert reader.url(renew=False) == first


def test_a_grant_about_to_end_is_renewed(cloud: Cloud) -> None:
    platform = cloud.platform(sas_duration_seconds=1)
    base, snapshot = _pair(cloud, cloud.platform(), "ending")
    grants = cloud.count("snapshots.beginGetAccess", "*ending-os-r2/*")
    with platform.open_snapshot(snapshot, base, Call()) as reader:
        wait_until(lambda: reader.url(renew=False) and grants() > 1, 5, interval=0.1)


def test_many_readers_refused_at_once_share_one_renewal(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    _, snapshot = _pair(cloud, platform, "crowd")
    barrier = threading.Barrier(6)
    with platform.open_snapshot(snapshot, None, Call()) as reader:
        with cloud.misbehaving(operation="snapshots.beginGetAccess", action="delay", seconds=0.5):

            def renew() -> None:
                barrier.wait(10)
                reader.url(renew=True)

            before = _granted(cloud)
            threads = [threading.Thread(target=renew) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert _granted(cloud) - before == 1


def _granted(cloud: Cloud) -> int:
    operations = cloud.state()["operations"].values()
    return sum(1 for o in operations if o["kind"] == "snapshots.beginGetAccess")


def test_a_grant_revoked_in_mid_listing_is_renewed(cloud: Cloud) -> None:
    platform = cloud.platform(page_range_results=1)
    base, snapshot = _pair(cloud, platform, "revoked")
    for operation in ("GET pagelist", "GET pagelist-diff"):
        with cloud.misbehaving(operation=operation, action="revoke_sas", skip=1, times=1):
            with platform.open_snapshot(snapshot, base, Call()) as reader:
                found = list(reader.changed() if "diff" in operation else reader.allocated())
            assert len(found) == (2 if "diff" in operation else 3)


def test_a_base_whose_grant_was_revoked_is_granted_again(cloud: Cloud) -> None:
    platform = cloud.platform(page_range_results=1)
    base, snapshot = _pair(cloud, platform, "regrant")
    with platform.open_snapshot(snapshot, base, Call()) as reader:
        ranges = reader.changed()
        next(ranges)
        platform.release_snapshots([base], [], RUN, Call())
        assert list(ranges) == [SourceRange(5 * MIB, 65536, True)]


def test_a_grant_refused_again_after_renewal_is_denied(
    cloud: Cloud, platform: AzurePlatform, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    base, snapshot = _pair(cloud, platform, "denied")
    with (
        cloud.misbehaving(operation="GET pagelist*", action="revoke_sas"),
        platform.open_snapshot(snapshot, base, Call()) as reader,
    ):
        for listing in (reader.allocated, reader.changed):
            with pytest.raises(SourceDenied) as refusal:
                list(listing())
            _shows_no_secret(refusal.value, reader.url(renew=False))
    assert any("pagelist" in record.getMessage() for record in caplog.records)
    _logs_no_secret(caplog)


def test_nothing_that_fails_shows_the_secret(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    platform = cloud.platform(backoff_seconds=0.2)
    base, snapshot = _pair(cloud, platform, "secret")
    for rule in (
        {"action": "drop"},
        {"action": "fail", "status": 500},
        {"action": "fail", "status": 400, "code": "InvalidHeaderValue"},
        {"action": "throttle"},
    ):
        with (
            cloud.misbehaving(operation="GET pagelist*", **rule),
            platform.open_snapshot(snapshot, base, Call()) as reader,
        ):
            for listing in (reader.allocated, reader.changed):
                with pytest.raises(FailbackError) as failure:
                    list(listing())
                _shows_no_secret(failure.value, reader.url(renew=False))
    _logs_no_secret(caplog)


def _shows_no_secret(error: BaseException, url: str) -> None:
    text = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
    seen: BaseException | None = error
    while seen is not None:
        text += f"{seen!r}{seen}"
        seen = seen.__cause__ or seen.__context__
    assert not SIGNATURE.search(text)
    assert url.partition("sig=")[2] not in text


def _logs_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    assert not SIGNATURE.search(caplog.text)
    for record in caplog.records:
        assert not SIGNATURE.search(f"{record.getMessage()} {record.args} {record.__dict__}")


def test_a_busy_storage_is_waited_for_within_bounds(cloud: Cloud) -> None:
    platform = cloud.platform()
    base, snapshot = _pair(cloud, platform, "busy")
    rule = {"operation": "GET pagelist*", "action": "throttle", "retry_after": 1}
    with platform.open_snapshot(snapshot, base, Call()) as reader:
        with cloud.misbehaving(**rule, times=1):
            assert len(list(reader.changed())) == 2
    hurried = cloud.platform(backoff_seconds=0.1)
    with cloud.misbehaving(**rule), hurried.open_snapshot(snapshot, base, Call()) as reader:
        with pytest.raises(AzureThrottled) as refusal:
            list(reader.changed())
    assert vars(refusal.value)["retry_after_seconds"] == 1.0


def test_a_listing_that_takes_storage_too_long_asks_about_less(cloud: Cloud) -> None:
    platform = cloud.platform(page_range_results=1)
    size = 6 * 2**30
    source = cloud.seed("huge", disks=[{"os": True, "name": "huge-os", "size_bytes": size}])
    machine = machine_of(platform, source)
    base = take(platform, source, machine, "r1")["os"]
    written = [0, 2**30 - 4096, 3 * 2**30, size - 4096]
    for offset in written:
        cloud.write("huge-os", offset, b"w" * 4096)
    snapshot = take(platform, source, machine, "r2")["os"]
    for skip in range(5):
        with cloud.misbehaving(
            operation="GET pagelist*",
            action="fail",
            status=500,
            code="OperationTimedOut",
            skip=skip,
            times=2,
        ):
            with platform.open_snapshot(snapshot, base, Call()) as reader:
                found = list(reader.changed())
            assert found == [SourceRange(offset, 4096, False) for offset in written]


def test_a_silent_storage_is_unavailable(cloud: Cloud) -> None:
    platform = cloud.platform(backoff_seconds=0.1)
    _, snapshot = _pair(cloud, platform, "silent")
    with (
        cloud.misbehaving(operation="GET pagelist*", action="drop"),
        platform.open_snapshot(snapshot, None, Call()) as reader,
        pytest.raises(SourceUnavailable),
    ):
        list(reader.allocated())


def test_waiting_for_storage_ends_when_told_to_stop(cloud: Cloud, platform: AzurePlatform) -> None:
    _, snapshot = _pair(cloud, platform, "halted")
    call = Call()
    with (
        cloud.misbehaving(operation="GET pagelist*", action="throttle", retry_after=2),
        platform.open_snapshot(snapshot, None, call) as reader,
    ):
        timer = threading.Timer(0.2, call.stop.set)
        timer.start()
        with pytest.raises(Stopped):
            list(reader.allocated())


def test_a_base_that_is_gone_makes_the_delta_unavailable(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    base, snapshot = _pair(cloud, platform, "baseless")
    platform.release_snapshots([], [base], RUN, Call())
    with platform.open_snapshot(snapshot, base, Call()) as reader:
        with pytest.raises(BaseUnavailable, match="gone"):
            list(reader.changed())
        assert list(reader.allocated())


def test_a_base_deleted_in_mid_listing_makes_the_delta_unavailable(cloud: Cloud) -> None:
    platform = cloud.platform(page_range_results=1)
    base, _ = _pair(cloud, platform, "vanishing")
    cloud.write("vanishing-os", 7 * MIB, b"later")
    source = AzureMachineRef(subscription_id=SUBSCRIPTION, resource_group=GROUP, vm="vanishing")
    snapshot = take(platform, source, machine_of(platform, source), "r3")["os"]
    with platform.open_snapshot(snapshot, base, Call()) as reader:
        ranges = reader.changed()
        next(ranges)
        platform.release_snapshots([base], [base], RUN, Call())
        with pytest.raises(BaseUnavailable):
            list(ranges)


@pytest.mark.parametrize(
    "code",
    [
        "PreviousSnapshotNotFound",
        "PreviousSnapshotOperationNotSupported",
        "BlobGenerationMismatch",
        "BlobOverwritten",
    ],
)
def test_what_azure_cannot_compare_makes_the_delta_unavailable(
    cloud: Cloud, platform: AzurePlatform, code: str
) -> None:
    base, snapshot = _pair(cloud, platform, f"code-{code.lower()}")
    with (
        cloud.misbehaving(operation="GET pagelist-diff", action="fail", status=409, code=code),
        platform.open_snapshot(snapshot, base, Call()) as reader,
        pytest.raises(BaseUnavailable, match=code),
    ):
        list(reader.changed())


def test_a_newer_base_another_disk_or_size_make_the_delta_unavailable(
    cloud: Cloud, platform: AzurePlatform
) -> None:
    base, snapshot = _pair(cloud, platform, "wrongbase")
    other_disk = base.model_copy(update={"disk_unique_id": "another"})
    other_size = base.model_copy(update={"size_bytes": base.size_bytes // 2})
    with platform.open_snapshot(base, snapshot, Call()) as reader:
        with pytest.raises(BaseUnavailable, match="PreviousSnapshotCannotBeNewer"):
            list(reader.changed())
    for wrong in (other_disk, other_size, None):
        with platform.open_snapshot(snapshot, wrong, Call()) as reader:
            with pytest.raises(BaseUnavailable):
                reader.changed()


def test_a_snapshot_that_is_gone_is_not_found(cloud: Cloud, platform: AzurePlatform) -> None:
    _, snapshot = _pair(cloud, platform, "nosnapshot")
    platform.release_snapshots([], [snapshot], RUN, Call())
    with pytest.raises(AzureNotFound), platform.open_snapshot(snapshot, None, Call()):
        pass
