"""Invariants that depend on a hold's rule: kept fees, and cooldowns after a rejected backjob."""

import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob, reject_backjob
from buffer_pipeline.hold import HoldState
from buffer_pipeline_tests.support.backjobs import decide, request
from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.refunds import freeze_for_risk, refund
from buffer_pipeline_tests.support.releases import early
from buffer_pipeline_tests.support.rules import FEE, RESERVE, SELLER, add, shares_of
from buffer_pipeline_tests.support.runs import corrupt


def broken(connection: Connection) -> dict[str, list[int]]:
    """Return the broken invariants, each with the holds of its rows."""
    return {found.invariant: [row["hold_id"] for row in found.rows] for found in reconcile(connection)}


@pytest.mark.parametrize("by_backjob", [False, True])
def test_a_refund_of_a_kept_fee_is_found(engine: Engine, superuser_url: str, by_backjob: bool) -> None:
    """With or without a backjob. The fee is named, and no other share."""
    with engine.begin() as connection:
        add(connection, fee_on_refund="return", **FEE, **RESERVE)
        first = place_hold(connection, rule=SELLER)
        fee = shares_of(connection, first)["FEE"]
        if by_backjob:
            decide(connection, approve_backjob, request(connection).backjob_id)
        else:
            freeze_for_risk(connection, first)
            refund(connection, first)
        assert broken(connection) == {}

    corrupt(superuser_url, "UPDATE buffer.hold_rule SET fee_on_refund = 'keep'")

    with engine.connect() as connection:
        assert broken(connection) == {"kept_fee_is_not_refunded": [fee]}


@pytest.mark.parametrize("state", [HoldState.BUFFERED, HoldState.RELEASED])
@pytest.mark.parametrize(
    ("cooldown_hours", "added", "is_explained"),
    [
        (1, "0", True),
        (1, "1 second", False),
        (0, "1 second", False),
        (None, "43800 hours", True),
        (None, "87600 hours", False),
    ],
)
def test_rejection_allows_the_cooldown_of_the_holds_rule(
    engine: Engine,
    superuser_url: str,
    state: HoldState,
    cooldown_hours: int | None,
    added: str,
    is_explained: bool,
) -> None:
    """Not a second more. Without a cooldown in the rule the limit is ten years, whatever the
    settings were.
    """
    with engine.begin() as connection:
        add(connection, days=7, cooldown_hours=cooldown_hours)
        hold_id = place_hold(connection, rule=SELLER)
        decide(connection, reject_backjob, request(connection).backjob_id)
        if state is HoldState.RELEASED:
            early(connection, hold_id=hold_id)
        assert broken(connection) == {}

    corrupt(
        superuser_url,
        f"UPDATE buffer.unsettled_hold SET release_date = release_date + interval '{added}'",
        f"UPDATE buffer.transaction SET release_date = release_date + interval '{added}'"
        " WHERE type = 'EARNING'",
    )

    with engine.connect() as connection:
        assert broken(connection) == ({} if is_explained else {"release_date_is_explained": [hold_id]})
