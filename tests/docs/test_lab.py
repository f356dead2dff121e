"""The page about the lab, played from `up` to `down`. The trouble that it proposes is made by the
end-to-end tests; here its commands are only parsed (test_commands)."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.tables import DOCS
from tests.starter.conftest import BINARIES


def _blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (DOCS / "lab.md").read_text(), re.DOTALL)


@pytest.mark.e2e
def test_the_page_can_be_played(tmp_path: Path) -> None:
    play, look, go_through, _trouble = _blocks()
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TEMPORAL_", "FAILBACK_", "AZURE_", "IDENTITY_"))
    }
    environment["PATH"] = f"{BINARIES}:{environment['PATH']}"
    try:
        done = subprocess.run(
            ["bash", "-eu", "-c", play + look + go_through],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "All checks hold" in done.stdout
        assert "Completed" in done.stdout
        assert (tmp_path / "failback-web01.html").stat().st_size > 10_000
    finally:
        subprocess.run(
            [str(BINARIES / "failback"), "lab", "down", "--delete"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert not (tmp_path / ".lab").exists()
