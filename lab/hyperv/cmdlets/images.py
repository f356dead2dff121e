"""Cmdlets for virtual hard disks and the drives that hold them."""

import uuid
from collections.abc import Iterable

from lab.hyperv.cmdlets.common import Implementation, machines, passed_through, what_if
from lab.hyperv.cmdlets.objects import drive_object, image_object
from lab.hyperv.host import Host, HostError
from lab.hyperv.model import Drive, Image, Machine
from lab.hyperv.powershell.session import Invocation
from lab.hyperv.powershell.values import CmdletError, PSObject, Value, as_list, to_string
from lab.hyperv.storage import StorageError, key

MINIMUM_BYTES = 3 << 20
"""Hyper-V refuses smaller disks."""
MAXIMUM_VHD_BYTES = 2040 << 30
"""The largest disk that the VHD format can hold; VHDX goes to 64 TiB."""


def _get_vhd(host: Host, invocation: Invocation) -> Iterable[Value]:
    if invocation.set_name == "Disk":
        raise HostError("ObjectNotFound", "No disk image is mounted on the lab's host.")
    paths: list[str] = []
    if invocation.set_name == "VMId":
        ids = [to_string(item) for item in as_list(invocation.get("VMId"))]
        paths = [d.path for m in host.state.machines if m.id in ids for d in m.drives]
    else:
        paths = [_path(item) for item in as_list(invocation.get("Path"))]
    return [image_object(host, _describe(host, path)) for path in paths]


def _path(item: Value) -> str:
    return to_string(item.properties["Path"] if isinstance(item, PSObject) else item)


def _describe(host: Host, path: str) -> Image:
    try:
        return host.storage.describe(path)
    except StorageError as error:
        what = f"Failed to get the information of '{path}'."
        if error.kind == "missing":
            what = (
                f"Getting the mounted storage instance for the path '{path}' failed. The operation "
                "cannot be performed because the object is not found."
            )
        raise StorageError(error.kind, f"{what} {error}") from None


def _new_vhd(host: Host, invocation: Invocation) -> Iterable[Value]:
    if invocation.set_name not in ("DynamicWithoutSource", "FixedWithoutSource"):
        raise HostError("InvalidParameter", "The lab makes disks without a source or a parent.")
    size = invocation.get("SizeBytes")
    sector = invocation.get("LogicalSectorSizeBytes", 512)
    made = []
    for path in as_list(invocation.get("Path")):
        vhd = path.lower().endswith(".vhd")
        if not path.lower().endswith((".vhd", ".vhdx")):
            raise HostError("InvalidParameter", f"'{path}': the extension must be .vhd or .vhdx.")
        limit = MAXIMUM_VHD_BYTES if vhd else 64 << 40
        if size % 512 or not MINIMUM_BYTES <= size <= limit or sector not in (512, 4096):
            raise CmdletError(
                f"Failed to create the virtual hard disk. '{path}' cannot have {size} bytes: the "
                "virtual disk size is not valid. (0xC03A0005).",
                identifier="InvalidParameter",
            )
        if vhd and not invocation.get("Fixed"):
            raise HostError("InvalidParameter", "The lab makes .vhd files with -Fixed only.")
        if not what_if(invocation):
            host.storage.create(
                path, size, fixed=bool(invocation.get("Fixed")), logical_sector=sector
            )
            made.append(image_object(host, host.storage.describe(path)))
    return made


def _test_vhd(host: Host, invocation: Invocation) -> Iterable[Value]:
    for path in as_list(invocation.get("Path")):
        host.storage.describe(path)
    return [True]


def _resize_vhd(host: Host, invocation: Invocation) -> Iterable[Value]:
    path = invocation.get("Path")[0]
    size = invocation.get("SizeBytes")
    image = host.storage.describe(path)
    if host.users_of(path) or image.footer is not None or image.kind == "Differencing":
        raise HostError("OperationFailed", f"Failed to resize '{path}': it is in use.")
    if size is None or size < image.size_bytes or size % 512:
        raise HostError("InvalidParameter", f"'{path}': the lab's disks only grow.")
    if not what_if(invocation):
        host.storage.resize(path, size)
    return passed_through(invocation, [image_object(host, host.storage.describe(path))])


def _set_vhd(host: Host, invocation: Invocation) -> Iterable[Value]:
    path = invocation.get("Path")
    if not invocation.get("ResetDiskIdentifier"):
        raise HostError("InvalidParameter", "The lab's Set-VHD resets disk identifiers only.")
    if host.users_of(path):
        raise HostError("OperationFailed", f"Failed to set the identifier of '{path}': in use.")
    host.storage.reset_identifier(path)
    return passed_through(invocation, [image_object(host, host.storage.describe(path))])


