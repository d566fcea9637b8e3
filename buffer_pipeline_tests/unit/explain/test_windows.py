"""What is said of the window is true: `kept` requests a backjob when the words say that the client can."""

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection

from buffer_pipeline.backjob import reject_backjob, request_backjob
from buffer_pipeline.explain import Explanation, ReasonCode
from buffer_pipeline.explain.words import payee_reasons, reason_words, way_words
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.policy import Policy
from buffer_pipeline.rules import add_rule
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    WITH_A_FEE,
    place_hold,
)
from buffer_pipeline_tests.support.promises import kept, moment
from buffer_pipeline_tests.support.read_rows import all_holds

HOUR: Final = timedelta(hours=1)
BY: Final[dict[str, Any]] = {"by": ADMIN, "reason": "a look", "now": NOON + HOUR}
CAN_ASK: Final = "The client can ask for the work to be redone until 2026-03-09 12:00."
RELEASED: Final = "It is released at 2026-03-09 12:00."


def told(found: Explanation, code: ReasonCode = ReasonCode.IN_WINDOW) -> str:
    """Return what the payee reads under a code."""
    (words,) = (each["text"] for each in payee_reasons(found, moment=moment) if each["code"] == code)
    return str(words)


def hold_of(connection: Connection, kind: str) -> int:
    """Return the share of this kind."""
    (row,) = all_holds(connection, kind=kind)
    return int(row["hold_id"])


def test_the_client_can_ask(connection: Connection) -> None:
    """Until the release date; then the money comes with the run of that hour."""
    hold_id = place_hold(connection, held_at=NOON - timedelta(minutes=20))

    found = kept(connection, hold_id, now=NOON)

    assert found.reasons[0].backjob_until == DAY_7 - timedelta(minutes=20)
    assert told(found) == f"{CAN_ASK.replace('12:00', '11:40')} {RELEASED}"


def test_a_frozen_payment_has_no_hour(connection: Connection) -> None:
    """Nobody knows when it is released. The client can ask all the same."""
    hold_id = place_hold(connection)
    freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.ADMIN, **BY)

    assert told(kept(connection, hold_id, now=NOON + 2 * HOUR)) == CAN_ASK


def test_not_while_a_backjob_is_open(connection: Connection) -> None:
    """One at a time."""
    hold_id = place_hold(connection)
    request_backjob(connection, job=JOB, by=PAYER, reason="drips", now=NOON)

    found = kept(connection, hold_id, now=NOON + HOUR)

    assert told(found) == "It waits until 2026-03-09 12:00."


def test_not_after_so_many_rejections(connection: Connection) -> None:
    """As many as the policy allows."""
    policy = Policy(max_backjobs_per_job=2, cooldown_hours=0)
    hold_id = place_hold(connection)

    said = []
    for _ in range(2):
        asked = request_backjob(connection, job=JOB, by=PAYER, reason="drips", now=NOON, policy=policy)
        reject_backjob(
            connection, backjob_id=asked.backjob_id, by=ADMIN, reason="done well", now=NOON, policy=policy
        )
        said.append(told(kept(connection, hold_id, now=NOON + HOUR, policy=policy)))

    assert said == [f"{CAN_ASK} {RELEASED}", f"It waits until 2026-03-09 12:00. {RELEASED}"]


def test_not_where_none_is_allowed(connection: Connection) -> None:
    """By the policy, or by the rule of this hold although the policy allows some."""
    add_rule(connection, name="final", days=7, max_backjobs=0, by=ADMIN, reason="a contract", now=NOON)
    by_policy = place_hold(connection, job="job-1")
    by_rule = place_hold(connection, job="job-2", rule="final")
    never = Policy(max_backjobs_per_job=0)

    waits = f"It waits until 2026-03-09 12:00. {RELEASED}"
    assert told(kept(connection, by_policy, now=NOON + HOUR, policy=never)) == waits
    assert told(kept(connection, by_rule, now=NOON + HOUR)) == waits


def test_the_window_of_a_fee_is_that_of_the_payees_share(connection: Connection) -> None:
    """Though the fee waits longer. After it, the fee only waits."""
    late_fee = (
        Share(kind=ShareKind.PAYEE),
        Share(kind=ShareKind.FEE, owner="platform", percent=12, days=30),
    )
    place_hold(connection, shares=late_fee)
    fee = hold_of(connection, "FEE")

    within = kept(connection, fee, now=NOON + HOUR)
    after = kept(connection, fee, now=DAY_7)

    assert told(within) == f"{CAN_ASK} It is released at 2026-04-01 12:00."
    assert told(after) == "It waits until 2026-04-01 12:00. It is released at 2026-04-01 12:00."


def test_a_reserve_says_when_it_is_released(connection: Connection) -> None:
    """In words of its own."""
    place_hold(connection, shares=WITH_A_FEE)

    found = kept(connection, hold_of(connection, "RESERVE"), now=NOON + HOUR)

    assert told(found, ReasonCode.RESERVE) == (
        "It is a reserve, which is kept until 2026-05-31 12:00. It is released at 2026-05-31 12:00."
    )


def test_several_freezes_of_one_kind_are_counted(connection: Connection) -> None:
    """And not named one by one."""
    hold_id = place_hold(connection)
    for kind in (FreezeKind.ADMIN, FreezeKind.ADMIN, FreezeKind.ADMIN, FreezeKind.RISK):
        freeze_hold(connection, hold_id=hold_id, kind=kind, **BY)

    found = kept(connection, hold_id, now=NOON + 2 * HOUR)

    assert way_words(found.reasons[0].ways[0], moment=moment).endswith(
        "then 2 freezes by admins and a freeze by risk control still keep it"
    )


def test_an_operator_reads_what_the_payee_is_told(connection: Connection) -> None:
    """Beside the internal reason, of a freeze and of an owner's freeze. Neither is in the other's words."""
    hold_id = place_hold(connection)
    freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.ADMIN, payee_text="Call us.", **BY)
    freeze_owner(connection, owner=PAYEE, kind=FreezeKind.RISK, payee_text="Send your papers", **BY)

    found = kept(connection, hold_id, now=NOON + 2 * HOUR)

    said = [reason_words(found, reason, moment=moment) for reason in found.reasons]
    assert said[0].endswith("by admin-1: a look; the payee is told: Call us.")
    assert said[1] == (
        "Its payee has been frozen since 2026-03-02 13:00, by admin-1: a look;"
        " the payee is told: Send your papers"
    )
    assert told(found, ReasonCode.OWNER_FROZEN) == (
        "All your payments have been frozen since 2026-03-02 13:00. Send your papers."
    )
