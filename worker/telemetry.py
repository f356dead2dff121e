"""OpenTelemetry by its standard variables: traces of workflows and activities, and Temporal's
metrics. Nothing is sent unless `OTEL_EXPORTER_OTLP_ENDPOINT` says where to."""

from __future__ import annotations

import os

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from temporalio.runtime import (
    LoggingConfig,
    OpenTelemetryConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)


def start_telemetry(role: str) -> None:
    """Set up traces, metrics and the core's log level for this process."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    logging_config = LoggingConfig(filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    metrics = OpenTelemetryConfig(url=endpoint) if endpoint else None
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=logging_config, metrics=metrics)))
    if endpoint:
        name = os.environ.get("OTEL_SERVICE_NAME", f"failback-{role}")
        provider = TracerProvider(resource=Resource.create({"service.name": name}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
