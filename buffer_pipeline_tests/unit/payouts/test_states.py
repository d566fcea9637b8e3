"""Every verb in every state of a payout and of a batch, compared with the two tables of transitions."""

import re
from collections.abc import Callable
from typing import Final

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import Refused
from buffer_pipeline.payouts import (
    PayoutBatchState,
    PayoutState,
    approve_payout_batch,
    cancel_payout,
    cancel_payout_batch,
    make_payout_batch,
    mark_payouts,
    send_payout_batch,
)
from buffer_pipeline.payouts.state import (
    NEXT_BATCH_STATE,
    NEXT_PAYOUT_STATE,
    OPEN_PAYOUT,
    PayoutBatchVerb,
    PayoutVerb,
)
from buffer_pipeline.tables import payout, payout_batch
from buffer_pipeline_tests.schema import PAGE
from buffer_pipeline_tests.support.builders import books
from buffer_pipeline_tests.support.payouts import (
    DAY_3,
    make_batch,
    place_payout,
    said,
    send_batch,
    state_of_payout,
)

BY: Final = "finance-3"


def batch_of(connection: Connection, payout_id: int) -> int:
    """Return the batch of a payout, or one that does not exist."""
    found = connection.scalar(select(payout.c.payout_batch_id).where(payout.c.payout_id == payout_id))
    return found or 9_999


def marks(connection: Connection, payout_id: int, *, outcome: str) -> None:
    """Mark a payout as a file says."""
    result = said(payout_id, "PAID") if outcome == "PAID" else said(payout_id, "RETURNED")
    id_ = batch_of(connection, payout_id)
    mark_payouts(connection, payout_batch_id=id_, results=[result], by=BY, file_digest=b"7" * 32, now=DAY_3)


VERBS: Final[dict[PayoutVerb, Callable[[Connection, int], object]]] = {
    PayoutVerb.BATCH: lambda connection, _: make_payout_batch(connection, currency="PHP", by=BY, now=DAY_3),
    PayoutVerb.UNBATCH: lambda connection, id_: cancel_payout_batch(
        connection, payout_batch_id=batch_of(connection, id_), by=BY, reason="x", now=DAY_3
    ),
    PayoutVerb.CANCEL: lambda connection, id_: cancel_payout(
        connection, payout_id=id_, by=BY, reason="x", now=DAY_3
    ),
    PayoutVerb.SEND: lambda connection, id_: send_payout_batch(
        connection, payout_batch_id=batch_of(connection, id_), by=BY, now=DAY_3
    ),
    PayoutVerb.PAY: lambda connection, id_: marks(connection, id_, outcome="PAID"),
    PayoutVerb.RETURN: lambda connection, id_: marks(connection, id_, outcome="RETURNED"),
}


@pytest.mark.parametrize("verb", PayoutVerb)
@pytest.mark.parametrize("state", PayoutState)
def test_payout_follows_its_table(connection: Connection, state: PayoutState, verb: PayoutVerb) -> None:
    """A pair of the table leads to its state. Any other is refused, or changes no payout and no money."""
    payout_id = place_payout(connection, state)
    if (state, verb) == (PayoutState.BATCHED, PayoutVerb.SEND):
        id_ = batch_of(connection, payout_id)
        approve_payout_batch(connection, payout_batch_id=id_, by=BY, now=DAY_3)
    before = books(connection)

    try:
        VERBS[verb](connection, payout_id)
    except Refused:
        assert (state, verb) not in NEXT_PAYOUT_STATE
        assert books(connection) == before
    else:
        expected = NEXT_PAYOUT_STATE.get((state, verb), state)
        assert state_of_payout(connection, payout_id) == expected
        if (state, verb) not in NEXT_PAYOUT_STATE:
            after = books(connection)
            changed = {name for name in after if after[name] != before[name]}
            assert changed <= {"payout_status_file"}, "only a line that says what is so changes nothing"
    assert reconcile(connection) == []


BATCH_VERBS: Final[dict[PayoutBatchVerb, Callable[[Connection, int], object]]] = {
    PayoutBatchVerb.APPROVE: lambda connection, id_: approve_payout_batch(
        connection, payout_batch_id=id_, by=BY, now=DAY_3
    ),
    PayoutBatchVerb.SEND: lambda connection, id_: send_payout_batch(
        connection, payout_batch_id=id_, by=BY, now=DAY_3
    ),
    PayoutBatchVerb.CANCEL: lambda connection, id_: cancel_payout_batch(
        connection, payout_batch_id=id_, by=BY, reason="x", now=DAY_3
    ),
}


