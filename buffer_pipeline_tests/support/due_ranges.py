"""Holds over some release hours, the positions of the due ones, and the release of a range."""

import random
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, select

from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.hours import hour_of
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.release import ReleaseBatch, ReleasePosition, ReleaseRange, Shard, release_range
from buffer_pipeline.tables import unsettled_hold
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7, NOON, PAYER

LATE = DAY_7 + timedelta(minutes=20)
"""A cut-off within an hour: only a part of its last hour is due."""


def release_within(connection: Connection, **changes: Any) -> ReleaseBatch:
    """Release the holds between two boundaries, with some arguments changed."""
    due_by: datetime = changes.pop("due_by", DAY_7)
    arguments = {"after": ReleasePosition(), "through": ReleasePosition.end(due_by), "shard": Shard()}
    return release_range(
        connection,
        hold_range=ReleaseRange(**{**arguments, **changes}),
        now=due_by,
        due_by=due_by,
        source="a test",
    )


def place_over_hours(engine: Engine, holds: int, *, seed: int) -> None:
    """Commit holds of a few payees over some hours around LATE, some of which are not due then."""
    chance = random.Random(seed)
    with engine.begin() as connection:
        outcomes = add_many_pending_earnings(
            connection,
            [
                Earning(
                    reference=f"many-{number}",
                    job=f"job-{number}",
                    payee=f"worker-{int(8 * chance.random() ** 2)}",
                    payer=PAYER,
                    amount="10.00",
                    currency="PHP",
                    held_at=NOON - timedelta(days=1),
                    release_date=LATE
                    - timedelta(minutes=chance.choice([0, 1, 19, 21, 40, 90, 200, -1, -40])),
                )
                for number in range(holds)
            ],
            now=NOON,
        )
        for outcome in chance.sample(outcomes, k=holds // 20):
            assert not isinstance(outcome, Exception)
            freeze_hold(
                connection, hold_id=outcome.hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON
            )


def matured(connection: Connection) -> list[ReleasePosition]:
    """Return the positions of the holds due at LATE, in the order of release."""
    rows = connection.execute(
        select(unsettled_hold).where(
            unsettled_hold.c.state == "BUFFERED", unsettled_hold.c.release_date <= LATE
        )
    )
    positions = [
        ReleasePosition(hour=hour_of(row.release_date), wallet_id=row.payee_wallet_id, hold_id=row.hold_id)
        for row in rows
    ]
    return sorted(positions, key=order_of)


def order_of(position: ReleasePosition) -> tuple[datetime, int, int]:
    return position.hour, position.wallet_id, position.hold_id
