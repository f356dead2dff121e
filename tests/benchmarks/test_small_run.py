"""The benchmarks run, on small disks, and every contender brings the right bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("group", ["delta", "new", "http", "https"])
def test_a_group_is_measured_and_every_target_is_right(tmp_path: Path, group: str) -> None:
    figures = _run(tmp_path, group, os.environ["PATH"])
    (found,) = figures["groups"]
    assert len(found["rows"]) >= 2
    assert all(row["correct"] for row in found["rows"])
    assert found["ratios"][found["rows"][0]["name"]] == 1.0


def test_peers_that_are_not_installed_are_named(tmp_path: Path) -> None:
    figures = _run(tmp_path, "delta", "/nonexistent")
    (found,) = figures["groups"]
    assert found["missing"] == ["qemu-img convert -n", "rsync --inplace --no-whole-file"]


def test_the_bundled_server_takes_the_place_of_a_missing_one(tmp_path: Path) -> None:
    figures = _run(tmp_path, "https", "/nonexistent")
    (found,) = figures["groups"]
    assert "(Python)" in found["title"]
    assert all(row["correct"] for row in found["rows"])


def _run(place: Path, group: str, path: str) -> dict[str, Any]:
    options = ["--size", "16", "--rounds", "1", "--only", group]
    places = ["--directory", str(place / "disks"), "--json", str(place / "figures.json")]
    subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, *places],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": path},
    )
    figures: dict[str, Any] = json.loads((place / "figures.json").read_text())
    return figures
