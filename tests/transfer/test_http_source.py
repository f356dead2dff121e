"""A source over HTTPS: exact bytes, patience with what passes, a clear word on what does not."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.errors import FailbackError, SourceChanged, SourceDenied, SourceUnavailable, Stopped
from tests.transfer.disks import MIB, session, write_sparse
from tests.transfer.range_server import RangeServer, serving, tunnelling
from tests.waiting import wait_until
from transfer import HttpRangeSource, Range, RoundPlan
from transfer.blocks import BLOCK

SIZE = 20 * MIB + 512
NEVER = threading.Event()


@dataclass
class Site:
    """A server and how to reach it."""

    server: RangeServer
    address: str
    ca_file: Path
    renewals: int = 0

    def url(self, renew: bool) -> str:
        """The address with the grant; a renewal gets the one of the day."""
        self.renewals += renew
        return f"{self.address}?sv=1&sig={self.server.grant if renew else 'first'}"

    def source(self, **options: object) -> HttpRangeSource:
        """A source that gives up early enough for a test."""
        defaults = {"size": SIZE, "ca_file": self.ca_file, "timeout": 5.0, "attempts": 3}
        return HttpRangeSource(self.url, **{**defaults, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def content() -> bytes:
    """The disk that is served."""
    return random.Random(5).randbytes(SIZE)


@pytest.fixture
def site(content: bytes, tmp_path: Path) -> Iterator[Site]:
    """A fresh server."""
    with serving(content, tmp_path) as (server, address, ca_file):
        yield Site(server, address, ca_file)


def read(source: HttpRangeSource, offset: int = 0, length: int = 2 * MIB) -> bytes:
    buffer = bytearray(length)
    try:
        source.read_into(offset, memoryview(buffer), NEVER)
    finally:
        source.close()
    return bytes(buffer)


def test_ranges_arrive_exactly_and_the_connection_is_kept(site: Site, content: bytes) -> None:
    source = site.source()
    for offset in (0, 3 * MIB + 17, SIZE - 1000):
        view = memoryview(bytearray(1000))
        source.read_into(offset, view, NEVER)
        assert view == content[offset : offset + 1000]
    source.close()
    assert len(site.server.connections) == 1
    _, headers = site.server.seen[0]
    assert headers["Range"] == headers["x-ms-range"] == "bytes=0-999"
    assert headers["x-ms-version"] == "2023-11-03"


def test_the_size_is_asked_where_it_is_not_given(site: Site) -> None:
    source = site.source(size=None)
    assert source.size == SIZE
    source.close()


@pytest.mark.parametrize("fault", ["429", "500", "503", "drop", "reset"])
def test_what_passes_is_tried_again(site: Site, content: bytes, fault: str) -> None:
    site.server.faults.extend([fault] * 2)
    assert read(site.source(attempts=6)) == content[: 2 * MIB]


def test_throttling_is_waited_out_as_long_as_it_says(site: Site, content: bytes) -> None:
    site.server.retry_after = "1"
    site.server.faults.append("429")
    started = time.monotonic()
    assert read(site.source()) == content[: 2 * MIB]
    assert time.monotonic() - started >= 1.0


def test_a_server_that_does_not_answer_is_given_up_after_the_attempts(site: Site) -> None:
    site.server.faults.extend(["hang"] * 4)
    with pytest.raises(SourceUnavailable, match="3 attempts"):
        read(site.source(timeout=0.1))


def test_a_refused_grant_is_renewed_once(site: Site, content: bytes) -> None:
    site.server.grant = "second"
    assert read(site.source()) == content[: 2 * MIB]
    assert site.renewals == 1


def test_threads_that_are_refused_together_renew_once(site: Site, content: bytes) -> None:
    site.server.grant = "second"
    source = site.source()
    buffers = [bytearray(100) for _ in range(8)]
    threads = [
        threading.Thread(target=source.read_into, args=(0, memoryview(buffer), NEVER))
        for buffer in buffers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    source.close()
    assert all(buffer == content[:100] for buffer in buffers)
    assert site.renewals == 1


def test_a_grant_refused_after_its_renewal_stops_the_round(site: Site) -> None:
    site.server.grant = "nobody-gets-this"
    source = HttpRangeSource(lambda _: f"{site.address}?sig=wrong", size=SIZE, ca_file=site.ca_file)
    with pytest.raises(SourceDenied, match="403"):
        read(source)


def shorten(server: RangeServer) -> None:
    server.claimed_size -= 512


def alter(server: RangeServer) -> None:
    server.etag = '"0x2"'


def serve_half(server: RangeServer) -> None:
    server.faults.append("short")


def serve_another_range(server: RangeServer) -> None:
    server.faults.append("other-range")


def forget(server: RangeServer) -> None:
    server.faults.append("404")


@pytest.mark.parametrize("how", [shorten, alter, serve_half, serve_another_range, forget])
def test_an_answer_that_does_not_fit_the_disk_stops_the_round(
    site: Site, how: Callable[[RangeServer], None]
) -> None:
    source = site.source()
    source.read_into(0, memoryview(bytearray(10)), NEVER)
    how(site.server)
    with pytest.raises(SourceChanged):
        read(source)


def test_a_server_that_ignores_ranges_is_no_source(site: Site) -> None:
    site.server.faults.append("200")
    with pytest.raises(SourceUnavailable, match="range"):
        read(site.source())


def test_a_proxy_is_used_where_one_is_named(site: Site, content: bytes) -> None:
    with tunnelling() as (proxy, asked):
        assert read(site.source(proxy=proxy)) == content[: 2 * MIB]
        assert [line.split()[:2] for line in asked] == [
            ["CONNECT", f"localhost:{site.server.server_port}"]
        ]


def test_a_proxy_of_the_environment_is_not_looked_at(
    site: Site, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert read(site.source()) == content[: 2 * MIB]


def test_a_certificate_nobody_vouches_for_is_refused(site: Site) -> None:
    with pytest.raises(SourceUnavailable, match="certificate"):
        read(site.source(ca_file=None))


@pytest.mark.parametrize("faults", [["404"], ["429"] * 3, ["drop"] * 3, ["short"], ["200"]])
def test_no_error_shows_the_grant(site: Site, faults: list[str]) -> None:
    site.server.faults.extend(faults)
    source = site.source()
    assert "sig" not in repr(source)
    with pytest.raises(FailbackError) as raised:
        read(source)
    assert "sig=" not in "".join(traceback.format_exception(raised.value))
    assert "first" not in str(raised.value)


def test_waiting_ends_at_once_when_the_round_is_stopped(site: Site) -> None:
    site.server.retry_after = "60"
    site.server.faults.append("429")
    source, stopping = site.source(), threading.Event()
    errors = list[BaseException]()

    def wait() -> None:
        try:
            source.read_into(0, memoryview(bytearray(10)), stopping)
        except Stopped as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: len(site.server.seen) == 1, 5)
    stopping.set()
    thread.join(5)
    source.close()
    assert errors


def test_a_read_that_hangs_ends_when_it_is_interrupted(site: Site) -> None:
    site.server.faults.append("hang")
    source, stopping = site.source(timeout=30), threading.Event()
    errors = list[BaseException]()

    def wait() -> None:
        try:
            source.read_into(0, memoryview(bytearray(10)), stopping)
        except Stopped as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: len(site.server.seen) == 1, 5)
    stopping.set()
    source.interrupt()
    thread.join(5)
    assert errors
    source.close()


def test_a_round_over_a_bad_wire_brings_the_disk(
    site: Site, content: bytes, tmp_path: Path
) -> None:
    site.server.grant = "second"
    site.server.faults.extend(["503", "drop", "", "reset", "429", "", "drop"])
    target = write_sparse(tmp_path / "target", bytes(SIZE))
    source = site.source(attempts=8, piece_bytes=MIB)
    plan = RoundPlan(1, "snapshot", method="full", in_flight_bytes=8 * MIB, extent_bytes=2 * MIB)
    with session(tmp_path, target, SIZE) as opened:
        result = opened.apply_round(plan, source, [Range(0, SIZE)])
        assert target.read_bytes() == content
        assert result.bytes_read == -(-SIZE // BLOCK) * BLOCK - (-SIZE % BLOCK)
        opened.verify_all(source=source)
    source.close()
