"""`python -m benchmarks`: measure, print tables, write JSON."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console

from benchmarks.groups import KEYS, Group, build
from benchmarks.measure import MIB, measure, memory_floor
from benchmarks.memory import peak_memory
from benchmarks.report import Result, Row, show, write_json

_WIDTH = 130
"""Columns of a table, so that names and figures stay on one line where the output is a file too."""


def main() -> None:
    """Run the chosen groups, one after the other."""
    arguments = _arguments()
    console = Console(width=max(_WIDTH, Console().width))
    started = time.monotonic()
    results = list[Result]()
    for key in arguments.only or KEYS:
        if key == "memory":
            continue
        with build(key, arguments.directory, arguments.size * MIB, arguments.dirty) as group:
            results.append(_run(group, arguments.rounds, cold=arguments.cold))
        show(results[-1], console)
    memory = dict[str, int]()
    if not arguments.only or "memory" in arguments.only:
        memory = peak_memory(arguments.directory)
        memory["floor of the method"] = memory_floor(arguments.directory)
        for name, peak in memory.items():
            console.print(f"peak RSS, engine, {name}: {peak // MIB} MiB")
    write_json(arguments.json, results, memory)
    console.print(f"{time.monotonic() - started:.0f} s; figures in {arguments.json}")


def _run(group: Group, rounds: int, *, cold: bool) -> Result:
    """Let the contenders take turns."""
    result = Result(group.key, group.title, group.disks.size)
    here = [one for one in group.contenders if one.is_here]
    result.missing = [one.name for one in group.contenders if not one.is_here]
    result.rows = [Row(one.name, one.command) for one in here]
    for number in range(rounds):
        for contender, row in zip(here, result.rows, strict=True):
            contender.prepare()
            if cold:
                group.disks.evict()
            row.runs.append(measure(contender.command, group.disks.target))
            if number == rounds - 1:
                row.correct = group.disks.equal()
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="The engine against its peers, as ratios."
    )
    parser.add_argument("--size", type=int, default=1024, help="MiB of each disk (1024)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender (3)")
    parser.add_argument("--dirty", type=float, default=0.1, help="share of clusters (0.1)")
    parser.add_argument(
        "--only", nargs="+", choices=[*KEYS, "memory"], help="these groups, not all"
    )
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each run")
    parser.add_argument("--directory", type=Path, default=Path(".lab/benchmarks"))
    parser.add_argument("--json", type=Path, default=Path(".lab/benchmarks.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
