"""Every script the package can send, and what a PowerShell grammar says of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

from platforms.hyperv import scripts

MACHINE = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
_PARSER = Parser(Language(tree_sitter_powershell.language()))
# Cmdlets and their parameters, from Microsoft's reference of the Hyper-V module for Windows Server
# 2025 and of Windows PowerShell 5.1.
CMDLETS: dict[str, list[str]] = json.loads(Path(__file__).with_name("cmdlets.json").read_text())


def bodies(word: str) -> dict[str, str]:
    """A body of every kind, with `word` in every place a person may choose a word for."""
    path = f"D:\\{word}\\{word}.vhdx"
    return {
        "host_facts": scripts.host_facts(),
        "overview": scripts.overview(),
        "machine_names": scripts.machine_names(),
        "machines": scripts.machines([MACHINE, MACHINE]),
        "virtual_disks": scripts.virtual_disks([path, path]),
        "volumes": scripts.volumes([word]),
        "existing": scripts.existing([path]),
        "new_machine": scripts.new_machine(word, 2, 2**30, path),
        "configure_machine": scripts.configure_machine(MACHINE, 2, 2**30, f"{word}\r\n{word}"),
        "set_notes": scripts.set_notes(MACHINE, word),
        "rename_machine": scripts.rename_machine(MACHINE, word),
        "new_disk": scripts.new_disk(word, path, 2**30, fixed=False),
        "new_disk fixed": scripts.new_disk(word, f"{word}.vhd", 2**30, fixed=True),
        "set_firmware": scripts.set_firmware(MACHINE, 0, "MicrosoftWindows"),
        "set_firmware off": scripts.set_firmware(MACHINE, 0, None),
        "add_adapter": scripts.add_adapter(MACHINE, word),
        "remove_machine": scripts.remove_machine(MACHINE),
        "remove_files": scripts.remove_files([path, path]),
        "add_drive": scripts.add_drive(MACHINE, "SCSI", 0, 1, path),
        "remove_drives": scripts.remove_drives(MACHINE, [path, path]),
        "start_machine": scripts.start_machine(MACHINE),
        "turn_off_machine": scripts.turn_off_machine(MACHINE),
        "take_checkpoint": scripts.take_checkpoint(MACHINE, word),
        "restore_checkpoint": scripts.restore_checkpoint(MACHINE, MACHINE),
        "remove_checkpoint": scripts.remove_checkpoint(MACHINE, MACHINE),
        "connect_adapter": scripts.connect_adapter(MACHINE, word, word),
        "connect_adapter none": scripts.connect_adapter(MACHINE, word, None),
        "set_vlan": scripts.set_vlan(MACHINE, word, 7),
        "set_vlan none": scripts.set_vlan(MACHINE, word, None),
        "set_mac": scripts.set_mac(MACHINE, word, "00155D000001"),
        "set_mac none": scripts.set_mac(MACHINE, word, None),
        "guest_network_configurations": scripts.guest_network_configurations(),
        "set_guest_network": scripts.set_guest_network(MACHINE, [f"<V>{word}</V>"]),
    }


@dataclass(frozen=True)
class Use:
    """A command in a script, with the parameters it is given, without their dashes."""

    command: str
    parameters: tuple[str, ...]


def parse(script: str) -> Node:
    """The syntax tree."""
    return _PARSER.parse(script.encode()).root_node


def nodes(root: Node, kind: str) -> list[Node]:
    """All nodes of a kind, in order."""
    found = [root] if root.type == kind else []
    for child in root.children:
        found += nodes(child, kind)
    return found


def broken(root: Node) -> list[str]:
    """What the grammar could not read."""
    found = [str(root.text)] if root.type == "ERROR" or root.is_missing else []
    for child in root.children:
        found += broken(child)
    return found


def uses(root: Node) -> list[Use]:
    """Every command, with its parameters."""
    found = []
    for command in nodes(root, "command"):
        name = next(child for child in command.children if child.type == "command_name")
        elements = [child for child in command.children if child.type == "command_elements"]
        parameters = [
            _text(child).lstrip("-").partition(":")[0]
            for element in elements
            for child in element.children
            if child.type == "command_parameter"
        ]
        found.append(Use(_text(name), tuple(parameters)))
    return found


def _text(node: Node) -> str:
    return (node.text or b"").decode()