def _get_drives(host: Host, invocation: Invocation) -> Iterable[Value]:
    return [
        drive_object(machine, drive)
        for machine in machines(host, invocation, "VMName")
        for drive in machine.drives
        if _wanted(invocation, drive)
    ]


def _wanted(invocation: Invocation, drive: Drive) -> bool:
    kind, number, location = drive.place
    return (
        to_string(invocation.get("ControllerType", kind)).upper() == kind
        and invocation.get("ControllerNumber", number) == number
        and invocation.get("ControllerLocation", location) == location
    )


def _add_drive(host: Host, invocation: Invocation) -> Iterable[Value]:
    added = []
    for machine in machines(host, invocation, "VMName"):
        path = invocation.get("Path")
        if path is None:
            raise HostError("InvalidParameter", "The lab attaches images, not physical disks.")
        host.storage.describe(path)
        drive = _place(machine, invocation, path)
        if not what_if(invocation):
            host.attach(machine, drive)
            added.append(drive_object(host.machine(machine.id), drive))
    return passed_through(invocation, added)


def _place(machine: Machine, invocation: Invocation, path: str) -> Drive:
    """The place asked for; as in Hyper-V the first free one where part of it is left open."""
    kind = to_string(invocation.get("ControllerType")).upper()
    if not kind:
        kind = "SCSI" if machine.generation == 2 or machine.state == "Running" else "IDE"
    if kind not in ("IDE", "SCSI"):
        raise HostError("InvalidParameter", f"A hard disk cannot be on a {kind} controller.")
    taken = {drive.place for drive in machine.drives}
    numbers = [invocation.get("ControllerNumber")]
    if numbers == [None]:
        numbers = list(range(2 if kind == "IDE" else 1))
    locations = [invocation.get("ControllerLocation")]
    if locations == [None]:
        locations = list(range(2 if kind == "IDE" else 64))
    places = [(kind, number, location) for number in numbers for location in locations]
    free = [place for place in places if place not in taken] or places
    return Drive(
        controller_type="IDE" if kind == "IDE" else "SCSI",
        controller_number=free[0][1],
        controller_location=free[0][2],
        path=path,
    )


def _remove_drive(host: Host, invocation: Invocation) -> Iterable[Value]:
    chosen: list[tuple[Machine, Drive]] = []
    if invocation.given("VMHardDiskDrive"):
        for item in as_list(invocation.get("VMHardDiskDrive")):
            chosen += _same_drive(host, item)
    else:
        for machine in machines(host, invocation, "VMName"):
            found = [(machine, drive) for drive in machine.drives if _wanted(invocation, drive)]
            if not found:
                raise HostError(
                    "InvalidParameter",
                    f"'{machine.name}' has no hard disk drive at the place that was given.",
                )
            chosen += found
    for machine, drive in chosen:
        if not what_if(invocation):
            host.detach(machine, drive)
    return passed_through(invocation, (drive_object(m, d) for m, d in chosen))


def _same_drive(host: Host, item: PSObject) -> list[tuple[Machine, Drive]]:
    properties = item.properties
    place = (
        to_string(properties["ControllerType"]),
        properties["ControllerNumber"],
        properties["ControllerLocation"],
    )
    owner = str(uuid.UUID(to_string(properties["VMId"])))
    return [
        (machine, drive)
        for machine in host.state.machines
        if machine.id == owner
        for drive in machine.drives
        if drive.place == place and key(drive.path) == key(to_string(properties["Path"]))
    ]


def _set_drive(host: Host, invocation: Invocation) -> Iterable[Value]:
    machine = machines(host, invocation, "VMName")[0]
    drives = [drive for drive in machine.drives if _wanted(invocation, drive)]
    if not drives or machine.state == "Running":
        raise HostError("InvalidState", f"The drive of '{machine.name}' cannot be changed now.")
    path = invocation.get("Path")
    host.storage.describe(path)
    host.detach(machine, drives[0])
    host.attach(host.machine(machine.id), drives[0].model_copy(update={"path": path}))
    return []


CMDLETS: dict[str, Implementation] = {
    "Get-VHD": _get_vhd,
    "New-VHD": _new_vhd,
    "Test-VHD": _test_vhd,
    "Resize-VHD": _resize_vhd,
    "Set-VHD": _set_vhd,
    "Get-VMHardDiskDrive": _get_drives,
    "Add-VMHardDiskDrive": _add_drive,
    "Remove-VMHardDiskDrive": _remove_drive,
    "Set-VMHardDiskDrive": _set_drive,
}
