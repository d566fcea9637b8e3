"""The daily report's curve of the buffer, compared with the holds."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from sqlalchemy import Connection, func, select

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.database import fetch
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.hours import HOUR
from buffer_pipeline.release import release_early
from buffer_pipeline.reports.daily.curve import amounts_in_buffer
from buffer_pipeline.tables import backjob, hold_freeze, hold_status
from buffer_pipeline_tests.support.builders import ADMIN, PAYER, place_hold
from buffer_pipeline_tests.support.daily_reports import at, release_at


def amounts_by_state(connection: Connection) -> dict[tuple[str, str], int]:
    """Return the sums of the unsettled holds, by currency and state."""
    rows = connection.execute(
        select(
            hold_status.c.currency,
            hold_status.c.state,
            func.sum(
                hold_status.c.amount_minor - hold_status.c.refunded_minor - hold_status.c.released_minor
            ),
        )
        .where(hold_status.c.state.in_([HoldState.BUFFERED, HoldState.FROZEN]))
        .group_by(hold_status.c.currency, hold_status.c.state)
    )
    return {(row[0], row[1]): int(row[2]) for row in rows}


def amounts_at(curve: pd.DataFrame, moment: datetime) -> dict[tuple[str, str], int]:
    """Return the curve's amounts at a moment, like `amounts_by_state`."""
    found: dict[tuple[str, str], int] = {}
    for row in curve[curve["moment"] == moment].to_dict("records"):
        found[row["currency"], "BUFFERED"] = row["buffered_minor"]
        found[row["currency"], "FROZEN"] = row["frozen_minor"]
    return {key: amount for key, amount in found.items() if amount}


def test_the_curve_is_what_the_holds_were_at_each_hour(connection: Connection) -> None:
    """Computed backwards from now, it matches the holds as they were at each hour."""
    chance = random.Random(20)
    seen: dict[datetime, dict[tuple[str, str], int]] = {}
    verbs: set[str] = set()
    for hour in range(96):
        now = at(2) + hour * HOUR
        seen[now] = amounts_by_state(connection)
        # The full hour itself is included: what happens then belongs to the next hour.
        for minute in sorted(chance.sample((0, 0, 7, 21, 21, 43, 59), 3)):
            verbs.add(something_happens(connection, chance, now=now + timedelta(minutes=minute)))
    # Releases happen before the curve begins and after its end.
    start, end = at(3), at(5, 18)

    curve = amounts_in_buffer(connection, start=start, end=end)

    moments = [moment for moment in seen if start <= moment <= end]
    assert {moment: amounts_at(curve, moment) for moment in moments} == {
        moment: seen[moment] for moment in moments
    }
    assert set(curve["currency"]) == {"JPY", "PHP"}
    assert verbs >= {
        "add",
        "freeze",
        "unfreeze",
        "request",
        "reject",
        "withdraw",
        "approve",
        "approve a part",
    }
    assert verbs >= {"release", "release early", "release a part"}


def something_happens(connection: Connection, chance: random.Random, *, now: datetime) -> str:
    """Run a random verb and return its name, or "nothing" if it was refused."""

    def one_of(query: Any) -> Any:
        return chance.choice(list(connection.scalars(query)) or [0])

    def add() -> None:
        job, currency = f"job-{chance.randint(1, 40)}", chance.choice(("PHP", "PHP", "JPY"))
        place_hold(
            connection,
            job=f"{job}-{currency}",
            amount=str(chance.randint(1, 5000)),
            currency=currency,
            held_at=now,
            release_date=now + timedelta(hours=chance.randint(6, 60)),
        )

    a_hold = (
        select(hold_status.c.hold_id)
        .where(hold_status.c.state.in_(["BUFFERED", "FROZEN"]))
        .order_by(hold_status.c.hold_id)
    )
    a_job = (
        select(hold_status.c.job)
        .where(hold_status.c.state.in_(["BUFFERED", "FROZEN"]))
        .order_by(hold_status.c.hold_id)
    )
    a_freeze = select(hold_freeze.c.freeze_id).where(hold_freeze.c.closed_at.is_(None)).order_by("freeze_id")
    a_backjob = select(backjob.c.backjob_id).where(backjob.c.state == "OPEN").order_by("backjob_id")
    why: dict[str, Any] = {"by": ADMIN, "reason": "a test", "now": now}
    verbs: dict[str, tuple[int, Callable[[], object]]] = {
        "add": (6, add),
        "freeze": (
            4,
            lambda: freeze_hold(connection, hold_id=one_of(a_hold), kind=FreezeKind.RISK, **why),
        ),
        "unfreeze": (4, lambda: unfreeze_hold(connection, freeze_id=one_of(a_freeze), **why)),
        "request": (5, lambda: request_backjob(connection, job=str(one_of(a_job)), **why)),
        "reject": (1, lambda: reject_backjob(connection, backjob_id=one_of(a_backjob), **why)),
        "withdraw": (1, lambda: withdraw_backjob(connection, backjob_id=one_of(a_backjob), **why)),
        "approve": (1, lambda: approve_backjob(connection, backjob_id=one_of(a_backjob), **why)),
        "approve a part": (
            3,
            lambda: approve_backjob(connection, backjob_id=one_of(a_backjob), amount=7, **why),
        ),
        "release": (2, lambda: release_at(connection, now)),
        "release early": (1, lambda: release_early(connection, hold_id=one_of(a_hold), as_admin=True, **why)),
        "release a part": (
            3,
            lambda: release_early(
                connection,
                hold_id=one_of(a_hold),
                amount=3,
                reference=f"part-{chance.random()}",
                as_admin=True,
                **why,
            ),
        ),
    }
    (verb,) = chance.choices(list(verbs), [weight for weight, _ in verbs.values()])
    try:
        verbs[verb][1]()
    except PaymentBufferError:
        return "nothing"
    return verb


