"""The whole way of a delta with the real SDKs: snapshots, signed URLs, page lists, ranged reads."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient

from tests.lab.azure.conftest import DISK_SIZE, GROUP, Cloud

KIB = 1024
FOOTER = {"start": DISK_SIZE, "end": DISK_SIZE + 511}


def pages(blob: BlobClient, base: str | None, **window: Any) -> tuple[list[Any], list[Any], int]:
    """All page and clear ranges, following markers; and how many requests that took."""
    ranges: list[Any] = []
    cleared: list[Any] = []
    marker: str | None = None
    requests = 0
    while requests == 0 or marker:
        listing = blob._client.page_blob.get_page_ranges_diff(
            snapshot=blob.snapshot, prev_snapshot_url=base, marker=marker, **window
        )
        ranges += [(r.start, r.end) for r in listing.page_range or []]
        cleared += [(r.start, r.end) for r in listing.clear_range or []]
        marker = listing.next_marker
        requests += 1
    return ranges, cleared, requests


def test_a_delta_goes_from_snapshot_to_bytes(cloud: Cloud) -> None:
    cloud.machine("delta")
    cloud.write("delta-data", 0, b"a" * 256 * KIB)
    cloud.snapshot("delta-1", "delta-data")
    cloud.write("delta-data", 64 * KIB, b"b" * 4096)
    cloud.write("delta-data", 8 * 1024 * KIB, b"c" * 512)
    cloud.clear("delta-data", 128 * KIB, 64 * KIB)
    cloud.snapshot("delta-2", "delta-data")
    cloud.write("delta-data", 0, b"later" * 100)

    base, current = cloud.grant("delta-1"), cloud.grant("delta-2")
    blob = cloud.blob(current)
    ranges, cleared = blob.get_page_range_diff_for_managed_disk(base)
    assert ranges == [
        {"start": 64 * KIB, "end": 68 * KIB - 1},
        {"start": 8 * 1024 * KIB, "end": 8 * 1024 * KIB + 511},
        FOOTER,
    ]
    assert cleared == [{"start": 128 * KIB, "end": 192 * KIB - 1}]

    assert blob.download_blob(64 * KIB - 2, 6).readall() == b"aabbbb"
    assert blob.download_blob(0, 5).readall() == b"aaaaa"
    assert blob.download_blob(128 * KIB, 4).readall() == bytes(4)
    assert cloud.blob(base).download_blob(128 * KIB, 4).readall() == b"aaaa"
    properties = blob.get_blob_properties()
    assert properties.size == DISK_SIZE + 512
    assert str(properties.blob_type) == "BlobType.PAGEBLOB"


def test_a_diff_is_paged_and_windowed(cloud: Cloud) -> None:
    cloud.machine("paged")
    cloud.snapshot("paged-1", "paged-data")
    offsets = [n * 128 * KIB for n in range(23)]
    for offset in offsets:
        cloud.write("paged-data", offset, b"x" * 512)
    cloud.snapshot("paged-2", "paged-data")
    base = cloud.grant("paged-1")
    blob = cloud.blob(cloud.grant("paged-2"))

    ranges, _, requests = pages(blob, base, maxresults=5)
    assert [start for start, _ in ranges] == [*offsets, DISK_SIZE]
    assert requests == 5
    ranges, _, _ = pages(blob, base, maxresults=2, range=f"bytes={128 * KIB}-{512 * KIB - 1}")
    assert [start for start, _ in ranges] == offsets[1:4]
    allocated, _, _ = pages(blob, None, maxresults=4)
    assert [start for start, _ in allocated] == [*offsets, DISK_SIZE]


def test_rewriting_the_same_bytes_is_a_change(cloud: Cloud) -> None:
    cloud.machine("same")
    cloud.write("same-data", 4096, b"s" * 4096)
    cloud.snapshot("same-1", "same-data")
    cloud.write("same-data", 4096, b"s" * 4096)
    cloud.snapshot("same-2", "same-data")
    base, current = cloud.grant("same-1"), cloud.grant("same-2")
    ranges, _ = cloud.blob(current).get_page_range_diff_for_managed_disk(base)
    assert ranges[0] == {"start": 4096, "end": 8191}


def refused(blob: BlobClient, base: str) -> tuple[int | None, Any]:
    with pytest.raises(HttpResponseError) as caught:
        blob.get_page_range_diff_for_managed_disk(base)
    return caught.value.status_code, getattr(caught.value, "error_code", None)


def test_a_diff_against_a_wrong_base_is_refused(cloud: Cloud) -> None:
    cloud.machine("base")
    for name, disk in [("base-1", "data"), ("base-2", "data"), ("base-os", "os")]:
        cloud.snapshot(name, f"base-{disk}")
    cloud.snapshot("base-full", "base-data", incremental=False)
    first, second = cloud.grant("base-1"), cloud.grant("base-2")
    blob = cloud.blob(second)
    assert refused(cloud.blob(first), second) == (400, "PreviousSnapshotCannotBeNewer")
    assert refused(blob, cloud.grant("base-os")) == (409, "BlobGenerationMismatch")
    assert refused(blob, cloud.grant("base-full")) == (403, "AuthenticationFailed")
    cloud.compute.snapshots.begin_revoke_access(GROUP, "base-1").result()
    assert refused(blob, first) == (409, "PreviousSnapshotNotFound")
    old = BlobClient.from_blob_url(
        second, connection_verify=cloud.ready["ca_file"], api_version="2019-02-02", retry_total=0
    )
    assert refused(old, first) == (409, "FeatureVersionMismatch")


def test_a_revoked_forged_or_expired_url_is_a_403(cloud: Cloud) -> None:
    cloud.machine("sas")
    cloud.snapshot("sas-1", "sas-data")
    url = cloud.grant("sas-1")
    assert cloud.grant("sas-1") == url
    assert cloud.compute.snapshots.get(GROUP, "sas-1").disk_state == "ActiveSAS"
    for wrong in (url[:-6] + "AAA%3D", url.replace("sig=", "sig=x")):
        with pytest.raises(HttpResponseError) as caught:
            cloud.blob(wrong).get_blob_properties()
        assert caught.value.status_code == 403
    cloud.compute.snapshots.begin_revoke_access(GROUP, "sas-1").result()
    with pytest.raises(HttpResponseError) as caught:
        cloud.blob(url).download_blob(0, 512)
    assert caught.value.status_code == 403
    assert cloud.compute.snapshots.get(GROUP, "sas-1").disk_state == "Unattached"


def test_a_range_beyond_the_end_is_a_416(cloud: Cloud) -> None:
    cloud.machine("end")
    cloud.snapshot("end-1", "end-data")
    blob = cloud.blob(cloud.grant("end-1"))
    for call in (
        lambda: blob._client.blob.download(
            snapshot=blob.snapshot, range=f"bytes={DISK_SIZE + 512}-"
        ),
        lambda: pages(blob, None, range="bytes=100-511"),
    ):
        with pytest.raises(HttpResponseError) as caught:
            call()
        assert caught.value.status_code == 416
    assert blob.download_blob(DISK_SIZE, 512).readall()[:8] == b"conectix"
