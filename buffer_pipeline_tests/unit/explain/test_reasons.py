"""Each reason has its code, its time, who and why; and what a payee reads of it."""

from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.debts import ClawbackTo, claw_back
from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.explain import Actor, Explanation, ReasonCode, explain_hold
from buffer_pipeline.explain.words import (
    _FOR_OPERATORS,
    _FOR_PAYEES,
    payee_reasons,
    payee_ways,
    reason_words,
    way_words,
)
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.policy import Policy
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.wallet import withdraw
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

HOUR: Final = timedelta(hours=1)
INTERNAL: Final = "CONFIDENTIAL-card-ring"
RISK_ANALYST: Final = "risk-2"
FREEZE: Final[dict[str, Any]] = {"by": RISK_ANALYST, "reason": INTERNAL, "now": NOON + HOUR}
MOVE: Final = FREEZE


def codes(found: Explanation) -> list[ReasonCode]:
    """Return the codes of an explanation."""
    return [reason.code for reason in found.reasons]


def as_told(found: Explanation) -> str:
    """Return everything that a payee reads."""
    return str([*payee_reasons(found, moment=moment), *payee_ways(found, moment=moment)])


def test_a_hold_in_its_window(connection: Connection) -> None:
    """Until the release date, and what the client or an admin can do."""
    hold_id = place_hold(connection)

    found = kept(connection, hold_id, now=NOON + HOUR)

    (reason,) = found.reasons
    assert reason_words(found, reason, moment=moment) == (
        "In its window from 2026-03-02 12:00 until 2026-03-09 12:00."
    )
    assert [way_words(way, moment=moment) for way in reason.ways] == [
        "The client accepts the work now: released at once",
        "An admin releases it now: released at once",
    ]
    assert payee_ways(found, moment=moment) == ["The client accepts the work now: released at once."]


def test_the_client_waits_for_the_minimum_days(connection: Connection) -> None:
    """The way of the client says from when on; an admin need not wait."""
    hold_id = place_hold(connection)

    found = kept(connection, hold_id, now=NOON + HOUR, policy=Policy(min_days=3))

    payer, admin = found.reasons[0].ways
    assert (payer.who, payer.possible_from) == (Actor.PAYER, NOON + timedelta(days=3))
    assert way_words(payer, moment=moment) == (
        "The client accepts the work from 2026-03-05 12:00 on: released at once"
    )
    assert (admin.who, admin.possible_from) == (Actor.ADMIN, None)


def test_a_reserve_is_released_by_an_admin_only(connection: Connection) -> None:
    """A reserve has its own code, and no way for the client."""
    place_hold(connection, shares=WITH_A_FEE)
    reserve = connection.scalar(text("SELECT hold_id FROM buffer.hold WHERE kind = 'RESERVE'"))
    assert reserve is not None

    found = kept(connection, reserve, now=NOON + HOUR)

    assert codes(found) == [ReasonCode.RESERVE]
    assert [way.who for way in found.reasons[0].ways] == [Actor.ADMIN]
    assert found.released_at == NOON + timedelta(days=90)


def test_what_is_due_waits_for_the_next_run(connection: Connection) -> None:
    """Until the next full hour, or until an operator starts a release."""
    hold_id = place_hold(connection)

    found = kept(connection, hold_id, now=DAY_7 + timedelta(minutes=20))

    assert codes(found) == [ReasonCode.WAITS_FOR_NEXT_RUN]
    assert (found.released_at, found.reasons[0].until) == (DAY_7 + HOUR, DAY_7 + HOUR)
    assert way_words(found.reasons[0].ways[0], moment=moment) == (
        "An operator starts the release now: released at once"
    )


def test_an_open_backjob(connection: Connection) -> None:
    """Rejected now: the hour after the cooldown. Withdrawn now: the hour of the release date."""
    hold_id = place_hold(connection, held_at=NOON + timedelta(minutes=5))
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="drips again", now=NOON + HOUR)

    found = kept(connection, hold_id, now=NOON + 2 * HOUR)

    reason = found.reasons[0]
    assert codes(found) == [ReasonCode.BACKJOB_OPEN, ReasonCode.IN_WINDOW]
    assert (reason.by, reason.reason, reason.since) == (PAYER, "drips again", NOON + HOUR)
    assert [way_words(way, moment=moment) for way in reason.ways] == [
        f"The client withdraws backjob {backjob.backjob_id} now: released at 2026-03-09 13:00",
        f"An admin rejects backjob {backjob.backjob_id} now: released at 2026-03-10 13:00",
    ]
    assert found.released_at is None


