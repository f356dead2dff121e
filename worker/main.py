"""The composition root: configuration to clients, to activities, to Temporal workers.

`failback worker control` runs workflows and the control planes of Azure and the hypervisor;
`failback worker mover --name NAME` runs the data plane of the disks attached to this host.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.cloud import CloudActivities
from activities.health import HealthActivities
from activities.mover import MoverActivities, MoverOptions
from activities.on_premises import OnPremisesActivities
from models.calls import CONTROL_QUEUE, mover_queue
from models.errors import FailbackError
from worker.connection import connect, register_search_attributes
from worker.platforms import build_cloud, build_platforms
from worker.settings import WorkerSettings, load_settings
from worker.telemetry import start_telemetry
from workflows.doctor import DoctorWorkflow
from workflows.failback import FailbackWorkflow
from workflows.preflight import PreflightWorkflow

WORKFLOWS: list[type] = [FailbackWorkflow, PreflightWorkflow, DoctorWorkflow]

# How soon a cancel reaches a copy: the server is told of a heartbeat at most this late.
_HEARTBEAT_THROTTLE = timedelta(seconds=1)
# A copy stops at the next piece; a control-plane call at its next poll.
_GRACE = timedelta(seconds=20)

log = logging.getLogger("failback.worker")


def sandbox() -> SandboxedWorkflowRunner:
    """Workflows run sandboxed; the vocabulary and pydantic are shared with the rest."""
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules(
            "models", "pydantic", "pydantic_core", "yaml"
        )
    )


def control_worker(client: Client, settings: WorkerSettings) -> Worker:
    """Workflows and control planes."""
    platforms = build_platforms(settings)
    cloud = CloudActivities(platforms.cloud)
    on_premises = OnPremisesActivities(platforms)
    health = HealthActivities(platforms, settings.health.script_dir, settings.health.ca_file)
    return Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=WORKFLOWS,
        workflow_runner=sandbox(),
        activities=[*methods(cloud), *methods(on_premises), *methods(health)],
        max_concurrent_activities=64,
        graceful_shutdown_timeout=_GRACE,
        max_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
    )


def mover_worker(client: Client, settings: WorkerSettings, name: str) -> Worker:
    """The data plane of one mover."""
    section = settings.mover
    options = MoverOptions(
        name=name,
        state_dir=section.state_dir,
        device_dir=section.device_dir,
        device_timeout=section.device_timeout,
        threads=section.threads,
        in_flight_bytes=section.in_flight,
        lock_timeout=section.lock_timeout,
    )
    activities = MoverActivities(build_cloud(settings.azure), options)
    return Worker(
        client,
        task_queue=mover_queue(name),
        activities=methods(activities),
        # Orders to running copies need a slot too.
        max_concurrent_activities=section.max_copies + 4,
        activity_task_poller_behavior=PollerBehaviorSimpleMaximum(maximum=2),
        graceful_shutdown_timeout=_GRACE,
        max_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
    )


def methods(instance: object) -> list[Callable[..., Any]]:
    """The methods of an object that are activities."""
    named = (getattr(instance, name) for name in dir(instance) if not name.startswith("__"))
    return [m for m in named if hasattr(m, "__temporal_activity_definition")]


async def serve(build: Callable[[Client], Worker], ready_file: Path | None) -> None:
    """Connect, run until SIGTERM or SIGINT, shut down in good order."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    client = await connect(stop)
    if client is None:
        return
    await register_search_attributes(client)
    worker = build(client)
    async with worker:
        log.info("worker polls %s", worker.task_queue)
        if ready_file is not None:
            await asyncio.to_thread(ready_file.write_text, str(os.getpid()))
        await stop.wait()
        log.info("worker on %s shuts down", worker.task_queue)


def main(argv: Sequence[str]) -> int:
    """`failback worker …`: run one worker until it is told to stop; returns the exit status."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=arguments.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("azure").setLevel(logging.WARNING)
    try:
        settings = load_settings(arguments.config)
        start_telemetry(arguments.role)
        if arguments.role == "mover":
            name = arguments.name
            asyncio.run(serve(lambda c: mover_worker(c, settings, name), arguments.ready_file))
        else:
            asyncio.run(serve(lambda c: control_worker(c, settings), arguments.ready_file))
    except FailbackError as error:
        log.error("%s %s", error.code, error)
        return error.exit_status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="failback worker",
        description="Run a worker: one control worker near Temporal, one mover per master target.",
        epilog="Temporal's address comes from TEMPORAL_ADDRESS or the Temporal CLI's profiles; "
        "who we are in Azure from the environment (DefaultAzureCredential). "
        "Example: failback worker mover --name mover01 --config /etc/failback/worker.toml",
    )
    roles = parser.add_subparsers(dest="role", required=True)
    control = roles.add_parser("control", help="workflows and control planes")
    mover = roles.add_parser("mover", help="data plane of the disks attached to this host")
    mover.add_argument("--name", required=True, help="the mover's name, as specs name it")
    config = os.environ.get("FAILBACK_CONFIG")
    for role in (control, mover):
        role.add_argument(
            "--config",
            type=Path,
            default=Path(config) if config else None,
            help="TOML file (default: $FAILBACK_CONFIG); see docs/configuration.md",
        )
        role.add_argument("--log-level", default="info", help="debug, info, warning or error")
        role.add_argument("--ready-file", type=Path, help="written once the worker polls")
    return parser
