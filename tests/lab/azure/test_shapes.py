"""Everything the emulator sends is something the SDK's models, made from Azure's own
specification, know by that name."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

import pytest
from azure.mgmt.compute import models as compute
from azure.mgmt.network import models as network

from tests.lab.azure.conftest import GROUP, Cloud


def unknown(model: Any, content: Any, where: str) -> list[str]:
    """The names in ``content`` that ``model`` does not have, with their path."""
    if model is None or not isinstance(content, dict):
        return []
    fields = model({})._attr_to_rest_field
    hints = get_type_hints(model, vars(compute) | {"_models": _Both()})
    names = {field._rest_name: name for name, field in fields.items()}
    found = []
    for key, value in content.items():
        if key not in names:
            found.append(f"{where}.{key}")
            continue
        inner = _model_in(hints.get(names[key]))
        for item in value if isinstance(value, list) else [value]:
            found += unknown(inner, item, f"{where}.{key}")
    return found


class _Both:
    def __getattr__(self, name: str) -> Any:
        return getattr(compute, name, None) or getattr(network, name)


def _model_in(hint: Any) -> Any:
    """The model class inside Optional[...] and list[...]."""
    if isinstance(hint, type) and hasattr(hint, "as_dict"):
        return hint
    if get_origin(hint) is not None:
        for argument in get_args(hint):
            found = _model_in(argument)
            if found is not None:
                return found
    return None


def test_the_check_finds_what_is_unknown() -> None:
    content = {"properties": {"diskSizeGB": 1, "creationData": {"wrong": 1}}, "odd": 2}
    assert unknown(compute.Disk, content, "disk") == [
        "disk.properties.creationData.wrong",
        "disk.odd",
    ]


@pytest.mark.parametrize("kind", ["disk", "snapshot", "machine", "view", "nic", "sku"])
def test_no_name_is_made_up(cloud: Cloud, kind: str) -> None:
    name = f"shape-{kind}"
    cloud.machine(name, nics=[{"name": f"{name}-nic", "address": "10.0.0.8"}])
    model: Any
    if kind == "disk":
        sent, model = cloud.compute.disks.get(GROUP, f"{name}-os").as_dict(), compute.Disk
    elif kind == "snapshot":
        sent, model = cloud.snapshot(f"{name}-1", f"{name}-os").as_dict(), compute.Snapshot
    elif kind == "machine":
        machines = cloud.compute.virtual_machines
        sent = machines.get(GROUP, name, expand="instanceView").as_dict()
        model = compute.VirtualMachine
    elif kind == "view":
        sent = cloud.compute.virtual_machines.instance_view(GROUP, name).as_dict()
        model = compute.VirtualMachineInstanceView
    elif kind == "nic":
        sent = cloud.network.network_interfaces.get(GROUP, f"{name}-nic").as_dict()
        model = network.NetworkInterface
    else:
        sent = next(iter(cloud.compute.resource_skus.list())).as_dict()
        model = compute.ResourceSku
    assert unknown(model, sent, kind) == []
