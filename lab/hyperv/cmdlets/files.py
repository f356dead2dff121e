"""Cmdlets for files, volumes and what is installed, as far as managing disk images needs them."""

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from lab.hyperv.cmdlets.common import Implementation, matches, what_if
from lab.hyperv.host import Host
from lab.hyperv.powershell.session import Invocation
from lab.hyperv.powershell.values import (
    CmdletError,
    EnumMember,
    PSObject,
    Value,
    as_list,
    to_string,
)
from lab.hyperv.storage import StorageError


def _paths(invocation: Invocation) -> list[str]:
    paths = invocation.get("LiteralPath", invocation.get("Path"))
    return [to_string(path) for path in as_list(paths)]


def _not_found(path: str) -> CmdletError:
    return CmdletError(
        f"Cannot find path '{path}' because it does not exist.",
        identifier="PathNotFound",
        category="ObjectNotFound",
        exception_type="System.Management.Automation.ItemNotFoundException",
        target=path,
    )


def _in_use(host: Host, path: str) -> None:
    """Refuses to touch the file of a disk that a machine runs from.

    Raises:
        CmdletError: it is in use.
    """
    if host.users_of(path):
        raise CmdletError(
            f"Cannot remove item {path}: The process cannot access the file '{path}' because it is "
            "being used by another process.",
            identifier="RemoveFileSystemItemIOError",
            category="WriteError",
            exception_type="System.IO.IOException",
            target=path,
            hresult=0x80070020 - 2**32,
        )


def _file_object(path: str, file: Path) -> PSObject:
    folder, _, name = path.rstrip("\\").rpartition("\\")
    status = file.stat()
    properties: list[tuple[str, Value]] = [
        ("Name", name),
        ("FullName", path.rstrip("\\")),
        ("PSIsContainer", file.is_dir()),
        ("Exists", True),
        ("LastWriteTime", datetime.fromtimestamp(status.st_mtime, UTC)),
        ("LastWriteTimeUtc", datetime.fromtimestamp(status.st_mtime, UTC)),
    ]
    if file.is_dir():
        return PSObject("System.IO.DirectoryInfo", properties, text=path)
    extension = "." + name.rsplit(".", 1)[1] if "." in name else ""
    properties += [
        ("Length", status.st_size),
        ("Extension", extension),
        ("BaseName", name.removesuffix(extension)),
        ("DirectoryName", folder),
    ]
    return PSObject("System.IO.FileInfo", properties, text=path)


def _exists(host: Host, path: str) -> Path | None:
    try:
        file = host.storage.local(path)
    except StorageError:
        return None
    return file if file.exists() else None


def _test_path(host: Host, invocation: Invocation) -> Iterable[Value]:
    found = []
    for path in _paths(invocation):
        file = _exists(host, path)
        kind = to_string(invocation.get("PathType")).lower() or "any"
        right = {"any": True, "leaf": file is not None and file.is_file()}
        found.append(file is not None and right.get(kind, file is not None and file.is_dir()))
    return found


def _get_item(host: Host, invocation: Invocation) -> Iterable[Value]:
    items = []
    for path in _paths(invocation):
        file = _exists(host, path)
        if file is None:
            raise _not_found(path)
        items.append(_file_object(path, file))
    return items


def _get_children(host: Host, invocation: Invocation) -> Iterable[Value]:
    items: list[PSObject] = []
    pattern = invocation.get("Filter") or "*"
    for path in _paths(invocation):
        folder, star, mask = path.rpartition("\\")
        if not ("*" in mask and star):
            folder, mask = path, "*"
        at = _exists(host, folder)
        if at is None:
            raise _not_found(path)
        for file in sorted(at.rglob("*") if invocation.get("Recurse") else at.iterdir()):
            if invocation.get("File") and file.is_dir():
                continue
            if invocation.get("Directory") and not file.is_dir():
                continue
            if matches(file.name, pattern) and matches(file.name, mask):
                inner = str(file.relative_to(at)).replace("/", "\\")
                items.append(_file_object(f"{folder.rstrip(chr(92))}\\{inner}", file))
    if invocation.get("Name"):
        return [item.properties["Name"] for item in items]
    return items


def _new_item(host: Host, invocation: Invocation) -> Iterable[Value]:
    made = []
    for path in _paths(invocation):
        file = host.storage.local(path)
        folder = to_string(invocation.get("ItemType")) == "Directory"
        if file.exists() and not invocation.get("Force"):
            raise CmdletError(
                f"An item with the specified name {path} already exists.",
                identifier="DirectoryExist" if folder else "NewItemIOError",
                category="ResourceExists" if folder else "WriteError",
                exception_type="System.IO.IOException",
                target=path,
            )
        if what_if(invocation):
            continue
        if folder:
            file.mkdir(parents=True, exist_ok=True)
        elif not file.parent.is_dir():
            raise _not_found(path)
        else:
            file.write_text(to_string(invocation.get("Value")), encoding="utf-8")
        made.append(_file_object(path, file))
    return made