@pytest.mark.parametrize("kind", [FreezeKind.ADMIN, FreezeKind.RISK])
def test_a_freeze_tells_the_payee_its_text_only(connection: Connection, kind: FreezeKind) -> None:
    """Operators read who and why. The payee reads the text, and not that risk control froze it."""
    hold_id = place_hold(connection)
    freeze_hold(connection, hold_id=hold_id, kind=kind, payee_text="Please send your papers.", **FREEZE)

    found = kept(connection, hold_id, now=NOON + 2 * HOUR)

    assert codes(found)[0] == f"{kind}_FREEZE"
    said = reason_words(found, found.reasons[0], moment=moment)
    assert INTERNAL in said
    assert RISK_ANALYST in said
    told = payee_reasons(found, moment=moment)[0]
    assert (told["code"], told["text"]) == (
        "FREEZE",
        "It has been frozen since 2026-03-02 13:00 while it is checked: Please send your papers.",
    )
    assert INTERNAL not in as_told(found)
    assert RISK_ANALYST not in as_told(found)
    assert "RISK" not in as_told(found).upper().replace("RISK-2", "")


def test_a_freeze_without_a_text(connection: Connection) -> None:
    """The payee is told that the payment is checked, and never the internal reason."""
    hold_id = place_hold(connection)
    freeze_owner(connection, owner=PAYEE, kind=FreezeKind.RISK, **FREEZE)

    found = kept(connection, hold_id, now=NOON + 2 * HOUR)

    assert codes(found)[0] is ReasonCode.OWNER_FROZEN
    assert payee_reasons(found, moment=moment)[0]["text"] == (
        "All your payments have been frozen since 2026-03-02 13:00 while they are checked."
    )
    assert INTERNAL not in as_told(found)


def test_several_freezes_say_what_is_left(connection: Connection) -> None:
    """A way names the freezes that still keep the hold then."""
    hold_id = place_hold(connection)
    freeze_owner(connection, owner=PAYEE, kind=FreezeKind.RISK, **FREEZE)
    request_backjob(connection, job=JOB, by=PAYER, reason="drips again", now=NOON + HOUR)
    freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.ADMIN, **FREEZE)

    found = kept(connection, hold_id, now=NOON + 2 * HOUR)

    assert codes(found) == [
        ReasonCode.OWNER_FROZEN,
        ReasonCode.BACKJOB_OPEN,
        ReasonCode.ADMIN_FREEZE,
        ReasonCode.IN_WINDOW,
    ]
    assert way_words(found.reasons[0].ways[0], moment=moment) == (
        "An admin unfreezes the owner now: then the backjob and a freeze by an admin still keep it"
    )
    assert found.reasons[-1].ways == ()


def test_a_late_hold_of_a_frozen_owner(connection: Connection) -> None:
    """It has the owner's text, who froze them, and since when they are frozen."""
    freeze_owner(connection, owner=PAYEE, kind=FreezeKind.ADMIN, payee_text="Call us.", **FREEZE)
    hold_id = place_hold(connection, held_at=NOON + 3 * HOUR)

    found = kept(connection, hold_id, now=NOON + 4 * HOUR)

    reason = found.reasons[0]
    assert (reason.code, reason.since, reason.by, reason.payee_text) == (
        ReasonCode.OWNER_FROZEN,
        NOON + HOUR,
        RISK_ANALYST,
        "Call us.",
    )


