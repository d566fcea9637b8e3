"""A batch is made by one, approved by somebody else, and sent; or its payouts wait for the next one."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import InvalidInput, NotAllowed, NotFound, PayoutRefused
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import freeze_owner, unfreeze_owner
from buffer_pipeline.payouts import (
    PayoutBatchState,
    PayoutMethod,
    PayoutState,
    approve_payout_batch,
    cancel_payout,
    cancel_payout_batch,
    send_payout_batch,
    set_destination,
)
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.tables import notification, payout, payout_destination
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, books
from buffer_pipeline_tests.support.debts import place_released, take_back
from buffer_pipeline_tests.support.payouts import (
    APPROVER,
    DAY_3,
    MAKER,
    give,
    make_batch,
    payable,
    place_payout,
    request,
    send_batch,
    state_of_payout,
    to_iban,
)

OTHER = "worker-18"


def freeze(connection: Connection, owner: str = PAYEE, now: datetime = NOON) -> None:
    """Freeze an owner."""
    freeze_owner(connection, owner=owner, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=now)


def test_batch_takes_what_is_requested(connection: Connection) -> None:
    """Each payout goes to the destination that its owner has now."""
    payable(connection)
    payable(connection, OTHER)
    ids = [request(connection).payout_id, request(connection, OTHER, amount="50.00").payout_id]

    batch = make_batch(connection)

    assert (batch.state, batch.payouts, batch.amount_minor) == (PayoutBatchState.MADE, 2, 15_000)
    assert (batch.currency, batch.method, batch.four_eyes) == ("PHP", PayoutMethod.IBAN, True)
    rows = connection.execute(select(payout).order_by("payout_id")).mappings().all()
    assert [row["payout_id"] for row in rows] == ids
    assert {row["payout_batch_id"] for row in rows} == {batch.payout_batch_id}
    found = connection.execute(
        select(payout_destination.c.owner, payout_destination.c.destination_id).order_by("destination_id")
    ).all()
    assert [(row["state"], row["destination_id"]) for row in rows] == [("BATCHED", id_) for _, id_ in found]
    assert reconcile(connection) == []


def test_nothing_to_pay_is_refused(connection: Connection) -> None:
    """Also where all of it is in a batch already."""
    with pytest.raises(PayoutRefused, match=r"payout batch in PHP: nothing to pay$"):
        make_batch(connection)
    place_payout(connection, PayoutState.BATCHED)

    with pytest.raises(PayoutRefused, match=r"nothing to pay$"):
        make_batch(connection)


@pytest.mark.parametrize(("hours", "pays"), [(71.99, False), (72, True)])
def test_new_destination_waits(connection: Connection, hours: float, pays: bool) -> None:
    """For 72 hours, so that whoever took over an account is not paid at once."""
    payable(connection)
    request(connection)
    now = NOON + timedelta(hours=hours)

    if not pays:
        with pytest.raises(
            PayoutRefused, match="1 by another method, to a destination of less than 72 hours"
        ):
            make_batch(connection, now=now)
    else:
        assert make_batch(connection, now=now).payouts == 1


def test_changed_destination_waits_again(connection: Connection) -> None:
    """Its newest version counts, also with the same account."""
    payable(connection)
    request(connection)
    to_iban(connection, now=NOON + timedelta(hours=1))

    with pytest.raises(PayoutRefused):
        make_batch(connection)
    assert make_batch(connection, now=DAY_3 + timedelta(hours=1)).payouts == 1


def test_wait_is_a_setting(connection: Connection) -> None:
    """Of no hours nothing waits."""
    payable(connection)
    request(connection)

    assert make_batch(connection, now=NOON, policy=PayoutPolicy(destination_wait_hours=0)).payouts == 1


def test_override_waits_for_nothing(connection: Connection) -> None:
    """An admin's payout to a new destination of a frozen owner is in the next batch; others are not."""
    payable(connection)
    request(connection)
    freeze(connection)
    passed = request(connection, by=ADMIN, override=True, reason="agreed")

    batch = make_batch(connection, now=NOON)

    assert batch.payouts == 1
    assert state_of_payout(connection, passed.payout_id) == "BATCHED"
    send_batch(connection, batch)


def test_override_passes_only_what_there_was(connection: Connection) -> None:
    """A destination or a freeze that came after the override is not passed, at making and at sending."""
    payable(connection)
    request(connection, by=ADMIN, override=True, reason="agreed")
    to_iban(connection, now=NOON + timedelta(hours=1))
    with pytest.raises(PayoutRefused, match="nothing to pay"):
        make_batch(connection, now=NOON + timedelta(hours=2))

    batch = make_batch(connection, now=DAY_3 + timedelta(hours=1))
    freeze(connection, now=DAY_3)

    with pytest.raises(PayoutRefused, match="who is frozen"):
        send_batch(connection, batch)


