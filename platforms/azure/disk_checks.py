"""Preflight checks of the machine's disks: whether each can be exported, read range by range, and
brought home as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from azure.mgmt.compute import models as azure_models

from platforms.azure.checklist import Checklist, Finding
from platforms.azure.machine import FoundDisk, plain

_MIB = 2**20
# Disks of these kinds have 4096-byte sectors or are exported as VHDX, for which Azure documents no
# listing of changed ranges.
_UNSUPPORTED_SKUS = ("ultrassd_lrs", "premiumv2_lrs")
_BUSY_STATES = ("activesas", "activesasfrozen", "activeupload", "readytoupload")

DiskCheck = Callable[[FoundDisk, azure_models.Disk, Finding], None]


def check_disks(checklist: Checklist, disks: list[FoundDisk]) -> None:
    """Make every disk check; each covers all disks and names those it objects to."""
    checklist.run(
        "azure-disks",
        "FB-CHK-AZURE-DISKS",
        "Give the identity read access to every disk; only managed disks can be brought home.",
        lambda: _readable(disks),
    )
    checklist.run(
        "azure-disk-ephemeral",
        "FB-CHK-AZURE-DISK-EPHEMERAL",
        "An ephemeral OS disk has no snapshots: move the machine to a managed OS disk first.",
        lambda: _ephemeral(disks),
    )
    for name, code, advice, check in _CHECKS:
        checklist.run(name, code, advice, _over(disks, check))


def _over(disks: list[FoundDisk], check: DiskCheck) -> Callable[[], Finding]:
    def run() -> Finding:
        finding = Finding()
        for found in disks:
            if found.disk is not None:
                check(found, found.disk, finding)
        if not any(found.disk is not None for found in disks):
            finding.doubts.append("no disk could be read")
        return finding

    return run


def _readable(disks: list[FoundDisk]) -> Finding:
    finding = Finding(
        seen=[f"{found.disk_id} {found.name!r}" for found in disks],
        problems=[f"{_title(found)}: {found.error}" for found in disks if found.disk is None],
    )
    if not disks:
        finding.problems.append("the virtual machine has no disks")
    for found in disks:
        if found.disk is not None and not (found.disk.unique_id and found.disk.disk_size_bytes):
            finding.problems.append(f"{_title(found)} has no unique id or no size")
    return finding


def _ephemeral(disks: list[FoundDisk]) -> Finding:
    finding = Finding(seen=["no ephemeral disk"])
    for found in disks:
        settings = getattr(found.attachment, "diff_disk_settings", None)
        if settings is not None and plain(settings.option).lower() == "local":
            finding.problems.append(f"{_title(found)} is ephemeral")
    return finding


def _network_access(found: FoundDisk, disk: azure_models.Disk, finding: Finding) -> None:
    policy = plain(disk.network_access_policy) or "AllowAll"
    finding.seen.append(f"{found.disk_id} {policy}")
    if policy.lower() == "denyall":
        finding.problems.append(f"{_title(found)} has networkAccessPolicy DenyAll: no export")
    elif policy.lower() == "allowprivate":
        finding.doubts.append(
            f"{_title(found)} has networkAccessPolicy AllowPrivate: the mover must reach the "
            "private endpoint of its disk access"
        )


def _public_access(found: FoundDisk, disk: azure_models.Disk, finding: Finding) -> None:
    access = plain(disk.public_network_access) or "Enabled"
    finding.seen.append(f"{found.disk_id} {access}")
    if access.lower() != "disabled":
        return
    words = f"{_title(found)} has publicNetworkAccess {access}"
    if plain(disk.network_access_policy).lower() == "allowprivate":
        finding.doubts.append(f"{words}: only its private endpoint answers")
    else:
        finding.problems.append(f"{words}: no export")


def _authentication(found: FoundDisk, disk: azure_models.Disk, finding: Finding) -> None:
    mode = plain(disk.data_access_auth_mode) or "None"
    finding.seen.append(f"{found.disk_id} {mode}")
    if mode.lower() != "none":
        finding.problems.append(f"{_title(found)} has dataAccessAuthMode {mode}")


def _encryption(found: FoundDisk, disk: azure_models.Disk, finding: Finding) -> None:
    kind = plain(disk.encryption.type) if disk.encryption is not None else ""
    finding.seen.append(f"{found.disk_id} {kind or 'EncryptionAtRestWithPlatformKey'}")
    settings = disk.encryption_settings_collection
    if settings is not None and settings.enabled:
        finding.problems.append(
            f"{_title(found)} is encrypted by Azure Disk Encryption: its copy would start nowhere "
            "but in Azure"
        )
    profile = disk.security_profile
    security = plain(profile.security_type) if profile is not None else ""
    if security.lower().startswith("confidentialvm"):
        finding.problems.append(f"{_title(found)} is a confidential machine's ({security})")


def _sectors(found: FoundDisk, disk: azure_models.Disk, finding: Finding) -> None:
    sku = plain(disk.sku.name) if disk.sku is not None else ""
    sector = int((disk.creation_data.logical_sector_size if disk.creation_data else 0) or 512)
    finding.seen.append(f"{found.disk_id} {sku or 'unknown kind'}, {sector}-byte sectors")
    if sku.lower() in _UNSUPPORTED_SKUS:
        finding.problems.append(f"{_title(found)} is {sku}")
    elif sector != 512:
        finding.problems.append(f"{_title(found)} has {sector}-byte sectors")


def _shared(found: FoundDisk, disk: azure_models.Disk, finding: Finding) -> None:
    shares = int(disk.max_shares or 1)
    finding.seen.append(f"{found.disk_id} {'shared' if shares > 1 else 'not shared'}")
    if shares > 1:
        finding.problems.append(f"{_title(found)} is shared (maxShares {shares})")


def _size(found: FoundDisk, disk: azure_models.Disk, finding: Finding) -> None:
    size = int(disk.disk_size_bytes or 0)
    finding.seen.append(f"{found.disk_id} {size / 2**30:.1f} GiB")
    if not size or size % _MIB:
        finding.problems.append(f"{_title(found)} has {size} bytes: no whole number of MiB")


def _grants(found: FoundDisk, disk: azure_models.Disk, finding: Finding) -> None:
    state = plain(disk.disk_state)
    finding.seen.append(f"{found.disk_id} {state or 'in no known state'}")
    if state.lower() in _BUSY_STATES:
        finding.problems.append(
            f"{_title(found)} is in state {state}: somebody holds access to it, so it can neither "
            "be started with nor deleted"
        )


def _title(found: FoundDisk) -> str:
    return f"disk {found.name!r} ({found.disk_id})"


_CHECKS: tuple[tuple[str, str, str, Any], ...] = (
    (
        "azure-disk-network",
        "FB-CHK-AZURE-DISK-NETWORK",
        "Set the disk's networkAccessPolicy to AllowAll for the time of the failback, or see that "
        "the mover reaches the private endpoint.",
        _network_access,
    ),
    (
        "azure-disk-public",
        "FB-CHK-AZURE-DISK-PUBLIC",
        "Enable public network access of the disk for the time of the failback, or use a disk "
        "access with a private endpoint.",
        _public_access,
    ),
    (
        "azure-disk-auth",
        "FB-CHK-AZURE-DISK-AUTH",
        "Set dataAccessAuthMode to None: the mover reads with a SAS alone.",
        _authentication,
    ),
    (
        "azure-disk-encryption",
        "FB-CHK-AZURE-DISK-ENCRYPTION",
        "Decrypt the disk inside Azure first. Server-side encryption, with customer-managed keys "
        "too, is no obstacle.",
        _encryption,
    ),
    (
        "azure-disk-sectors",
        "FB-CHK-AZURE-DISK-SECTORS",
        "Ultra disks, Premium SSD v2 and disks with 4096-byte sectors are not supported: move the "
        "data to a Premium or Standard disk.",
        _sectors,
    ),
    (
        "azure-disk-shared",
        "FB-CHK-AZURE-DISK-SHARED",
        "Bring shared disks home by other means; set maxShares to 1 if nobody else uses the disk.",
        _shared,
    ),
    (
        "azure-disk-size",
        "FB-CHK-AZURE-DISK-SIZE",
        "Grow the disk to a whole number of MiB.",
        _size,
    ),
    (
        "azure-disk-grant",
        "FB-CHK-AZURE-DISK-GRANT",
        "Cancel the export or upload: az disk revoke-access.",
        _grants,
    ),
)