def test_what_became_of_a_hold(connection: Connection) -> None:
    """Released by the run, released early, refunded by a backjob, refunded by an admin."""
    by_run = place_hold(connection, job="run")
    early = place_hold(connection, job="early", state=HoldState.RELEASED)
    refunded = place_hold(connection, job="refunded", state=HoldState.REFUNDED)
    frozen = place_hold(connection, job="frozen", state=HoldState.FROZEN)
    refund_hold(connection, hold_id=frozen, by=ADMIN, reason="stolen card", reference="back-1", now=NOON)
    release_matured(connection, now=DAY_7, batch_limit=10)

    found = [kept(connection, each, now=DAY_7) for each in (by_run, early, refunded, frozen)]

    assert [codes(each) for each in found] == [
        [ReasonCode.RELEASED],
        [ReasonCode.RELEASED_EARLY],
        [ReasonCode.REFUNDED],
        [ReasonCode.REFUNDED],
    ]
    assert [(each.reasons[0].by, each.reasons[0].reason) for each in found] == [
        (None, None),
        (ADMIN, "a good client"),
        (ADMIN, "indeed"),
        (ADMIN, "stolen card"),
    ]
    assert [each.reasons[0].amount_minor for each in found] == [100_000] * 4
    assert {each.released_at for each in found} == {None}


def test_parts_that_have_left(connection: Connection) -> None:
    """A released part, and a refunded part, of a hold that still waits."""
    hold_id = place_hold(connection)
    release_early(
        connection, hold_id=hold_id, amount="100", by=PAYER, reason="half done", reference="half", now=NOON
    )
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="drips", now=NOON)
    approve_backjob(
        connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="a part", amount="200", now=NOON
    )

    found = kept(connection, hold_id, now=NOON + HOUR)

    assert [(reason.code, reason.amount_minor) for reason in found.reasons[1:]] == [
        (ReasonCode.PART_RELEASED, 10_000),
        (ReasonCode.PART_REFUNDED, 20_000),
    ]


def test_debts(connection: Connection) -> None:
    """A claw-back, what the payee owes, and what a release paid of it."""
    first = place_hold(connection, job="first", state=HoldState.RELEASED)
    withdraw(connection, owner=PAYEE, amount="1000", currency="PHP", reference="out", now=NOON)
    claw_back(
        connection,
        hold_id=first,
        amount="300",
        to=ClawbackTo.BANK,
        by=ADMIN,
        reason="chargeback",
        reference="back",
        now=NOON,
    )
    second = place_hold(connection, job="second")
    waiting = kept(connection, second, now=NOON + HOUR)
    release_matured(connection, now=DAY_7, batch_limit=10)

    released = kept(connection, second, now=DAY_7)

    assert [(reason.code, reason.amount_minor) for reason in waiting.reasons] == [
        (ReasonCode.IN_WINDOW, None),
        (ReasonCode.OWES_DEBT, 30_000),
    ]
    assert [(reason.code, reason.amount_minor) for reason in released.reasons] == [
        (ReasonCode.RELEASED, 100_000),
        (ReasonCode.RECOVERED_FOR_DEBT, 30_000),
    ]
    assert ReasonCode.RELEASED_EARLY in codes(explain_hold(connection, hold_id=first, now=DAY_7))


def test_a_date_that_was_moved(connection: Connection) -> None:
    """Operators read who moved it and why. The payee reads from when to when, and nothing internal."""
    hold_id = place_hold(connection)
    later, earlier = DAY_7 + timedelta(days=5), DAY_7 + timedelta(days=1)
    reschedule_hold(connection, hold_id=hold_id, to=later, as_admin=True, **MOVE)
    reschedule_hold(
        connection, hold_id=hold_id, to=earlier, by=PAYER, reason="all is well", now=NOON + 2 * HOUR
    )

    found = kept(connection, hold_id, now=NOON + 3 * HOUR)

    assert codes(found) == [ReasonCode.IN_WINDOW, ReasonCode.DATE_MOVED, ReasonCode.DATE_MOVED]
    first, second = found.reasons[1:]
    assert (first.since, first.by, first.reason) == (NOON + HOUR, RISK_ANALYST, INTERNAL)
    assert (first.from_date, first.to_date, first.until, first.ways) == (DAY_7, later, None, ())
    assert (second.from_date, second.to_date, second.by) == (later, earlier, PAYER)
    assert reason_words(found, first, moment=moment) == (
        "Its release date was moved at 2026-03-02 13:00 from 2026-03-09 12:00 to 2026-03-14 12:00"
        f" by {RISK_ANALYST}: {INTERNAL}"
    )
    told = payee_reasons(found, moment=moment)[1]
    assert (told["code"], told["since"], told["until"]) == ("DATE_MOVED", NOON + HOUR, None)
    assert told["text"] == (
        "Its release date was moved at 2026-03-02 13:00 from 2026-03-09 12:00 to 2026-03-14 12:00."
    )
    assert INTERNAL not in as_told(found)
    assert RISK_ANALYST not in as_told(found)