def test_a_debt_stops_a_payout_like_a_freeze(connection: Connection) -> None:
    """An owner who owes something gets no payout without an override, and none in a batch from before."""
    payable(connection)
    early = request(connection)
    batch = make_batch(connection)
    hold_id = place_released(connection, spent="1000.00")
    take_back(connection, hold_id, now=DAY_3)
    give(connection, amount="50.00")

    with pytest.raises(PayoutRefused, match="owes a debt, so nothing is paid out"):
        request(connection, amount="10.00", now=DAY_3)
    with pytest.raises(PayoutRefused, match=f"payout {early.payout_id} of '{PAYEE}', who owes a debt"):
        send_batch(connection, batch)
    passed = request(connection, amount="10.00", by=ADMIN, override=True, reason="agreed", now=DAY_3)

    assert make_batch(connection).payouts == 1
    assert state_of_payout(connection, passed.payout_id) == "BATCHED"


def test_frozen_owner_waits(connection: Connection) -> None:
    """The refusal says why nothing is paid. Unfrozen, the owner is in the next batch."""
    payable(connection)
    request(connection)
    freeze(connection)

    with pytest.raises(PayoutRefused, match="nothing to pay; requested are 1 of frozen owners"):
        make_batch(connection)

    unfreeze_owner(connection, owner=PAYEE, by=ADMIN, reason="fine", now=NOON)
    assert make_batch(connection).payouts == 1


def test_batch_is_of_one_currency_and_method(connection: Connection) -> None:
    """With payouts by both methods, the method has to be named."""
    payable(connection)
    give(connection, currency="EUR")
    give(connection, OTHER)
    set_destination(
        connection, owner=OTHER, method="TOKEN", account="acct-1", by=ADMIN, reason="new", now=NOON
    )
    by_iban, by_token = request(connection), request(connection, OTHER)
    in_euro = request(connection, currency="EUR")

    with pytest.raises(InvalidInput, match="payouts by IBAN and TOKEN are requested; name the method"):
        make_batch(connection)
    batch = make_batch(connection, method="TOKEN")

    assert (batch.method, batch.payouts) == (PayoutMethod.TOKEN, 1)
    states = [state_of_payout(connection, each.payout_id) for each in (by_iban, by_token, in_euro)]
    assert states == ["REQUESTED", "BATCHED", "REQUESTED"]
    with pytest.raises(InvalidInput, match="is not IBAN or TOKEN"):
        make_batch(connection, method="CASH")


def test_maker_does_not_approve(connection: Connection) -> None:
    """Four eyes: somebody else does. The maker may send what somebody else has approved."""
    place_payout(connection)
    batch = make_batch(connection)
    before = books(connection)

    with pytest.raises(
        NotAllowed, match="made by 'finance-1', so somebody else has to approve it"
    ) as refused:
        approve_payout_batch(connection, payout_batch_id=batch.payout_batch_id, by=MAKER, now=DAY_3)

    assert refused.value.payout_batch_id == batch.payout_batch_id
    assert books(connection) == before
    assert send_batch(connection, batch).state == PayoutBatchState.SENT


@pytest.mark.parametrize(("above", "four_eyes"), [("99.99", True), ("100.00", False), ("5000", False)])
def test_small_batch_may_need_no_four_eyes(connection: Connection, above: str, four_eyes: bool) -> None:
    """Above the amount of the setting it does; what counted is in the books."""
    place_payout(connection)
    policy = PayoutPolicy(four_eyes_above={"PHP": above})

    batch = make_batch(connection, policy=policy)

    assert batch.four_eyes == four_eyes
    if not four_eyes:
        done = approve_payout_batch(connection, payout_batch_id=batch.payout_batch_id, by=MAKER, now=DAY_3)
        assert done.state == PayoutBatchState.APPROVED
        assert reconcile(connection) == []


def test_sent_payouts_are_told_of(connection: Connection) -> None:
    """Each owner has a notification in the same commit."""
    payout_id = place_payout(connection, PayoutState.SENT)

    row = connection.execute(select(notification)).mappings().one()
    assert (row["type"], row["owner"], row["payout_id"]) == ("PAYOUT_SENT", PAYEE, payout_id)
    assert (row["currency"], row["amount_minor"], row["hold_id"]) == ("PHP", 10_000, None)
    assert state_of_payout(connection, payout_id) == "SENT"
    assert reconcile(connection) == []


