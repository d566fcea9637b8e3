"""Each promise of an explanation is kept: the verb is run, and the release run comes at the hour it named."""

from datetime import timedelta
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.explain import ReasonCode
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.policy import Policy
from buffer_pipeline.reads import find_hold
from buffer_pipeline.rules import add_rule, assign_rule
from buffer_pipeline_tests.support.builders import ADMIN, JOB, NOON, PAYEE, PAYER, WITH_A_FEE, place_hold
from buffer_pipeline_tests.support.promises import kept
from buffer_pipeline_tests.support.read_rows import all_holds

HOUR: Final = timedelta(hours=1)
BY: Final[dict[str, Any]] = {"by": ADMIN, "reason": "a look", "now": NOON + HOUR}

FREEZES: Final = ("BACKJOB", "ADMIN", "RISK", "EARNING", "OWNER")
"""EARNING is a freeze by the id of the earning's own hold, of all its shares."""

CODES: Final = {
    "BACKJOB": ReasonCode.BACKJOB_OPEN,
    "ADMIN": ReasonCode.ADMIN_FREEZE,
    "RISK": ReasonCode.RISK_FREEZE,
    "EARNING": ReasonCode.ADMIN_FREEZE,
    "OWNER": ReasonCode.OWNER_FROZEN,
}

MOMENTS: Final = [
    timedelta(hours=2),
    timedelta(hours=2, minutes=20),
    timedelta(days=3, minutes=1),
    timedelta(days=6, hours=23, minutes=30),
    timedelta(days=7),
    timedelta(days=7, hours=3, minutes=59),
    timedelta(days=41, minutes=10),
    timedelta(days=100),
]


def open_freezes_on(connection: Connection, freezes: set[str], *, first: int, hold_id: int) -> None:
    """Open these freezes on a hold, one hour after it began."""
    if "OWNER" in freezes:
        freeze_owner(connection, owner=PAYEE, kind=FreezeKind.RISK, payee_text="Send your papers.", **BY)
    if "BACKJOB" in freezes:
        request_backjob(connection, job=JOB, **BY)
    for kind in (FreezeKind.ADMIN, FreezeKind.RISK):
        if kind in freezes:
            freeze_hold(connection, hold_id=hold_id, kind=kind, payee_text="Call us.", **BY)
    if "EARNING" in freezes:
        freeze_hold(connection, hold_id=first, kind=FreezeKind.ADMIN, **BY)


@given(
    freezes=st.sets(st.sampled_from(FREEZES)),
    moment=st.sampled_from(MOMENTS),
    shares=st.sampled_from([(), WITH_A_FEE]),
    # The payee's own, the fee or the reserve, if there are shares.
    share=st.integers(0, 2),
    minutes=st.sampled_from([0, 1, 30]),
    cooldown_hours=st.sampled_from([None, 0, 24, 30]),
    min_days=st.sampled_from([None, 0, 2, 30]),
    policy=st.sampled_from([None, Policy(cooldown_hours=5, min_days=4)]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
def test_every_promise_is_kept(
    connection: Connection,
    freezes: set[str],
    moment: timedelta,
    shares: Any,
    share: int,
    minutes: int,
    cooldown_hours: int | None,
    min_days: int | None,
    policy: Policy | None,
) -> None:
    """In drawn states: freezes of all kinds at once, shares, reserves, cooldowns and minimum days."""
    savepoint = connection.begin_nested()
    if cooldown_hours is not None or min_days is not None:
        add_rule(
            connection,
            name="drawn",
            days=7 if min_days is None else max(7, min_days),
            cooldown_hours=cooldown_hours,
            min_days=min_days,
            by=ADMIN,
            reason="a contract",
            now=NOON,
        )
        assign_rule(connection, owner=PAYEE, name="drawn", by=ADMIN, reason="a contract", now=NOON)
    first = place_hold(
        connection, shares=shares, held_at=NOON + timedelta(minutes=minutes), policy=policy or Policy()
    )
    ids = [row["hold_id"] for row in all_holds(connection)]
    hold_id = ids[share % len(ids)]
    open_freezes_on(connection, freezes, first=first, hold_id=hold_id)

    found = kept(connection, hold_id, now=NOON + moment, policy=policy)

    hold = find_hold(connection, hold_id=hold_id)
    # An owner's freeze is of the payee's holds; a fee is another owner's.
    expected = {CODES[name] for name in freezes if name != "OWNER" or hold.payee == PAYEE}
    codes = {reason.code for reason in found.reasons}
    assert expected <= codes
    assert (found.released_at is None) == bool(expected)
    assert len([reason for reason in found.reasons if reason.code is ReasonCode.ADMIN_FREEZE]) == len(
        freezes & {"ADMIN", "EARNING"}
    )
    savepoint.rollback()


def test_the_client_can_wait_or_release(connection: Connection) -> None:
    """A payment in its window is released at the end of it, or at once by its payer or an admin."""
    hold_id = place_hold(connection, held_at=NOON + timedelta(minutes=20))

    found = kept(connection, hold_id, now=NOON + HOUR)

    (reason,) = found.reasons
    assert found.released_at == NOON + timedelta(days=7, hours=1)
    assert (reason.code, reason.since, reason.until) == (
        ReasonCode.IN_WINDOW,
        NOON + timedelta(minutes=20),
        NOON + timedelta(days=7, minutes=20),
    )
    assert [(way.who, way.at_once) for way in reason.ways] == [("PAYER", True), ("ADMIN", True)]
    assert find_hold(connection, hold_id=hold_id).payer == PAYER
