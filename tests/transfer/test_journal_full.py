"""A full journal disk stops the round and loses nothing: it goes on, or back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("small", ["9m", "11m", "16m", "22m"])
def test_a_full_journal_disk_stops_the_round_which_then_goes_back_or_on(
    tmp_path: Path, small: str
) -> None:
    own_namespace = ["unshare", "--mount"]
    if os.geteuid() != 0:
        own_namespace.append("--map-root-user")
    module = [sys.executable, "-m", "tests.transfer.full_disk_process"]
    ran = subprocess.run(
        [*own_namespace, *module, str(tmp_path), small], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
