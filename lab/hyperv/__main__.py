"""``python -m lab.hyperv --dir DIR``: runs the host of a lab directory until it is stopped.

The directory was filled by `lab.hyperv.seed`. ``DIR/hyperv.ready`` is there while the host
listens; it holds the process id. The host may be killed at any instant and started again.
"""

import argparse
import fcntl
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

from lab.chaos import Chaos
from lab.hyperv.host import Host
from lab.hyperv.seed import READY_FILE
from lab.hyperv.server import Server, admin_handler, set_user, wsman_handler
from lab.hyperv.shells import Shells
from lab.tls import server_context


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m lab.hyperv", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="the lab's directory")
    directory: Path = parser.parse_args().dir.absolute()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s hyperv %(name)s: %(message)s"
    )
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    lock = (directory / "hyperv" / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        parser.exit(1, f"another host serves {directory} already\n")
    ready = directory / READY_FILE
    ready.unlink(missing_ok=True)
    host = Host(directory)
    host.recover()
    serve(host, directory)
    temporary = ready.with_name(ready.name + ".new")
    temporary.write_text(f"{os.getpid()}\n")
    temporary.replace(ready)
    stopped.wait()
    ready.unlink(missing_ok=True)


def serve(host: Host, directory: Path) -> None:
    """Opens the three doors; returns at once."""
    state = host.state
    set_user(directory / "hyperv" / "users", state.user, state.password)
    shells = Shells(host, Chaos(directory, "hyperv"))
    Server(
        state.https_port, wsman_handler(shells, encrypted=False), server_context(directory)
    ).run()
    Server(state.http_port, wsman_handler(shells, encrypted=True), None).run()
    Server(state.admin_port, admin_handler(lambda: dump(host), _guest_changer(host)), None).run()


def dump(host: Host) -> dict[str, Any]:
    """The whole state for the lab's own eyes, with what the guests say, without the password."""
    with host.lock:
        state = host.state.model_dump(mode="json", exclude={"password"})
        for machine, shown in zip(host.state.machines, state["machines"], strict=True):
            guest = host.guest(machine)
            shown["guest"] = guest.status() if guest is not None else None
    return state


def _guest_changer(host: Host) -> Any:
    def change(name: str, settings: dict[str, Any]) -> bool:
        """Sets a running guest's ``refuse_shutdown`` or ``mute``."""
        for machine in host.state.machines:
            guest = host.guest(machine)
            if machine.name == name and guest is not None:
                guest.refuse_shutdown = bool(settings.get("refuse_shutdown", guest.refuse_shutdown))
                guest.mute = bool(settings.get("mute", guest.mute))
                return True
        return False

    return change


if __name__ == "__main__":
    main()
