"""Network settings are applied, put back, and static addresses reach the guest."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from lab.hyperv.model import Adapter
from models.errors import MachineState
from models.machine import AdapterSettings, OnPremisesMachine, Verdict
from models.spec import FailbackSpec, NetworkAdapter, StaticAddress
from platforms.base import Call
from platforms.hyperv import HyperVPlatform
from platforms.hyperv.network import configuration_xml
from tests.lab.images import make_disks
from tests.platforms.hyperv.hypervisor import MIB, MOVER, Hypervisor, cloud, spec
from tests.waiting import wait_until

SIZES = (64 * MIB, 16 * MIB)


def seed(hypervisor: Hypervisor) -> None:
    images = make_disks(hypervisor.directory)
    hypervisor.simple("german", adapters=[Adapter(name="Netzwerkkarte", switch="LAN")])
    for name in ("web01", "web02"):
        hypervisor.simple(
            name,
            *SIZES,
            adapters=[
                Adapter(name="Front", switch="LAN", leased=["192.0.2.7"]),
                Adapter(name="Bäck 'end'", mac="00155D010203", dynamic_mac=False),
            ],
        )
        for number, image in images.items():
            shutil.copyfile(image.path, hypervisor.local(f"D:\\VMs\\{name}\\disk{number}.vhdx"))


def _machine(platform: HyperVPlatform, wanted: FailbackSpec) -> OnPremisesMachine:
    report = platform.inspect(wanted, cloud(*SIZES), MOVER, Call())
    assert report.machine is not None
    return report.machine


def _adapters(hypervisor: Hypervisor, name: str) -> list[tuple[Any, ...]]:
    machine = hypervisor.seen(name)
    assert machine is not None
    return [
        (a.name, a.switch, a.vlan_id if a.vlan_mode == "Access" else None, a.dynamic_mac)
        for a in machine.adapters
    ]


def test_settings_are_recorded_applied_and_put_back(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("web01")
    machine = _machine(platform, wanted)
    assert machine.adapters == [
        AdapterSettings(name="Front", switch="LAN"),
        AdapterSettings(name="Bäck 'end'", mac_address="00155D010203"),
    ]
    before = _adapters(hypervisor, "web01")
    changes = [
        NetworkAdapter(
            name="front", switch="Isolated", vlan_id=12, mac_address="00-15-5d-0a-0b-0c"
        ),
        NetworkAdapter(name="Bäck 'end'", switch="LAN", mac_address="00:15:5d:00:00:01"),
    ]
    for _ in range(2):
        platform.apply_network(wanted, machine, changes, Call())
        assert _adapters(hypervisor, "web01") == [
            ("Front", "Isolated", 12, False),
            ("Bäck 'end'", "LAN", None, False),
        ]
    now = hypervisor.seen("web01")
    assert now is not None
    assert [adapter.mac for adapter in now.adapters] == ["00155D0A0B0C", "00155D000001"]
    for _ in range(2):
        platform.restore_network(wanted, machine, machine.adapters, Call())
        assert _adapters(hypervisor, "web01") == before
    now = hypervisor.seen("web01")
    assert now is not None
    assert now.adapters[1].mac == "00155D010203"


def test_what_is_not_asked_for_stays(platform: HyperVPlatform, hypervisor: Hypervisor) -> None:
    wanted = spec("web01")
    machine = _machine(platform, wanted)
    before = _adapters(hypervisor, "web01")
    platform.apply_network(wanted, machine, [NetworkAdapter(name="Front")], Call())
    assert _adapters(hypervisor, "web01") == before


def test_the_only_adapter_is_meant_whatever_the_hosts_language(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    wanted = spec("german", adapters=[{"switch": "Isolated", "vlan_id": 3}])
    report = platform.inspect(wanted, cloud(), MOVER, Call())
    assert [c.code for c in report.checks if c.verdict is Verdict.FAILED] == []
    assert report.machine is not None
    platform.apply_network(wanted, report.machine, wanted.on_premises.adapters, Call())
    assert _adapters(hypervisor, "german") == [("Netzwerkkarte", "Isolated", 3, True)]
    platform.restore_network(wanted, report.machine, report.machine.adapters, Call())
    assert _adapters(hypervisor, "german") == [("Netzwerkkarte", "LAN", None, True)]


def test_an_adapter_that_is_not_there_is_named(platform: HyperVPlatform) -> None:
    wanted = spec("web01")
    machine = _machine(platform, wanted)
    with pytest.raises(MachineState, match="no adapters named 'Third'"):
        platform.apply_network(
            wanted, machine, [NetworkAdapter(name="Third", switch="LAN")], Call()
        )
    # Undo goes on without it.
    platform.restore_network(wanted, machine, [AdapterSettings(name="Third")], Call())


def test_a_running_guest_gets_its_static_address(
    platform: HyperVPlatform, hypervisor: Hypervisor
) -> None:
    static = {
        "addresses": ["192.0.2.44"],
        "subnets": ["255.255.255.0"],
        "gateways": ["192.0.2.1"],
        "dns_servers": ["192.0.2.2", "192.0.2.3"],
    }
    wanted = spec("web02", adapters=[{"name": "Front", "static": static}])
    machine = _machine(platform, wanted)
    problems = platform.set_static_addresses(wanted, machine, Call())
    assert len(problems) == 1
    assert "does not run" in problems[0]
    platform.start(wanted, machine, Call())
    wait_until(lambda: platform.health(wanted, machine).addresses == ["192.0.2.7"], 20)
    assert platform.set_static_addresses(wanted, machine, Call()) == []
    assert platform.health(wanted, machine).addresses == ["192.0.2.44"]
    now = hypervisor.seen("web02")
    assert now is not None
    guest = now.adapters[0].guest
    assert (guest.dhcp, guest.subnets, guest.gateways, guest.dns_servers) == (
        False,
        ["255.255.255.0"],
        ["192.0.2.1"],
        ["192.0.2.2", "192.0.2.3"],
    )
    unknown = spec("web02", adapters=[{"name": "Third", "static": static}])
    problems = platform.set_static_addresses(unknown, machine, Call())
    assert len(problems) == 1
    assert "Third" in problems[0]
    assert platform.set_static_addresses(spec("web02"), machine, Call()) == []
    platform.turn_off(wanted, machine, Call())


def test_addresses_cannot_break_out_of_their_document() -> None:
    text = configuration_xml(
        "a<b>&", StaticAddress(addresses=["</VALUE><X/>"], subnets=["255.0.0.0"])
    )
    assert "<X/>" not in text
    assert "a&lt;b&gt;&amp;" in text
