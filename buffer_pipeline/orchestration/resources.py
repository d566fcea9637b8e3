"""The resources: the settings, the clocks, the books, and the services that receive alerts."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import dagster as dg
from sqlalchemy import Connection, Engine

from buffer_pipeline.database import database_clock, open_database
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.monitoring.alerts import TERMINAL_VARIABLE
from buffer_pipeline.policy import PayoutPolicy, Policy
from buffer_pipeline.settings import DAGSTER_URL, Settings, load_settings

NO_TIMEOUT: Final = 0
NO_LIMIT: Final = -1

CONNECTION_SECONDS_MAX: Final = 300
"""A connection to Dagster's storage that is older is not used again."""


@dg.resource(description="The settings: the BUFFER_… variables, read at the start of each run and tick.")
def settings_from_environment(_context: dg.InitResourceContext) -> Settings:
    """Read the environment.

    Raises:
        SettingError: one line that names the variable and what is wrong with it.
    """
    return load_settings()


def machine_clock() -> datetime:
    """Return this machine's clock, timezone-aware."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Every clock that the definitions read.

    `books` is the clock of the books' database. `writer` is the same clock for a transaction that writes into
    the books: it also marks the hour as being written. `machine` is this machine's clock. It is compared
    with the times that Dagster records, and works while the books are away.
    """

    books: Callable[[Connection], datetime] = database_clock
    writer: Callable[[Connection], datetime] = clock_of_a_writer
    machine: Callable[[], datetime] = machine_clock


@dg.resource(description="The clocks of the books' database and of this machine.")
def real_clock(_context: dg.InitResourceContext) -> Clock:
    """Return the real clocks."""
    return Clock()


@dataclass(frozen=True, kw_only=True)
class Books:
    """An engine on the books and the marketplace's figures for the rules and for payouts."""

    engine: Engine
    policy: Policy
    payout_policy: PayoutPolicy = field(default_factory=PayoutPolicy)


@dg.resource(
    required_resource_keys={"settings"},
    description="The books at BUFFER_DATABASE_URL; on the embedded server if it is unset.",
)
def books_of_settings(context: dg.InitResourceContext) -> Iterator[Books]:
    """Open the books for the duration of a run or a tick.

    They are opened only then, so that the definitions load without a database.
    """
    if context.run is not None and context.instance is not None:
        # By default Dagster's storage opens a connection for each event and each query of a run.
        # docs/decisions/0017-a-run-keeps-its-connections-to-dagsters-storage.md
        context.instance.optimize_for_webserver(
            statement_timeout=NO_TIMEOUT, pool_recycle=CONNECTION_SECONDS_MAX, max_overflow=NO_LIMIT
        )
    settings: Settings = context.resources.settings
    with open_database(settings) as engine:
        yield Books(engine=engine, policy=settings.policy, payout_policy=settings.payout_policy)


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """The Apprise URLs that receive alerts, and the base URL of the links in an alert.

    Without URLs each alert goes to the log of the sensor's tick, and to the file `terminal`.
    """

    # They contain tokens and passwords.
    urls: tuple[str, ...] = field(default=(), repr=False)
    dagster_url: str = DAGSTER_URL
    terminal: Path | None = None


@dg.resource(
    required_resource_keys={"settings"},
    description="The services of BUFFER_ALERT_URLS; the log of the sensor's tick if it is unset.",
)
def alerts_of_settings(context: dg.InitResourceContext) -> Alerts:
    """Return the receivers of alerts. Uses neither the network nor the books."""
    settings: Settings = context.resources.settings
    terminal = os.environ.get(TERMINAL_VARIABLE)
    return Alerts(
        urls=settings.known_alert_urls(),
        dagster_url=settings.dagster_url,
        terminal=Path(terminal) if terminal else None,
    )


RESOURCES: Final[dict[str, object]] = {
    "settings": settings_from_environment,
    "clock": real_clock,
    "books": books_of_settings,
    "alerts": alerts_of_settings,
}
"""Resource key -> its definition. `build_defs` can replace each."""
