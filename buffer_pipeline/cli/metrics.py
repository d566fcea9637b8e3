"""`buffer-pipeline metrics`."""

import sys
import threading
from typing import Annotated, Final

import typer
from sqlalchemy import URL, Engine

from buffer_pipeline.cli.output import Output, notice
from buffer_pipeline.database import make_engine, open_database, psycopg_url
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.settings import load_settings

CONNECT_SECONDS_MAX: Final = 5
"""For a server that does not answer at all, before or behind the connection; a scrape has 10 seconds."""


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("metrics")(metrics)


def metrics(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9464,
) -> None:
    """Serve figures of the books to Prometheus, at /metrics, until Ctrl-C or SIGTERM. Reads only.

    Starts though the books are away, and says so by `buffer_up 0`. With BUFFER_DAGSTER_DATABASE_URL set
    it tells of the last run and of the last checks too.

    Example: `buffer-pipeline metrics --port 9464`
    """
    from prometheus_client import CollectorRegistry, start_http_server

    from buffer_pipeline.metrics import BooksCollector

    output: Output = context.obj
    settings = load_settings()
    with open_database(settings, answering=False, say=notice) as engine:
        storage = settings.dagster_database_url
        collector = BooksCollector(
            _impatient(engine.url),
            policy=settings.policy,
            endpoints=[endpoint.name for endpoint in settings.endpoints],
            dagster_storage=None if storage is None else _impatient(storage),
        )
        registry = CollectorRegistry()
        registry.register(collector)
        try:
            server, _ = start_http_server(port, host, registry)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise PaymentBufferError(f"{host}, port {port}: {reason}; see --host and --port") from None
        url = f"http://{host}:{server.server_port}/metrics"
        output.answer({"url": url}, text=f"Metrics: {url}  (Ctrl-C stops it)")
        sys.stdout.flush()
        threading.Event().wait()


def _impatient(url: URL | str) -> Engine:
    """Return an engine that gives up on a server which does not answer."""
    if isinstance(url, str):
        url = psycopg_url(url)
    seconds = str(CONNECT_SECONDS_MAX)
    return make_engine(
        url.update_query_dict({"connect_timeout": seconds, "tcp_user_timeout": f"{seconds}000"})
    )