def test_a_moved_date_of_shares(connection: Connection) -> None:
    """A share that moved with its earning says so; a reserve, which kept its date, does not."""
    first = place_hold(connection, shares=WITH_A_FEE)
    reschedule_hold(connection, hold_id=first, to=DAY_7 + HOUR, as_admin=True, **MOVE)
    of_kind = {row.kind: row.hold_id for row in connection.execute(text("SELECT * FROM buffer.hold"))}

    found = {kind: kept(connection, each, now=NOON + 2 * HOUR) for kind, each in of_kind.items()}

    moved = {kind for kind, each in found.items() if ReasonCode.DATE_MOVED in codes(each)}
    assert moved == {"PAYEE", "FEE"}


def test_a_moved_date_of_a_frozen_and_of_a_settled_hold(connection: Connection) -> None:
    """Beside what freezes it; and before what became of it."""
    hold_id = place_hold(connection)
    freeze = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.ADMIN, **FREEZE)
    reschedule_hold(connection, hold_id=hold_id, to=DAY_7 + HOUR, as_admin=True, **MOVE)
    frozen = kept(connection, hold_id, now=NOON + 2 * HOUR)
    unfreeze_hold(connection, freeze_id=freeze.freeze_id, by=ADMIN, reason="cleared", now=NOON + 2 * HOUR)
    release_matured(connection, now=DAY_7 + HOUR, batch_limit=10)

    settled = kept(connection, hold_id, now=DAY_7 + 2 * HOUR)

    assert codes(frozen) == [ReasonCode.ADMIN_FREEZE, ReasonCode.IN_WINDOW, ReasonCode.DATE_MOVED]
    assert codes(settled) == [ReasonCode.DATE_MOVED, ReasonCode.RELEASED]


def test_a_hold_that_is_frozen_for_nothing(connection: Connection) -> None:
    """Only damaged books have one; it is named."""
    hold_id = place_hold(connection)
    connection.execute(text("UPDATE buffer.unsettled_hold SET state = 'FROZEN'"))

    found = explain_hold(connection, hold_id=hold_id, now=DAY_7)

    assert codes(found) == [ReasonCode.NO_OPEN_FREEZE]


def test_an_earning_is_named_by_its_reference(connection: Connection) -> None:
    """The explanation is of its own hold, and by default of now."""
    added = add_pending_earnings(
        connection,
        reference="job-8-done",
        job=JOB,
        payee=PAYEE,
        payer=PAYER,
        amount="1000",
        currency="PHP",
        shares=WITH_A_FEE,
        now=NOON,
    )

    found = explain_hold(connection, reference="job-8-done")

    assert found.hold.hold_id == added.hold_id
    assert found.at > NOON
    with pytest.raises(NotFound):
        explain_hold(connection, reference="unknown")
    with pytest.raises(InvalidInput):
        explain_hold(connection)


def test_a_frozen_share_leaves_no_early_release(connection: Connection) -> None:
    """The earning is released early with all its shares, so a frozen one refuses it."""
    first = place_hold(connection, shares=WITH_A_FEE)
    fee = connection.scalar(text("SELECT hold_id FROM buffer.hold WHERE kind = 'FEE'"))
    assert fee is not None
    freeze_hold(connection, hold_id=fee, kind=FreezeKind.ADMIN, **FREEZE)

    found = kept(connection, first, now=NOON + 2 * HOUR)

    assert found.reasons[0].ways == ()


def test_a_rejected_backjob_lengthens_the_window(connection: Connection) -> None:
    """The hour of the run comes after the cooldown, which began with the decision if the hold was due."""
    hold_id = place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="drips", now=NOON)
    decided = DAY_7 + timedelta(hours=2, minutes=30)
    reject_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="done well", now=decided)

    found = kept(connection, hold_id, now=decided)

    assert found.released_at == DAY_7 + timedelta(hours=27)


def test_every_code_has_words() -> None:
    """For operators and for payees."""
    assert set(_FOR_OPERATORS) == set(_FOR_PAYEES) == set(ReasonCode)
    assert not any("{by}" in words or "{reason}" in words for words in _FOR_PAYEES.values())
