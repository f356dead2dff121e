"""The host's cmdlets: what each one takes from its arguments, does with the host, and puts out."""

from lab.hyperv.cmdlets import cim, files, images, machines, network
from lab.hyperv.cmdlets.common import bind_commands, load_syntaxes
from lab.hyperv.host import Host
from lab.hyperv.powershell.builtins import builtin_commands
from lab.hyperv.powershell.session import Command

ALIASES = {
    "get-vmcheckpoint": "get-vmsnapshot",
    "remove-vmcheckpoint": "remove-vmsnapshot",
    "restore-vmcheckpoint": "restore-vmsnapshot",
    "gcim": "get-ciminstance",
    "icim": "invoke-cimmethod",
    "gcai": "get-cimassociatedinstance",
    "gci": "get-childitem",
    "dir": "get-childitem",
    "ls": "get-childitem",
    "gi": "get-item",
    "ni": "new-item",
    "ri": "remove-item",
    "rm": "remove-item",
    "del": "remove-item",
    "mkdir": "new-item",
}


def host_commands(host: Host) -> dict[str, Command]:
    """Everything a script can call on the host, by lower-case name and alias."""
    implementations = {
        **machines.CMDLETS,
        **images.CMDLETS,
        **network.CMDLETS,
        **files.CMDLETS,
        **cim.CMDLETS,
    }
    commands = builtin_commands()
    commands.update(bind_commands(host, load_syntaxes(), implementations))
    commands.update({alias: commands[name] for alias, name in ALIASES.items()})
    return commands
