"""Configuration from file and variables; wrong values are named, secrets stay where they are."""

from pathlib import Path

import pytest

from models.errors import InvalidConfiguration
from worker.settings import load_settings

GOOD = """
[azure]
base_url = "https://arm.example"
polling_interval = "500ms"

[hyperv.hv01]
endpoint = "https://hv01.example:5986/wsman"
username = "failback"
password_env = "HV01_PASSWORD"

[mover]
state_dir = "/srv/failback"
in_flight = "32MiB"
"""


def written(directory: Path, text: str) -> Path:
    """A configuration file."""
    path = directory / "worker.toml"
    path.write_text(text)
    return path


def test_a_file_is_read_with_units(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, GOOD))
    assert settings.azure.polling_interval == 0.5
    assert settings.mover.in_flight == 32 * 2**20
    assert settings.hyperv["hv01"].transport == "ntlm"


def test_a_variable_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILBACK_AZURE__POLLING_INTERVAL", "3s")
    settings = load_settings(written(tmp_path, GOOD))
    assert settings.azure.polling_interval == 3
    assert settings.azure.base_url == "https://arm.example"


def test_a_password_comes_from_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = load_settings(written(tmp_path, GOOD)).hyperv["hv01"]
    with pytest.raises(InvalidConfiguration, match="hv01"):
        host.password()
    monkeypatch.setenv("HV01_PASSWORD", "secret")
    assert host.password() == "secret"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[azure", "not TOML"),
        ("[azzure]\n", "azzure"),
        ("[mover]\nthreads = 0\n", "mover.threads"),
        ("[hyperv.h]\nusername = 'x'\n", "endpoint"),
    ],
)
def test_a_wrong_file_is_refused_and_says_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=said):
        load_settings(written(tmp_path, text))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        load_settings(tmp_path / "none.toml")
