"""Telemetry end to end up to Prometheus: what a real worker sends to an OpenTelemetry collector
bears the names that the dashboard asks for, and the configuration in between fits together."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import temporalio
import yaml
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
TELEMETRY = ROOT / "deploy" / "telemetry"
BINARIES = Path(sys.executable).parent
# Only sent when a call to Temporal fails; looked for in the SDK's own source instead.
SENT_ON_FAILURE_ONLY = {"temporal_request_failure"}
SPEC = """
machine: app01
azure: {subscription_id: s, resource_group: rg, vm: app01}
on_premises: {host: hv01}
mover: mover01
"""


def _dashboard() -> dict[str, Any]:
    path = TELEMETRY / "grafana" / "dashboards" / "failback.json"
    document = json.loads(path.read_text())
    assert isinstance(document, dict)
    return document


def _expressions() -> list[str]:
    return [t["expr"] for panel in _dashboard()["panels"] for t in panel["targets"]]


def _asked_for() -> set[str]:
    """Metric names of the dashboard without what Prometheus appends to a histogram."""
    names = set(re.findall(r"\btemporal_\w+", " ".join(_expressions())))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


class Collector(metrics_grpc.MetricsServiceServicer, traces_grpc.TraceServiceServicer):
    """The receiving end of OTLP; remembers names."""

    def __init__(self) -> None:
        self.labels: dict[str, set[str]] = {}
        self.spans: set[str] = set()

    def Export(self, request: Any, context: Any) -> Any:
        """Both services' one method; told apart by what arrives."""
        del context
        if isinstance(request, traces.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.spans |= {span.name for span in scope.spans}
            return traces.ExportTraceServiceResponse()
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._keep(metric)
        return metrics.ExportMetricsServiceResponse()

    def _keep(self, metric: Any) -> None:
        data = getattr(metric, metric.WhichOneof("data"))
        keys = {a.key for point in data.data_points for a in point.attributes}
        self.labels.setdefault(metric.name, set()).update(keys)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that has heard a control worker through one `failback check`."""
    folder = tmp_path_factory.mktemp("telemetry")
    heard = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    metrics_grpc.add_MetricsServiceServicer_to_server(heard, server)  # type: ignore[no-untyped-call]
    traces_grpc.add_TraceServiceServicer_to_server(heard, server)  # type: ignore[no-untyped-call]
    otlp, temporal = server.add_insecure_port("127.0.0.1:0"), _free_port()
    server.start()
    environment = {
        **os.environ,
        "TEMPORAL_ADDRESS": f"127.0.0.1:{temporal}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        # Nobody in Azure: every check fails at once, and nothing leaves this machine.
        "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
        "FAILBACK_AZURE__BASE_URL": "https://127.0.0.1:1",
        "FAILBACK_MOVER__STATE_DIR": str(folder / "state"),
    }
    log = (folder / "log").open("wb")
    ready = folder / "control", folder / "mover"
    served = ("server", "start-dev", "--headless", "--ip", "127.0.0.1", "--log-level", "error")
    ports = ("--port", str(temporal), "--http-port", str(_free_port()))
    failback = str(BINARIES / "failback")
    words = [
        [str(BINARIES / "temporal"), *served, *ports],
        [failback, "worker", "control", "--ready-file", str(ready[0])],
        [failback, "worker", "mover", "--name", "mover01", "--ready-file", str(ready[1])],
    ]
    processes = [subprocess.Popen(w, env=environment, stdout=log, stderr=log) for w in words]
    try:
        wait_until(lambda: all(file.exists() for file in ready), timeout=40)
        done = subprocess.run(
            [failback, "check", "-", "--timeout", "60"],
            input=SPEC,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 5, done.stdout + done.stderr
        wanted = _asked_for() - SENT_ON_FAILURE_ONLY
        wait_until(lambda: wanted <= set(heard.labels) and heard.spans, timeout=20)
        yield heard
    finally:
        for process in processes:
            process.kill()
            process.wait()
        server.stop(None)


def test_workers_send_every_metric_the_dashboard_asks_for(collector: Collector) -> None:
    assert _asked_for() - SENT_ON_FAILURE_ONLY <= set(collector.labels)


def test_metrics_bear_the_labels_the_dashboard_groups_by(collector: Collector) -> None:
    known = set().union(*collector.labels.values()) | {"le", "operation"}
    for expression in _expressions():
        for group in re.findall(r"by \(([^)]+)\)", expression):
            assert {label.strip() for label in group.split(",")} <= known, expression


def test_workers_send_traces_of_what_they_do(collector: Collector) -> None:
    assert any("cloud_inspect" in name for name in collector.spans), collector.spans


def test_what_is_sent_on_failure_only_is_known_to_the_sdk() -> None:
    sources = Path(temporalio.__file__).parent / "bridge" / "sdk-core" / "crates"
    text = "".join(path.read_text() for path in sources.rglob("metrics.rs"))
    for name in SENT_ON_FAILURE_ONLY:
        assert f'"{name.removeprefix("temporal_")}"' in text


def test_collector_hands_metrics_to_prometheus_under_their_own_names() -> None:
    collector = yaml.safe_load((TELEMETRY / "collector.yaml").read_text())
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])
    assert collector["exporters"]["prometheus"]["add_metric_suffixes"] is False
    prometheus = yaml.safe_load((TELEMETRY / "prometheus.yaml").read_text())
    targets = {
        t for job in prometheus["scrape_configs"] for t in job["static_configs"][0]["targets"]
    }
    port = collector["exporters"]["prometheus"]["endpoint"].rpartition(":")[2]
    assert f"otel-collector:{port}" in targets
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {target.partition(":")[0] for target in targets} <= set(services)


def test_dashboard_uses_the_provisioned_data_source() -> None:
    folder = TELEMETRY / "grafana"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())
    uids = {entry["uid"] for entry in source["datasources"]}
    panels = _dashboard()["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} <= uids
    assert len({panel["id"] for panel in panels}) == len(panels)
