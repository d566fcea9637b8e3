"""The wheel with each extra alone, in a clean environment, does what the extra promises."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.programs import end, install, run

pytestmark = pytest.mark.dagster  # Installations use the default server.

CORE_DISTRIBUTIONS_MAX: Final = 20

HEAVY: Final = (
    "aiohttp",
    "apprise",
    "dagster",
    "fastapi",
    "jinja2",
    "lxml",
    "matplotlib",
    "pandas",
    "pygal",
    "rich",
    "schwifty",
    "typer",
)
"""Packages that a platform's backend must not load."""

BOOKS: Final = """
import os, sys
from datetime import UTC, datetime, timedelta
import buffer_pipeline as buffer
from buffer_pipeline.database import make_engine, migrate
engine = make_engine(os.environ["BUFFER_DATABASE_URL"])
migrate(engine)
now = datetime(2026, 3, 2, 12, tzinfo=UTC)
with engine.begin() as connection:
    buffer.add_pending_earnings(
        connection, reference="r-1", job="job-8", payee="worker-17", payer="client-3", amount="1250.50",
        currency="PHP", title="Fix the sink", policy=buffer.Policy(), now=now)
    released = buffer.release_matured(connection, now=now + timedelta(days=7), batch_limit=10)
    buffer.set_contact(connection, owner="worker-17", locale="fil_PH", time_zone="Asia/Manila", now=now)
assert released.amounts_minor == {"PHP": 125050}, released
"""
"""What the core promises: migrated books, an earning that is held and released, an owner's contact."""

PROMISES: Final = {
    "alerts": """
from buffer_pipeline.settings import Settings
assert len(Settings(alert_urls=("json://localhost",)).known_alert_urls()) == 1
""",
    "api": """
from buffer_pipeline.api.app import create_app
from buffer_pipeline.settings import Settings
app = create_app(os.environ["BUFFER_DATABASE_URL"], Settings())
from buffer_pipeline.api.openapi import document_of_the_api
assert "/holds/{hold_id}" in document_of_the_api(app)["paths"]
""",
    "cli": """
import subprocess
command = ["buffer-pipeline", "wallet", "show", "worker-17"]
assert "1250.50" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
""",
    "dagster": """
import dagster as dg
from buffer_pipeline.orchestration.definitions import defs
with dg.DagsterInstance.ephemeral() as instance:
    ended = defs.resolve_job_def("release_pending_payments").execute_in_process(instance=instance)
assert ended.success
""",
    "embedded": """
from pathlib import Path
from buffer_pipeline.embedded import embedded_server
with embedded_server(Path("home")) as server:
    migrate(make_engine(server.books_url))
""",
    "kubernetes": """
from dagster_k8s import K8sRunLauncher
from buffer_pipeline.orchestration.definitions import defs
""",
    "metrics": """
from prometheus_client import CollectorRegistry, generate_latest
from buffer_pipeline.monitoring.metrics import BooksCollector
registry = CollectorRegistry()
registry.register(BooksCollector(engine, policy=buffer.Policy(), endpoints=["log"]))
assert b"buffer_up 1.0" in generate_latest(registry)
""",
    "notifications": """
from buffer_pipeline.notifications.channels.channel import configured_endpoints
from buffer_pipeline.notifications.drain import drain
from buffer_pipeline.notifications.messages import Messages
from buffer_pipeline.settings import Settings
drained = drain(engine, configured_endpoints(Settings().endpoints), Messages())
assert drained.sent == 2, drained
""",
    "opentelemetry": """
import opentelemetry.instrumentation.logging
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
""",
    "payouts": """
import io
from collections import Counter
from datetime import date
from decimal import Decimal
from buffer_pipeline.payouts.files.debtor import Debtor
from buffer_pipeline.payouts.files.export import BatchHeader, write_payouts
from buffer_pipeline.payouts.lines import PayoutLine
from buffer_pipeline.payouts.files.status import read_statuses
iban, file = "DE89370400440532013000", io.BytesIO()
write_payouts(
    "pain.001",
    BatchHeader(batch_id=7, message_id="batch-7", currency="EUR", created_at=now,
        execution_date=date(2026, 3, 3), payouts=1, total=Decimal("10.50"),
        debtor=Debtor(name="shop", iban=iban, bic="COBADEFFXXX")),
    [PayoutLine(payout_id=41, end_to_end_id="payout-41", owner="worker-17", method="IBAN", account=iban,
        holder_name="worker 17", amount=Decimal("10.50"), currency="EUR")],
    file,
)
assert b"<EndToEndId>payout-41</EndToEndId>" in file.getvalue()
answer = b'''<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.03"><CstmrPmtStsRpt>
<OrgnlGrpInfAndSts><OrgnlMsgId>batch-7</OrgnlMsgId></OrgnlGrpInfAndSts>
<OrgnlPmtInfAndSts><TxInfAndSts><OrgnlEndToEndId>payout-41</OrgnlEndToEndId><TxSts>ACSC</TxSts></TxInfAndSts>
</OrgnlPmtInfAndSts></CstmrPmtStsRpt></Document>'''
(paid,) = read_statuses("pain.002", io.BytesIO(answer), message_id="batch-7", skipped=Counter())
assert paid.outcome == "PAID", paid
""",
    "reports": """
from datetime import date
from buffer_pipeline.reports.daily import daily_report, render_page
from buffer_pipeline.reports.hourly_counts import count_hours
with engine.begin() as connection:
    report = daily_report(connection, day=date(2026, 3, 9))
assert "<svg" not in render_page(report, made_at=now)
""",
}

