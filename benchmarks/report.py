"""What was measured, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
import platform
import shlex
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import MIB, Measurement


@dataclass
class Row:
    """One contender's runs, in the order of the rounds.

    Attributes:
        correct: Whether the target equalled the source after the last run.
    """

    name: str
    command: list[str]
    runs: list[Measurement] = field(default_factory=list)
    correct: bool = False

    def median(self, what: str) -> float:
        """Median over the rounds."""
        return float(statistics.median(getattr(run, what) for run in self.runs))


@dataclass
class Result:
    """One group's rows; ratios are to the first."""

    key: str
    title: str
    size: int
    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def ratio(self, row: Row) -> float:
        """How many times the first row's wall time it took: median of the paired quotients."""
        pairs = zip(row.runs, self.rows[0].runs, strict=True)
        return statistics.median(one.wall_seconds / first.wall_seconds for one, first in pairs)


def show(result: Result, console: Console) -> None:
    """Print a group's table."""
    table = Table(title=f"{result.key}: {result.title}, {result.size // MIB} MiB", min_width=100)
    table.add_column("contender")
    for column in ("wall s", "min-max", "ratio to 1st", "CPU s", "peak RSS MiB", "MiB/s", "equal"):
        table.add_column(column, justify="right")
    for row in result.rows:
        walls = [run.wall_seconds for run in row.runs]
        wall = row.median("wall_seconds")
        table.add_row(
            row.name,
            f"{wall:.2f}",
            f"{min(walls):.2f}-{max(walls):.2f}",
            f"{result.ratio(row):.2f}",
            f"{row.median('cpu_seconds'):.2f}",
            f"{row.median('peak_rss_bytes') / MIB:.0f}",
            f"{result.size / MIB / wall:.0f}",
            "yes" if row.correct else "NO",
        )
    console.print(table)
    for name in result.missing:
        console.print(f"  not on this machine: {name}")
    for row in result.rows:
        console.print(f"  $ {shlex.join(row.command)}", style="dim", soft_wrap=True)


def write_json(path: Path, results: list[Result], memory: dict[str, int]) -> None:
    """Write everything that was measured."""
    body: dict[str, Any] = {
        "machine": {"processor": platform.processor(), "kernel": platform.release()},
        "peak_rss_bytes": memory,
        "groups": [
            {
                **asdict(result),
                "ratios": {row.name: round(result.ratio(row), 3) for row in result.rows},
            }
            for result in results
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=1) + "\n")