def test_owner_who_is_frozen_since_stops_the_batch(connection: Connection) -> None:
    """Until the payout is cancelled, or the owner is unfrozen."""
    payout_id = place_payout(connection)
    payable(connection, OTHER)
    request(connection, OTHER)
    batch = make_batch(connection)
    id_ = batch.payout_batch_id
    approve_payout_batch(connection, payout_batch_id=id_, by=APPROVER, now=DAY_3)
    freeze(connection)
    before = books(connection)

    with pytest.raises(
        PayoutRefused, match=f"cannot be sent with payout {payout_id} of 'worker-17', who is frozen"
    ) as refused:
        send_payout_batch(connection, payout_batch_id=id_, by=MAKER, now=DAY_3)

    assert (refused.value.payout_batch_id, refused.value.payout_id) == (id_, payout_id)
    assert books(connection) == before
    cancel_payout(connection, payout_id=payout_id, by=ADMIN, reason="frozen", now=DAY_3)
    sent = send_payout_batch(connection, payout_batch_id=id_, by=MAKER, now=DAY_3)
    assert (sent.payouts, sent.amount_minor) == (1, 10_000)


@pytest.mark.parametrize("override", [False, True])
def test_destination_that_was_changed_since_stops_the_sending(connection: Connection, override: bool) -> None:
    """An owner who puts a wrong account right is not paid to the wrong one, which the batch still has.

    To set the same account again changes nothing for the batch.
    """
    payable(connection, PAYEE)
    payable(connection, "worker-18")
    more = {"override": True, "reason": "by phone"} if override else {}
    payout_id = request(connection, PAYEE, **more).payout_id
    request(connection, "worker-18")
    id_ = make_batch(connection).payout_batch_id
    approve_payout_batch(connection, payout_batch_id=id_, by=APPROVER, now=DAY_3)
    to_iban(connection, "worker-18", now=DAY_3)
    to_iban(connection, PAYEE, account="GB29NWBK60161331926819", now=DAY_3)

    with pytest.raises(
        PayoutRefused, match=f"with payout {payout_id} of '{PAYEE}', who has changed where payouts go; cancel"
    ) as refused:
        send_payout_batch(connection, payout_batch_id=id_, by=MAKER, now=DAY_3)

    assert (refused.value.state, refused.value.allowed) == ("DESTINATION_CHANGED", ("cancel_payout",))
    cancel_payout(connection, payout_id=payout_id, by=ADMIN, reason="another account", now=DAY_3)
    assert send_payout_batch(connection, payout_batch_id=id_, by=MAKER, now=DAY_3).payouts == 1


@pytest.mark.parametrize("approved", [False, True])
def test_cancelled_batch_gives_its_payouts_back(connection: Connection, approved: bool) -> None:
    """They are in the next batch. The cancelled one keeps what it had."""
    payout_id = place_payout(connection)
    batch = make_batch(connection)
    if approved:
        approve_payout_batch(connection, payout_batch_id=batch.payout_batch_id, by=APPROVER, now=DAY_3)

    done = cancel_payout_batch(
        connection, payout_batch_id=batch.payout_batch_id, by=MAKER, reason="wrong day", now=DAY_3
    )

    assert (done.state, done.payouts, done.amount_minor) == (PayoutBatchState.CANCELLED, 1, 10_000)
    assert state_of_payout(connection, payout_id) == "REQUESTED"
    assert reconcile(connection) == []
    assert make_batch(connection).payouts == 1


def call(connection: Connection, verb: str, id_: int, by: str) -> Any:
    """Run a verb on a batch."""
    if verb == "cancel":
        return cancel_payout_batch(connection, payout_batch_id=id_, by=by, reason="wrong", now=DAY_3)
    verbs = {"approve": approve_payout_batch, "send": send_payout_batch}
    return verbs[verb](connection, payout_batch_id=id_, by=by, now=DAY_3)


@pytest.mark.parametrize("verb", ["approve", "send", "cancel"])
def test_same_decision_again_changes_nothing(connection: Connection, verb: str) -> None:
    """By the same person; by somebody else it is refused, and names who did it."""
    place_payout(connection)
    id_ = make_batch(connection).payout_batch_id
    if verb == "send":
        call(connection, "approve", id_, APPROVER)
    first = call(connection, verb, id_, APPROVER)
    before = books(connection)

    again = call(connection, verb, id_, APPROVER)

    assert (first.replayed, again.replayed, again.state) == (False, True, first.state)
    with pytest.raises(PayoutRefused, match=f"as it is {first.state} by 'finance-2'"):
        call(connection, verb, id_, "finance-3")
    assert books(connection) == before


def test_cancelling_for_another_reason_is_refused(connection: Connection) -> None:
    """The reason is part of the decision."""
    place_payout(connection)
    id_ = make_batch(connection).payout_batch_id
    call(connection, "cancel", id_, MAKER)

    with pytest.raises(PayoutRefused, match="as it is CANCELLED by"):
        cancel_payout_batch(connection, payout_batch_id=id_, by=MAKER, reason="another", now=DAY_3)


@pytest.mark.parametrize("verb", ["approve", "send", "cancel"])
def test_unknown_batch_is_refused(connection: Connection, verb: str) -> None:
    """By its id."""
    with pytest.raises(NotFound, match="payout batch 99: does not exist") as refused:
        call(connection, verb, 99, MAKER)

    assert refused.value.payout_batch_id == 99