NEEDED: Final = {
    "report": "reports",
    "notifications drain": "notifications",
    "notifications preview PAYMENT_RELEASED": "notifications",
    "metrics": "metrics",
    "dev": "dagster",
    "serve": "api",
}
"""Commands that need more than `cli`, and the extra that they name if it is missing."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the checkout."""
    folder = tmp_path_factory.mktemp("extras")
    run(ROOT, "uv", "build", "--wheel", "--out-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def empty_books(server: EmbeddedServer) -> Iterator[str]:
    """The owner's URL of a database without books."""
    with fresh_books(server, template="template1") as url:
        yield url


def run_python(programs: Path, code: str, folder: Path, url: str) -> str:
    """Run a program with an environment's Python."""
    path = f"{programs}:/usr/bin:/bin"
    return run(folder, programs / "python", "-c", code, BUFFER_DATABASE_URL=url, PATH=path)


def test_the_core_is_light(wheel: Path, empty_books: str, tmp_path: Path) -> None:
    """At most twenty distributions hold and release, and load no package that only extras need."""
    programs = install(wheel)

    listed = json.loads(run(tmp_path, "uv", "pip", "list", "--python", programs.parent, "--format", "json"))
    loaded = run_python(programs, f"{BOOKS}print(*sys.modules)", tmp_path, empty_books).split()

    assert len(listed) <= CORE_DISTRIBUTIONS_MAX
    assert set(HEAVY).isdisjoint(loaded)


@pytest.mark.parametrize("extra", PROMISES)
def test_an_extra_alone_does_what_it_promises(
    wheel: Path, extra: str, empty_books: str, tmp_path: Path
) -> None:
    """With only the core and this extra."""
    programs = install(wheel, extra)

    run_python(programs, BOOKS + PROMISES[extra], tmp_path, empty_books)


def test_missing_extra_is_named_in_one_line(wheel: Path, empty_books: str, tmp_path: Path) -> None:
    """By a program without its extra, and by each command that needs another one."""
    core, cli = install(wheel), install(wheel, "cli")
    run_python(core, BOOKS, tmp_path, empty_books)

    plain = end(tmp_path, core / "buffer-pipeline", "--help")
    imported = end(tmp_path, core / "python", "-c", "import buffer_pipeline.orchestration.definitions")
    refused = {
        command: end(tmp_path, cli / "buffer-pipeline", *command.split(), BUFFER_DATABASE_URL=empty_books)
        for command in NEEDED
    }

    assert plain.stderr == "buffer-pipeline: typer: not installed (pip install 'buffer-pipeline[cli]')\n"
    assert imported.stderr.endswith("dagster: not installed (pip install 'buffer-pipeline[dagster]')\n")
    for command, extra in NEEDED.items():
        assert refused[command].returncode == 2, command
        assert refused[command].stderr.count("\n") == 1, command
        assert f"(pip install 'buffer-pipeline[{extra}]')" in refused[command].stderr, command
