"""`buffer-pipeline serve`: the HTTP API."""

import sys
from typing import Annotated, Final

import typer

from buffer_pipeline.cli.output import Output, notice
from buffer_pipeline.database import open_database
from buffer_pipeline.embedded import API
from buffer_pipeline.extras import need
from buffer_pipeline.logs import logging_to_stderr
from buffer_pipeline.settings import load_settings

app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("serve")
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8010,
    connections: Annotated[
        int, typer.Option(min=1, max=80, help="Requests that work at a time, each on a connection.")
    ] = 16,
    stop_notice: Annotated[
        float,
        typer.Option(
            min=0,
            max=300,
            help="Seconds between SIGTERM and the end of listening, in which /readyz answers 503.",
        ),
    ] = 0,
) -> None:
    """Serve the HTTP API until Ctrl-C or SIGTERM; what is being answered then is answered to its end.

    It listens on this machine only, without TLS: a proxy in front of it has TLS and rate limits. The login of
    BUFFER_DATABASE_URL must be a member of the roles that docs/roles.md lists for it.

    Example: `buffer-pipeline serve --port 8010`
    """
    need("api", "fastapi")
    need("api", "uvicorn")
    from buffer_pipeline.api.server import serve as serve_until_told

    output: Output = context.obj
    settings = load_settings()

    def listening(url: str) -> None:
        output.answer({"url": url}, text=f"API: {url}  (Ctrl-C stops it)")
        sys.stdout.flush()

    with (
        open_database(settings, answering=False, say=notice) as engine,
        logging_to_stderr(settings.log),
    ):
        # The embedded server has a login for it. Its owner may not take the roles of keys.
        url = engine.url if settings.database_url is not None else engine.url.set(username=API)
        serve_until_told(
            url,
            settings,
            host=host,
            port=port,
            connections=connections,
            notice_seconds=stop_notice,
            listening=listening,
        )
