"""The block engine: brings a disk to a recovery point, proves it, and can take it back.

Knows disks and bytes; knows no workflow engine and no platform. Blocking code with threads; callers
run it in a thread of their own. Start at `session`.
"""

from transfer.control import Control
from transfer.http_source import HttpRangeSource
from transfer.plan import Progress, RollbackResult, RoundPlan, RoundResult, VerifyResult
from transfer.ranges import Range, Ranges
from transfer.session import DiskSession, SessionStatus, open_session
from transfer.source import FileSource, Source
from transfer.target import DeviceTarget

__all__ = [
    "Control",
    "DeviceTarget",
    "DiskSession",
    "FileSource",
    "HttpRangeSource",
    "Progress",
    "Range",
    "Ranges",
    "RollbackResult",
    "RoundPlan",
    "RoundResult",
    "SessionStatus",
    "Source",
    "VerifyResult",
    "open_session",
]
