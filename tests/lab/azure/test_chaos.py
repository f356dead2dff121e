"""Rules of misbehaviour: matching, counting over restarts, ending; and the lab's certificates."""

from __future__ import annotations

import struct
import threading
import uuid
from pathlib import Path

import pytest

from lab import chaos, tls
from lab.vhd import pack_footer


def test_without_rules_nothing_happens(tmp_path: Path) -> None:
    assert chaos.Chaos(tmp_path, "azure-arm").consult("disks.get") is None


def test_a_rule_strikes_what_it_names_and_no_more_often_than_it_says(tmp_path: Path) -> None:
    rule = {"emulator": "azure-*", "operation": "snapshots.*", "resource": "*/disk-7/*"}
    chaos.add(tmp_path, {**rule, "action": "fail", "skip": 1, "times": 2, "status": 500})
    arm, hyperv = chaos.Chaos(tmp_path, "azure-arm"), chaos.Chaos(tmp_path, "hyperv")
    assert hyperv.consult("snapshots.get", "/x/disk-7/y") is None
    assert arm.consult("disks.get", "/x/disk-7/y") is None
    assert arm.consult("snapshots.get", "/x/disk-8/y") is None
    strikes = [arm.consult("Snapshots.Get", "/x/DISK-7/y") is not None for _ in range(5)]
    assert strikes == [False, True, True, False, False]


def test_strikes_are_counted_over_restarts_and_threads(tmp_path: Path) -> None:
    chaos.add(tmp_path, {"operation": "*", "action": "drop", "times": 10})
    struck: list[bool] = []

    def work() -> None:
        for _ in range(10):
            again = chaos.Chaos(tmp_path, "hyperv")
            struck.append(again.consult("Start-VM") is not None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(struck) == 10


def test_rules_come_and_go_under_a_running_emulator(tmp_path: Path) -> None:
    emulator = chaos.Chaos(tmp_path, "hyperv")
    assert emulator.consult("Start-VM") is None
    for _ in range(20):
        rule_id = chaos.add(tmp_path, {"operation": "Start-VM", "action": "throttle"})
        action = emulator.consult("Start-VM")
        assert action is not None
        assert (action.kind, action.retry_after) == ("throttle", 1)
        assert emulator.in_force(rule_id)
        chaos.clear(tmp_path)
        assert emulator.consult("Start-VM") is None
        assert not emulator.in_force(rule_id)


def test_probability_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    patterns = []
    for name in ("one", "two"):
        directory = tmp_path / name
        rule = {"operation": "*", "action": "drop", "probability": 0.5, "seed": 3}
        chaos.add(directory, rule)
        emulator = chaos.Chaos(directory, "hyperv")
        patterns.append([emulator.consult("x") is not None for _ in range(40)])
    assert patterns[0] == patterns[1]
    assert 5 < sum(patterns[0]) < 35


@pytest.mark.parametrize("rule", [{"operation": "*", "action": "explode"}, {"action": "drop"}])
def test_a_rule_without_sense_is_refused(tmp_path: Path, rule: dict[str, str]) -> None:
    with pytest.raises(chaos.ChaosRuleError):
        chaos.add(tmp_path, rule)


def test_certificates_are_made_once(tmp_path: Path) -> None:
    first = tls.ensure_certificates(tmp_path).read_bytes()
    server = (tmp_path / tls.SERVER_FILE).read_bytes()
    tls.server_context(tmp_path)
    assert tls.ensure_certificates(tmp_path).read_bytes() == first
    assert (tmp_path / tls.SERVER_FILE).read_bytes() == server
    assert (tmp_path / tls.SERVER_FILE).stat().st_mode & 0o077 == 0


def test_the_vhd_footer_holds_its_own_checksum() -> None:
    size = 20 * 1024**2
    page = pack_footer(size, uuid.UUID(int=7), 1_700_000_000)
    assert len(page) == 512
    assert page[:8] == b"conectix"
    assert struct.unpack(">QQ", page[40:56]) == (size, size)
    assert struct.unpack(">I", page[60:64]) == (2,)
    stated = int.from_bytes(page[64:68], "big")
    zeroed = page[:64] + bytes(4) + page[68:]
    assert stated == ~sum(zeroed) & 0xFFFFFFFF