def place_batch(connection: Connection, state: PayoutBatchState) -> int:
    """Bring a batch to a state by the verbs; return its id."""
    place_payout(connection)
    batch = make_batch(connection)
    id_ = batch.payout_batch_id
    if state is PayoutBatchState.APPROVED:
        approve_payout_batch(connection, payout_batch_id=id_, by="finance-2", now=DAY_3)
    if state is PayoutBatchState.SENT:
        send_batch(connection, batch)
    if state is PayoutBatchState.CANCELLED:
        cancel_payout_batch(connection, payout_batch_id=id_, by="finance-2", reason="no", now=DAY_3)
    return id_


@pytest.mark.parametrize("verb", PayoutBatchVerb)
@pytest.mark.parametrize("state", PayoutBatchState)
def test_batch_follows_its_table(
    connection: Connection, state: PayoutBatchState, verb: PayoutBatchVerb
) -> None:
    """A pair of the table leads to its state, and any other is refused."""
    id_ = place_batch(connection, state)
    before = books(connection)

    if (state, verb) in NEXT_BATCH_STATE:
        BATCH_VERBS[verb](connection, id_)
        found = connection.scalar(select(payout_batch.c.state))
        assert found == NEXT_BATCH_STATE[state, verb]
    else:
        with pytest.raises(Refused, match=f"payout batch {id_}: cannot {verb}, as it is {state}"):
            BATCH_VERBS[verb](connection, id_)
        assert books(connection) == before
    assert reconcile(connection) == []


def pairs(trigger: str, states: type[PayoutState] | type[PayoutBatchState]) -> set[tuple[str, str]]:
    """Return the pairs of states that a trigger of the schema allows."""
    line = next(line for line in PAGE.read_text().splitlines() if f"CREATE TRIGGER {trigger} " in line)
    found = re.findall(r"\(old\.state = '(\w+)'::text\) AND \(new\.state = '(\w+)'::text\)", line)
    if not found:
        found = re.findall(r"ROW\('(\w+)'::text, '(\w+)'::text\)", line)
    if not found:
        # NOT IN, written out by PostgreSQL as pairs of comparisons that differ.
        found = re.findall(r"\(old\.state <> '(\w+)'::text\) OR \(new\.state <> '(\w+)'::text\)", line)
    assert {state for pair in found for state in pair} <= set(states)
    return set(found)


def test_triggers_allow_the_same_pairs() -> None:
    """A state is spelled once in Python and once in SQL."""
    assert pairs("payout_moves_on", PayoutState) == {
        (before.value, after.value) for (before, _), after in NEXT_PAYOUT_STATE.items()
    }
    assert pairs("payout_batch_moves_on", PayoutBatchState) == {
        (before.value, after.value) for (before, _), after in NEXT_BATCH_STATE.items()
    }


def test_open_states_are_those_in_transit() -> None:
    """Money is in transit until it is paid, back, or cancelled."""
    assert set(OPEN_PAYOUT) == set(PayoutState) - {
        PayoutState.PAID,
        PayoutState.RETURNED,
        PayoutState.CANCELLED,
    }


@pytest.mark.parametrize(
    "change",
    [
        "amount_minor = amount_minor + 1",
        "state = 'PAID', paid_at = now()",
        "state = 'RETURNED', returned_at = now(), return_reason = 'x'",
        "reference = 'another'",
        "override_reason = 'because'",
        "wallet_id = wallet_id + 1",
    ],
)
def test_triggers_refuse_raw_changes(connection: Connection, change: str) -> None:
    """Of a payout that is not sent, whoever tries: by privilege, or by the trigger."""
    place_payout(connection, PayoutState.BATCHED)

    with pytest.raises(DBAPIError, match=r"kept as they were written|permission denied"):
        connection.execute(text(f"UPDATE buffer.payout SET {change}"))


@pytest.mark.parametrize(
    "change", ["amount_minor = amount_minor + 1", "approved_by = 'x'", "state = 'MADE'", "four_eyes = false"]
)
def test_triggers_refuse_raw_changes_of_a_batch(connection: Connection, change: str) -> None:
    """Of a sent one, whoever tries."""
    place_payout(connection, PayoutState.SENT)

    with pytest.raises(DBAPIError, match=r"kept as they were written|permission denied"):
        connection.execute(text(f"UPDATE buffer.payout_batch SET {change}"))


def test_money_moves_only_with_the_state(connection: Connection) -> None:
    """A transaction of a payout that its state does not say is refused."""
    payout_id = place_payout(connection, PayoutState.SENT)

    with pytest.raises(DBAPIError, match="does not exist or does not match"):
        connection.execute(
            text(
                "INSERT INTO buffer.transaction (type, from_account, to_account, currency, amount_minor,"
                " payout_id, recorded_at)"
                " VALUES ('PAYOUT_PAID', 'TRANSIT', 'EXTERNAL', 'PHP', 10000, :id, now())"
            ),
            {"id": payout_id},
        )
