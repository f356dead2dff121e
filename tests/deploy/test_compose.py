"""`docker-compose.yml` as a reader without Docker can check it: the compose specification's own
schema, what is published where, what is pinned, what is secret, and whether mounted files exist."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
# Made by the operator before the first start (deploy/README.md).
OPERATORS_OWN = {
    "deploy/worker.toml",
    "deploy/azure.env",
    "deploy/secrets/postgres_password",
    "deploy/secrets/grafana_password",
    "deploy/secrets/hyperv_password",
}
# Run to their end, or hold no program that could be asked from inside.
WITHOUT_HEALTH_CHECK = {"temporal-schema", "temporal-namespace", "otel-collector"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document = yaml.safe_load(COMPOSE.read_text())
    assert isinstance(document, dict)
    return document


def test_holds_against_the_compose_specifications_schema() -> None:
    checker = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run(
        [str(checker), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_has_every_process_of_the_product(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) >= {
        *("postgresql", "temporal", "temporal-ui", "control", "mover"),
        *("otel-collector", "prometheus", "grafana"),
    }


def test_publishes_ports_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [p for s in compose["services"].values() for p in s.get("ports", [])]
    assert published
    assert [port for port in published if not str(port).startswith("127.0.0.1:")] == []


def test_pins_every_image_to_a_version(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        repository, _, tag = service["image"].rpartition(":")
        assert repository, name
        assert tag[:1].isdigit() or tag[:1] == "v", f"{name}: {service['image']}"
        # An image name with a host in it would name a registry.
        assert "." not in repository.split("/")[0], name


def test_server_ui_and_tools_fit_the_embedded_server(compose: dict[str, Any]) -> None:
    program = Path(sys.executable).parent / "temporal"
    said = subprocess.run(
        [str(program), "--version"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    services = compose["services"]
    server, tools = (services[n]["image"].split(":")[1] for n in ("temporal", "temporal-schema"))
    assert server == tools
    assert f"Server {server}," in said
    assert f"UI {services['temporal-ui']['image'].split(':')[1]})" in said


def test_every_lasting_service_restarts_and_says_whether_it_is_well(
    compose: dict[str, Any],
) -> None:
    for name, service in compose["services"].items():
        if name not in WITHOUT_HEALTH_CHECK:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"], name


def test_waits_only_for_conditions_that_can_come_true(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for {other}"
            else:
                assert other in WITHOUT_HEALTH_CHECK, f"{name} waits for {other}"


def test_writes_no_secret_inline(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if any(word in key for word in ("PASSWORD", "PWD", "SECRET", "TOKEN", "KEY")):
                assert str(value).startswith("/run/secrets/"), f"{name}: {key}"
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())


def test_every_mounted_file_exists_or_is_the_operators_own(compose: dict[str, Any]) -> None:
    volumes = [v for s in compose["services"].values() for v in s.get("volumes", [])]
    sources = {v.split(":")[0].removeprefix("./") for v in volumes}
    sources |= {secret["file"] for secret in compose["secrets"].values()}
    named = set(compose["volumes"])
    for source in sources - named - OPERATORS_OWN:
        assert source.startswith("/dev") or (ROOT / source).exists(), source


def test_git_never_takes_the_operators_own_files() -> None:
    for path in OPERATORS_OWN:
        done = subprocess.run(
            ["git", "check-ignore", "--quiet", path], cwd=ROOT, timeout=30, check=False
        )
        assert done.returncode == 0, path
