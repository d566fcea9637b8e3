"""The books, and where operators are told, as Dagster resources."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import dagster as dg
from sqlalchemy import Engine

from buffer_pipeline.database import open_database
from buffer_pipeline.delivery.alerts import TERMINAL_VARIABLE
from buffer_pipeline.policy import Policy
from buffer_pipeline.settings import DAGSTER_URL, load_settings

NO_TIMEOUT: Final = 0
NO_LIMIT: Final = -1

CONNECTION_SECONDS_MAX: Final = 300
"""A connection to Dagster's storage that is older is not used again."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """An engine on the books and the marketplace's figures for the rules."""

    engine: Engine
    policy: Policy


@dg.resource(
    description="The books that the BUFFER_… variables name; the embedded server when they name none."
)
def books_from_environment(context: dg.InitResourceContext) -> Iterator[Books]:
    """Open the books for as long as a run or a tick needs them.

    The environment is read then, so that loading the definitions needs no database.
    """
    if context.run is not None and context.instance is not None:
        # By itself Dagster's storage opens a connection for each event and each question of a run.
        # docs/decisions/0017-a-run-keeps-its-connections-to-dagsters-storage.md
        context.instance.optimize_for_webserver(
            statement_timeout=NO_TIMEOUT, pool_recycle=CONNECTION_SECONDS_MAX, max_overflow=NO_LIMIT
        )
    settings = load_settings()
    with open_database(settings) as engine:
        yield Books(engine=engine, policy=settings.policy)


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """Where operators are told, as Apprise URLs, and the base of the links in what they are told.

    Without URLs each alert is in the log of the sensor's tick, and added to the file `terminal`.
    """

    # They carry tokens and passwords.
    urls: tuple[str, ...] = field(default=(), repr=False)
    dagster_url: str = DAGSTER_URL
    terminal: Path | None = None


@dg.resource(description="The services of BUFFER_ALERT_URLS; without any, the log of the sensor's tick.")
def alerts_from_environment(_context: dg.InitResourceContext) -> Alerts:
    """Read the environment at each run or tick. Touches neither the network nor the books."""
    settings = load_settings()
    terminal = os.environ.get(TERMINAL_VARIABLE)
    return Alerts(
        urls=settings.known_alert_urls(),
        dagster_url=settings.dagster_url,
        terminal=Path(terminal) if terminal else None,
    )