def _remove_item(host: Host, invocation: Invocation) -> Iterable[Value]:
    for path in _paths(invocation):
        file = _exists(host, path)
        if file is None:
            raise _not_found(path)
        _in_use(host, path)
        if what_if(invocation):
            continue
        if file.is_dir():
            if any(file.iterdir()) and not invocation.get("Recurse"):
                raise CmdletError(
                    f"The item at {path} has children and the Recurse parameter was not specified.",
                    identifier="InvalidOperation",
                    category="InvalidOperation",
                    exception_type="System.InvalidOperationException",
                )
            shutil.rmtree(file)
        else:
            file.unlink()
            host.storage.forget(path)
    return []


def _get_volumes(host: Host, invocation: Invocation) -> Iterable[Value]:
    letters = [to_string(letter).rstrip(":\\").upper() for letter in _letters(invocation)]
    for letter in letters:
        if letter not in host.state.volumes:
            raise CmdletError(
                f"No MSFT_Volume objects found with property 'DriveLetter' equal to '{letter}'.",
                identifier="CmdletizationQuery_NotFound_DriveLetter,Get-Volume",
                category="ObjectNotFound",
                exception_type="Microsoft.PowerShell.Cmdletization.Cim.CimJobException",
                target=letter,
            )
    return [
        PSObject(
            "Microsoft.Management.Infrastructure.CimInstance",
            [
                ("DriveLetter", letter),
                ("FileSystem", "NTFS"),
                ("FileSystemType", EnumMember("FileSystemType", "NTFS", 14)),
                ("FileSystemLabel", "lab"),
                ("DriveType", EnumMember("DriveType", "Fixed", 3)),
                ("HealthStatus", EnumMember("HealthStatus", "Healthy", 0)),
                ("SizeRemaining", host.storage.free_bytes(letter)),
                ("Size", volume.size_bytes),
            ],
        )
        for letter, volume in host.state.volumes.items()
        if not letters or letter in letters
    ]


def _letters(invocation: Invocation) -> list[Value]:
    if invocation.given("FilePath"):
        return [to_string(path)[:1] for path in as_list(invocation.get("FilePath"))]
    return as_list(invocation.get("DriveLetter"))


def _get_drives(host: Host, invocation: Invocation) -> Iterable[Value]:
    names = [to_string(name).upper() for name in as_list(invocation.get("Name"))]
    for name in names:
        if name not in host.state.volumes:
            raise CmdletError(
                "Cannot find drive. A drive with the name " + f"'{name}' does not exist.",
                identifier="GetLocationNoMatchingDrive",
                category="ObjectNotFound",
                exception_type="System.Management.Automation.DriveNotFoundException",
                target=name,
            )
    drives = []
    for letter, volume in host.state.volumes.items():
        if names and letter not in names:
            continue
        free = host.storage.free_bytes(letter)
        properties = [
            ("Name", letter),
            ("Root", f"{letter}:\\"),
            ("Free", free),
            ("Used", volume.size_bytes - free),
        ]
        drives.append(PSObject("System.Management.Automation.PSDriveInfo", properties, text=letter))
    return drives


def _get_module(host: Host, invocation: Invocation) -> Iterable[Value]:
    wanted = as_list(invocation.get("Name")) or ["*"]
    return [
        PSObject(
            "System.Management.Automation.PSModuleInfo",
            [("Name", name), ("Version", "2.0.0.0"), ("ModuleType", "Binary")],
            text=name,
        )
        for name in ("Hyper-V", "Storage", "CimCmdlets")
        if any(matches(name, pattern) for pattern in wanted)
    ]


def _get_command(host: Host, invocation: Invocation) -> Iterable[Value]:
    wanted = [to_string(name) for name in as_list(invocation.get("Name"))]
    commands = invocation.interpreter.session.commands
    missing = [name for name in wanted if "*" not in name and name.lower() not in commands]
    if missing:
        raise CmdletError(
            f"The term '{missing[0]}' is not recognized as the name of a cmdlet, function, script "
            "file, or operable program.",
            identifier="CommandNotFoundException",
            category="ObjectNotFound",
            exception_type="System.Management.Automation.CommandNotFoundException",
            target=missing[0],
        )
    names = sorted({command.syntax.name for command in commands.values()})
    return [
        PSObject("System.Management.Automation.CmdletInfo", [("Name", name)], text=name)
        for name in names
        if not wanted or any(matches(name, pattern) for pattern in wanted)
    ]


CMDLETS: dict[str, Implementation] = {
    "Test-Path": _test_path,
    "Get-Item": _get_item,
    "Get-ChildItem": _get_children,
    "New-Item": _new_item,
    "Remove-Item": _remove_item,
    "Get-Volume": _get_volumes,
    "Get-PSDrive": _get_drives,
    "Get-Module": _get_module,
    "Get-Command": _get_command,
}
