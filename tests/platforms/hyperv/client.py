"""A client that tests can kill: creates a machine, as a worker's activity would.

`python -m tests.platforms.hyperv.client`, with settings, spec, machine and run id as JSON on
standard input.
"""

from __future__ import annotations

import json
import sys

from models.machine import OnPremisesMachine
from models.spec import FailbackSpec
from platforms.base import Call
from platforms.hyperv import HyperVHost, HyperVPlatform, Secret


def main() -> None:
    """Create the machine, and end."""
    order = json.load(sys.stdin)
    settings = order["settings"]
    host = HyperVHost(
        endpoint=settings["endpoint"],
        username=settings["user"],
        password=Secret(settings["password"]),
        ca_file=settings["ca_file"],
    )
    HyperVPlatform({"hv1": host}).create_machine(
        FailbackSpec.model_validate(order["spec"]),
        OnPremisesMachine.model_validate(order["machine"]),
        order["run_id"],
        Call(),
    )


if __name__ == "__main__":
    main()
