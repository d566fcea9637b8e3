"""Sandboxes of tests: their start, their clock, and what an advance needs."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Engine, text

from buffer_pipeline.notifications.channels.channel import Endpoint
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.sandbox.advance import Sandbox
from buffer_pipeline.sandbox.clock import SandboxClock, require_clock, start_clock
from buffer_pipeline_tests.support.drains import MESSAGES

NEW_YEAR: Final = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
"""Half an hour after a full hour."""


def started(engine: Engine, at: datetime = NEW_YEAR, **options: Any) -> Engine:
    """Make empty books a sandbox."""
    with engine.begin() as connection:
        start_clock(connection, now=at, **options)
    return engine


def clock_of(engine: Engine) -> SandboxClock:
    """Return the clock of a sandbox."""
    with engine.connect() as connection:
        return require_clock(connection)


def sandbox_of(
    engine: Engine,
    *,
    payouts: Engine | None = None,
    endpoints: Sequence[Endpoint] = (),
    after_hour: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> Sandbox:
    """Return what an advance needs."""
    return Sandbox(
        releaser=engine,
        payouts=payouts or engine,
        endpoints=endpoints,
        messages=MESSAGES,
        payout_policy=PayoutPolicy(destination_wait_hours=0),
        after_hour=after_hour,
        stop=stop,
    )


def policies_by(engine: Engine, clock: str) -> list[str]:
    """Return the tables with a policy that has this text."""
    with engine.connect() as connection:
        return list(
            connection.scalars(
                text(
                    "SELECT tablename FROM pg_policies WHERE schemaname = 'buffer'"
                    " AND strpos(concat(qual, with_check), :clock) > 0 ORDER BY tablename"
                ),
                {"clock": clock},
            )
        )
