"""Paths on a Windows host, taken apart without touching it."""

from __future__ import annotations

from pathlib import PureWindowsPath

_CLUSTER_FOLDER = "clusterstorage"


def join(folder: str, *names: str) -> str:
    """A path below a folder."""
    return str(PureWindowsPath(folder, *names))


def folder_of(path: str) -> str:
    """The folder a file is in."""
    return str(PureWindowsPath(path).parent)


def is_absolute(path: str) -> bool:
    """Whether it names a drive or share, and a place on it."""
    return PureWindowsPath(path).is_absolute()


def is_share(path: str) -> bool:
    """Whether it is on another host's share, of which this one knows no free space."""
    return PureWindowsPath(path).drive.startswith("\\\\")


def volume_root(path: str) -> str:
    """Where the path's volume is mounted: `D:\\`, or the folder of a cluster shared volume."""
    parts = PureWindowsPath(path).parts
    if len(parts) > 2 and parts[1].casefold() == _CLUSTER_FOLDER:
        return str(PureWindowsPath(*parts[:3]))
    return parts[0] if parts else path
