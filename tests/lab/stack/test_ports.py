"""Ports are chosen once and kept."""

from __future__ import annotations

import socket
from pathlib import Path

from lab.stack.ports import LAST, is_free, load_or_choose


def test_ports_stay_and_new_names_get_their_own(tmp_path: Path) -> None:
    first = load_or_choose(tmp_path, ["a", "b"])
    assert load_or_choose(tmp_path, ["b", "a"]) == first
    third = load_or_choose(tmp_path, ["a", "b", "c"])
    assert third.items() > first.items()
    assert len(set(third.values())) == 3


def test_they_lie_outside_the_range_of_outgoing_connections(tmp_path: Path) -> None:
    outgoing = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    ports = load_or_choose(tmp_path, [str(number) for number in range(50)])
    assert max(ports.values()) <= LAST
    assert int(outgoing[0]) > LAST, "this machine's kernel is set to another range"


def test_a_preferred_port_is_taken_only_while_it_is_free(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        ports = load_or_choose(tmp_path / "busy", ["a"], {"a": port})
        assert ports["a"] != port
    assert load_or_choose(tmp_path / "free", ["a"], {"a": port}) == {"a": port}
