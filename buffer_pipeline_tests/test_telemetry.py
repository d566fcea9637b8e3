"""OpenTelemetry: traces and logs of a release reach a collector, where somebody has set one up."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine
from werkzeug import Request, Response

from buffer_pipeline_tests.builders import PAYEE, PAYER, place_hold
from buffer_pipeline_tests.conftest import NOON

PROGRAMS = Path(sys.executable).parent


def release(database_url: str, home: Path, *, collector: HTTPServer, **settings: str) -> str:
    """Release by the command line under OpenTelemetry's own starter; return what it answered."""
    done = subprocess.run(
        [PROGRAMS / "opentelemetry-instrument", PROGRAMS / "buffer-pipeline", "release", "--workers", "2"],
        env={
            **os.environ,
            "BUFFER_DATABASE_URL": database_url,
            "BUFFER_HOME": str(home),
            "BUFFER_LOG": "json",
            "OTEL_SERVICE_NAME": "buffer-pipeline",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url_for("").rstrip("/"),
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRICS_EXPORTER": "none",
            **settings,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_traces_and_logs_of_a_release_reach_a_collector(
    httpserver: HTTPServer, database_url: str, engine: Engine, home: Path
) -> None:
    """A span of the run and one of each batch, its lines with the trace's id, and nobody's name in either."""
    sent: dict[str, list[bytes]] = {"/v1/traces": [], "/v1/logs": []}

    def take(request: Request) -> Response:
        sent[request.path].append(request.get_data())
        return Response(b"", content_type="application/x-protobuf")

    for path in sent:
        httpserver.expect_request(path).respond_with_handler(take)
    with engine.begin() as connection:
        for number in (17, 18):
            place_hold(connection, held_at=NOON, release_date=NOON, payee=f"worker-{number}")

    answer = release(
        database_url,
        home,
        collector=httpserver,
        OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED="true",
    )

    assert "Released 2 payments, 2000.00 PHP, in 2 batches" in answer
    spans = [
        span
        for body in sent["/v1/traces"]
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        if scope.scope.name == "buffer_pipeline"
        for span in scope.spans
    ]
    (run,) = [span for span in spans if span.name == "release"]
    batches = [span for span in spans if span.name == "batch" and "buffer.batch_id" in facts(span)]
    assert facts(run) == {"buffer.source": "cli", "buffer.holds_released": 2, "buffer.batches": 2}
    assert {facts(batch)["buffer.batch_id"] for batch in batches} == {1, 2}
    assert {batch.parent_span_id for batch in batches} == {run.span_id}
    records = [
        record
        for body in sent["/v1/logs"]
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    released = [record for record in records if record.body.string_value == "batch released"]
    assert {record.trace_id for record in released} == {run.trace_id}
    everything = b"".join([*sent["/v1/traces"], *sent["/v1/logs"]])
    for name in (PAYEE, PAYER, "worker-18"):
        assert name.encode() not in everything


def facts(span: Any) -> dict[str, Any]:
    """Return a span's attributes."""
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


def test_collector_that_does_not_answer_holds_no_release_up(
    httpserver: HTTPServer, database_url: str, engine: Engine, home: Path
) -> None:
    """Where every export fails, payments are released all the same."""
    httpserver.expect_request("/v1/traces").respond_with_data("no", status=400)
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON, release_date=NOON)

    answer = release(
        database_url,
        home,
        collector=httpserver,
        OTEL_LOGS_EXPORTER="none",
    )

    assert "Released 1 payment, " in answer
    assert len(httpserver.log) >= 1
