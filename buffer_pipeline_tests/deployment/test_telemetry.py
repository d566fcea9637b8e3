"""OpenTelemetry: traces and logs of a release reach a collector, if one is configured."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, select
from werkzeug import Request, Response

from buffer_pipeline.release_run import run as drain_module
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.tables import unsettled_hold
from buffer_pipeline_tests.support.builders import DAY_7, NOON, PAYEE, PAYER, place_hold
from buffer_pipeline_tests.support.stack import (
    end_of,
    free_port,
    hourly_release_stopped,
    launch_release,
    lines_until_ui,
    serving,
    wait_for,
)

pytestmark = pytest.mark.dagster  # These tests do not depend on the server's version.
PROGRAMS = Path(sys.executable).parent
STARTER = PROGRAMS / "opentelemetry-instrument"


def telemetry(collector: str, **settings: str) -> dict[str, str]:
    """Return the environment of OpenTelemetry's launcher."""
    return {
        "OTEL_SERVICE_NAME": "buffer-pipeline",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "none",
        **settings,
    }


def address(collector: HTTPServer) -> str:
    """Return the address of a collector."""
    return collector.url_for("").rstrip("/")


def release(database_url: str, home: Path, *, collector: str, **settings: str) -> str:
    """Run a release command under OpenTelemetry's launcher; return its output."""
    done = subprocess.run(
        [STARTER, PROGRAMS / "buffer-pipeline", "release", "--workers", "2"],
        env={
            **os.environ,
            "BUFFER_DATABASE_URL": database_url,
            "BUFFER_HOME": str(home),
            "BUFFER_LOG": "json",
            **telemetry(collector, **settings),
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
    """One span for the run and one for each batch, log lines with the trace's id, and no owner's name."""
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
        collector=address(httpserver),
        OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED="true",
    )

    assert "Released 2 payments, 2000.00 PHP, in 2 batches" in answer
    spans = spans_in(sent["/v1/traces"])
    (run,) = [span for span in spans if span.name == "release"]
    batches = [span for span in spans if span.name == "batch" and "buffer.batch_id" in facts(span)]
    assert facts(run) == {
        "buffer.source": "cli",
        "buffer.dry_run": False,
        "buffer.holds_released": 2,
        "buffer.batches": 2,
    }
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


def spans_in(bodies: list[bytes]) -> list[Any]:
    """Return this package's spans among those that a collector got."""
    return [
        span
        for body in bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        if scope.scope.name == "buffer_pipeline"
        for span in scope.spans
    ]


def test_run_of_dagsters_is_traced(
    httpserver: HTTPServer, database_url: str, engine: Engine, home: Path
) -> None:
    """Under OpenTelemetry's launcher, `dev` traces its runs, although each is a process."""
    sent: list[bytes] = []

    def take(request: Request) -> Response:
        sent.append(request.get_data())
        return Response(b"", content_type="application/x-protobuf")

    httpserver.expect_request("/v1/traces").respond_with_handler(take)
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON, release_date=NOON)
    settings = telemetry(address(httpserver), OTEL_LOGS_EXPORTER="none", BUFFER_DATABASE_URL=database_url)
    port = free_port()

    with serving(home, port, sample=False, starter=[STARTER], **settings) as process:
        lines_until_ui(process)
        with hourly_release_stopped(port):
            run_id = launch_release(port)
            assert end_of(port, run_id) == "SUCCESS"
            runs = wait_for(
                lambda: [span for span in spans_in(sent) if span.name == "release"], what="a span"
            )

    assert [facts(run)["buffer.source"] for run in runs] == [f"dagster run {run_id}"]
    assert facts(runs[0])["buffer.holds_released"] == 1


def facts(span: Any) -> dict[str, Any]:
    """Return a span's attributes."""
    return {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in span.attributes}


def test_release_does_not_wait_for_an_absent_collector(database_url: str, engine: Engine, home: Path) -> None:
    """Payments are released without a listener."""
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON, release_date=NOON)

    answer = release(
        database_url, home, collector=f"http://127.0.0.1:{free_port()}", OTEL_LOGS_EXPORTER="none"
    )

    assert "Released 1 payment, " in answer


def test_skipped_lock_is_no_error_in_the_trace(engine: Engine, spans: InMemorySpanExporter) -> None:
    """No span is an error, and none contains a statement."""
    with engine.begin() as connection:
        kept, _ = place_hold(connection, held_at=NOON), place_hold(connection, held_at=NOON)

    with engine.connect() as other:
        other.execute(select(unsettled_hold).where(unsettled_hold.c.hold_id == kept).with_for_update())
        release_all_due(engine, due_by=DAY_7, source="a test")

    found = spans.get_finished_spans()
    assert {span.name for span in found} == {"release", "batch"}
    assert {span.status.status_code for span in found} == {StatusCode.UNSET}
    assert [event for span in found for event in span.events] == []


def test_failed_run_is_traced_by_the_kind_of_its_error(engine: Engine, spans: InMemorySpanExporter) -> None:
    """Without the error's message."""
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON)

    def fail(*_: object) -> None:
        raise RuntimeError("worker-17")

    with pytest.raises(RuntimeError):
        release_all_due(engine, due_by=DAY_7, source="a test", on_batch=fail, dry_run=True)

    (run,) = [span for span in spans.get_finished_spans() if span.name == "release"]
    assert (run.status.status_code, run.status.description) == (StatusCode.ERROR, "RuntimeError")
    assert run.attributes is not None
    assert run.attributes["buffer.dry_run"] is True
    assert run.events == ()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans of this process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(drain_module, "tracer", provider.get_tracer("buffer_pipeline"))
    return exporter
