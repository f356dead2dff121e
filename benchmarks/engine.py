"""The engine as a process of its own: `python -m benchmarks.engine`, one round and out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from transfer import (
    DeviceTarget,
    FileSource,
    HttpRangeSource,
    Range,
    RoundPlan,
    Source,
    open_session,
)


def main() -> None:
    """Apply one round and print what it did as JSON."""
    arguments = _arguments()
    target = Path(arguments.target)
    source, ranges = _source(arguments, target.stat().st_size)
    plan = RoundPlan(
        number=arguments.round,
        source_id=f"snapshot-{arguments.round}",
        base_id="snapshot-1" if arguments.method == "changed-ranges" else None,
        method=arguments.method,
        verify=not arguments.no_read_back,
        new_disk=arguments.new_disk,
    )
    with open_session(arguments.state, "disk", "run", DeviceTarget(target, source.size)) as session:
        result = session.apply_round(plan, source, ranges)
    source.close()
    print(json.dumps(asdict(result)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", help="a raw file, or an address that serves ranges")
    parser.add_argument("target")
    parser.add_argument("state")
    parser.add_argument("--method", default="compare")
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--changes", help="JSON list of [offset, length]")
    parser.add_argument("--ca-file")
    parser.add_argument("--no-read-back", action="store_true")
    parser.add_argument("--new-disk", action="store_true")
    return parser.parse_args()


def _source(
    arguments: argparse.Namespace, size: int
) -> tuple[Source, Callable[[], Iterable[Range]]]:
    source: Source
    if arguments.source.startswith("http"):
        source = HttpRangeSource(
            lambda _: str(arguments.source), size=size, ca_file=arguments.ca_file
        )
        allocated: Callable[[], Iterable[Range]] = lambda: [Range(0, size)]  # noqa: E731
    else:
        source = file = FileSource(arguments.source)
        allocated = file.allocated
    if arguments.method != "changed-ranges":
        return source, allocated
    changes = [Range(*pair) for pair in json.loads(Path(arguments.changes).read_text())]
    return source, lambda: changes


if __name__ == "__main__":
    main()
