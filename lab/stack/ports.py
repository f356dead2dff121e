"""Ports of a lab: chosen once, then kept, so that whoever connects survives every restart.

They lie below the range from which the kernel takes ports for outgoing connections: a port of that
range could be gone when the process that listens on it comes back.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.stack.errors import LabError

FILE = "ports.json"
FIRST, LAST = 10_000, 32_767
_TRIES = 200


def load_or_choose(
    directory: Path, names: Sequence[str], preferred: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The lab's ports by name; free ones are chosen for names that have none yet.

    Args:
        directory: Where they are kept.
        names: What needs a port.
        preferred: Taken for a name if it is free at this moment.

    Raises:
        LabError: no free port was found.
    """
    path = directory / FILE
    known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in names if name not in known]
    if not missing:
        return known
    for name in missing:
        wanted = (preferred or {}).get(name)
        known[name] = wanted if wanted and is_free(wanted) else _choose(set(known.values()))
    directory.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(FILE + ".new")
    temporary.write_text(json.dumps(known, indent=1))
    temporary.replace(path)
    return known


def is_free(port: int) -> bool:
    """Whether nothing listens on a loopback port at this moment."""
    with socket.socket() as probe:
        # A connection that ended a moment ago does not keep a server from coming back.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _choose(taken: set[int]) -> int:
    for _ in range(_TRIES):
        port = random.SystemRandom().randint(FIRST, LAST)
        if port not in taken and is_free(port):
            return port
    raise LabError(f"No free port between {FIRST} and {LAST} was found in {_TRIES} tries.")