def test_a_freeze_that_follows_a_part_refund_at_once_freezes_the_rest(connection: Connection) -> None:
    """Even if both have the same time."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9))
    requested = request_backjob(connection, job="job-8", by=PAYER, reason="not as agreed", now=at(2, 10, 30))
    approve_backjob(
        connection,
        backjob_id=requested.backjob_id,
        by=ADMIN,
        reason="in part",
        now=at(2, 12, 30),
        amount="30.00",
    )
    freeze_hold(
        connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=at(2, 12, 30)
    )

    curve = amounts_in_buffer(connection, start=at(2, 10), end=at(2, 14))

    assert curve["frozen_minor"].tolist() == [0, 100_00, 100_00, 70_00, 70_00]
    assert curve["buffered_minor"].tolist() == [100_00, 0, 0, 0, 0]


def test_a_part_that_was_released_is_not_frozen_later(connection: Connection) -> None:
    """It leaves the buffer at its release. A later freeze covers the rest."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9))
    release_early(
        connection,
        hold_id=hold_id,
        amount="30.00",
        reference="part-1",
        by=PAYER,
        reason="a part",
        now=at(2, 10, 30),
    )
    freeze_hold(
        connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=at(2, 11, 30)
    )

    curve = amounts_in_buffer(connection, start=at(2, 10), end=at(2, 13))

    assert curve["buffered_minor"].tolist() == [100_00, 70_00, 0, 0]
    assert curve["frozen_minor"].tolist() == [0, 0, 70_00, 70_00]


def test_freezes_that_overlap_freeze_the_amount_once(connection: Connection) -> None:
    """Until the last of them is closed."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9))
    freezes = [
        freeze_hold(connection, hold_id=hold_id, kind=kind, by=ADMIN, reason="a look", now=now).freeze_id
        for kind, now in ((FreezeKind.RISK, at(2, 10, 30)), (FreezeKind.ADMIN, at(2, 11, 30)))
    ]
    for freeze_id, now in zip(freezes, (at(2, 12, 30), at(2, 13, 30)), strict=True):
        unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="all well", now=now)

    curve = amounts_in_buffer(connection, start=at(2, 10), end=at(2, 14))

    assert curve["frozen_minor"].tolist() == [0, 100_00, 100_00, 100_00, 0]


def test_a_freeze_ends_with_its_hold(connection: Connection) -> None:
    """A settled hold is out of the buffer, even if a clock ahead closed its freeze later."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9), release_date=at(2, 11, 45))
    opened = freeze_hold(
        connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=at(2, 10, 30)
    )
    unfreeze_hold(connection, freeze_id=opened.freeze_id, by=ADMIN, reason="all well", now=at(2, 13, 30))
    release_at(connection, at(2, 11, 45))

    whole = amounts_in_buffer(connection, start=at(2, 10), end=at(2, 14))
    after = amounts_in_buffer(connection, start=at(2, 12), end=at(2, 14))

    assert whole["frozen_minor"].tolist() == [0, 100_00, 0, 0, 0]
    assert whole["buffered_minor"].tolist() == [100_00, 0, 0, 0, 0]
    assert after.empty


def test_change_at_a_full_hour_belongs_to_the_hour_that_begins(connection: Connection) -> None:
    """An hour shows what was recorded before it."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9))
    opened = freeze_hold(
        connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=at(2, 10)
    )
    unfreeze_hold(connection, freeze_id=opened.freeze_id, by=ADMIN, reason="all well", now=at(2, 12))

    whole = amounts_in_buffer(connection, start=at(2, 9), end=at(2, 13))
    late = amounts_in_buffer(connection, start=at(2, 12), end=at(2, 13))

    assert whole["frozen_minor"].tolist() == [0, 0, 100_00, 100_00, 0]
    assert whole["buffered_minor"].tolist() == [0, 100_00, 0, 0, 100_00]
    assert late["frozen_minor"].tolist() == [100_00, 0]


def test_imported_backjob_freezes_only_held_amounts(connection: Connection) -> None:
    """It is older than its hold in these books; nothing is frozen before it is held."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9))
    fetch(
        connection,
        "backjob/open_backjob",
        reference="legacy-dispute-1",
        job="job-8",
        requested_by=PAYER,
        reason="not as agreed",
        requested_at=at(1, 9),
        hold_ids=[hold_id],
        now=at(2, 9),
        notify=False,
    )

    curve = amounts_in_buffer(connection, start=at(2, 8), end=at(2, 11))

    assert curve["frozen_minor"].tolist() == [0, 0, 100_00, 100_00]
    assert curve["buffered_minor"].tolist() == [0, 0, 0, 0]
