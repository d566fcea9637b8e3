"""`buffer-pipeline metrics`."""

import sys
import threading
from typing import Annotated, Final

import typer
from sqlalchemy import URL, Engine

from buffer_pipeline.cli.output import Output, notice
from buffer_pipeline.database import make_engine, open_database, psycopg_url
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.extras import need
from buffer_pipeline.settings import load_settings

SCRAPE_CONNECT_SECONDS_MAX: Final = 5
"""The limit for a server that does not answer, before or after connecting. A scrape has 10 seconds."""


app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("metrics")
def metrics(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 9464,
) -> None:
    """Serve metrics of the books to Prometheus, at /metrics, until Ctrl-C or SIGTERM. Only reads.

    It also starts while the books cannot be read, and reports `buffer_up 0`. With BUFFER_DAGSTER_DATABASE_URL
    set, it reports the last run and the last checks too.

    Example: `buffer-pipeline metrics --port 9464`
    """
    need("metrics", "prometheus_client")
    from prometheus_client import CollectorRegistry, start_http_server

    from buffer_pipeline.monitoring.metrics import BooksCollector

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
    """Return an engine that gives up on a server that does not answer."""
    if isinstance(url, str):
        url = psycopg_url(url)
    seconds = str(SCRAPE_CONNECT_SECONDS_MAX)
    return make_engine(
        url.update_query_dict({"connect_timeout": seconds, "tcp_user_timeout": f"{seconds}000"})
    )
