"""Wallets, backjobs, debts and payouts: each filter, both orders, page by page."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from buffer_pipeline.backjob import reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.debts import ClawbackTo
from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.hold import BackjobState, FreezeKind
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import PayoutState
from buffer_pipeline.reads import (
    Page,
    find_wallet,
    list_backjobs,
    list_debts,
    list_payouts,
    list_wallets,
)
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, PAYER, place_hold
from buffer_pipeline_tests.support.debts import place_debt, place_released, put_in, recover_now, take_back
from buffer_pipeline_tests.support.payouts import place_payout

Listed = Callable[..., Page[Any]]


def both_orders(connection: Connection, listed: Listed, key: str, **filters: Any) -> list[int]:
    """Return the ids of all pages of one, the oldest first; newest first must be the same backwards."""
    found = []
    for oldest_first in (True, False):
        ids: list[int] = []
        cursor, pages = None, 0
        while pages == 0 or cursor is not None:
            page = listed(connection, oldest_first=oldest_first, limit=1, cursor=cursor, **filters)
            ids += [getattr(item, key) for item in page.items]
            cursor, pages = page.next_cursor, pages + 1
        found.append(ids)
    assert found[0] == found[1][::-1]
    return found[0]


def test_wallets(connection: Connection) -> None:
    """All, an owner's, those of a currency; a frozen owner's are marked."""
    for number, currency in enumerate(("PHP", "JPY", "PHP")):
        place_hold(connection, job=f"job-{number}", payee=f"worker-{number}", currency=currency, amount="10")
    freeze_owner(connection, owner="worker-1", kind=FreezeKind.ADMIN, by=ADMIN, reason="a look", now=NOON)

    everything = both_orders(connection, list_wallets, "wallet_id")
    yen = both_orders(connection, list_wallets, "wallet_id", currency="JPY")
    of_payer = list_wallets(connection, owner=PAYER, oldest_first=True).items
    frozen = find_wallet(connection, owner="worker-1", currency="JPY")

    assert len(everything) == 5
    assert len(yen) == 2
    assert {wallet.currency for wallet in of_payer} == {"PHP", "JPY"}
    assert (frozen.pending_earnings_minor, frozen.places, frozen.is_frozen) == (10, 0, True)
    assert not of_payer[0].is_frozen
    with pytest.raises(NotFound, match="wallet of 'worker-1': does not exist in PHP"):
        find_wallet(connection, owner="worker-1", currency="PHP")


def test_backjobs(connection: Connection) -> None:
    """By state and job, each with all holds that it froze."""
    ids = []
    for number in range(4):
        first = place_hold(connection, job=f"job-{number % 3}", reference=f"a-{number}")
        asked = request_backjob(
            connection, job=f"job-{number % 3}", by=PAYER, reason="drips", now=NOON, reference=f"c-{number}"
        )
        ids.append(asked.backjob_id)
        if number < 2:
            decide = reject_backjob if number else withdraw_backjob
            decide(connection, backjob_id=asked.backjob_id, by=ADMIN, reason="fine", now=NOON)

    assert both_orders(connection, list_backjobs, "backjob_id") == ids
    assert both_orders(connection, list_backjobs, "backjob_id", state="OPEN") == ids[2:]
    assert both_orders(connection, list_backjobs, "backjob_id", state=BackjobState.REJECTED) == [ids[1]]
    assert both_orders(connection, list_backjobs, "backjob_id", job="job-0") == [ids[0], ids[3]]
    assert both_orders(connection, list_backjobs, "backjob_id", job="job-0", state="OPEN") == [ids[3]]
    (newest,) = list_backjobs(connection, limit=1).items
    assert (newest.reference, newest.hold_ids[-1], newest.decided_by) == ("c-3", first, None)


def test_debts(connection: Connection) -> None:
    """All, an owner's, and those of which something is outstanding."""
    place_debt(connection)
    other = place_released(connection, payee="worker-18", job="job-9", spent="900.00")
    take_back(connection, other, to=ClawbackTo.BANK, reference="claw-back-2")
    put_in(connection, "600.00")
    recover_now(connection)

    assert len(both_orders(connection, list_debts, "debt_id")) == 2
    (open_one,) = list_debts(connection, only_open=True).items
    assert (open_one.owner, open_one.creditor, open_one.places) == ("worker-18", None, 2)
    assert both_orders(connection, list_debts, "debt_id", owner=PAYEE, only_open=True) == []
    assert len(both_orders(connection, list_debts, "debt_id", owner=PAYEE)) == 1
    assert list_debts(connection, owner="nobody") == Page(items=(), next_cursor=None)


def test_payouts(connection: Connection) -> None:
    """By owner, state and batch, the account masked."""
    # A batch takes everything that is requested, so that one comes last.
    states = [*list(PayoutState)[1:], PayoutState.REQUESTED]
    ids = {state: place_payout(connection, state, owner=f"worker-{state.lower()}") for state in states}

    assert set(both_orders(connection, list_payouts, "payout_id")) >= set(ids.values())
    for state, payout_id in ids.items():
        assert both_orders(connection, list_payouts, "payout_id", state=state) == [payout_id]
        owner = f"worker-{state.lower()}"
        assert both_orders(connection, list_payouts, "payout_id", owner=owner) == [payout_id]
        assert list_payouts(connection, owner=owner, state="PAID").items == (
            list_payouts(connection, owner=owner).items if state is PayoutState.PAID else ()
        )
    sent = list_payouts(connection, state="SENT").items[0]
    assert sent.account == "DE****3000"
    assert both_orders(connection, list_payouts, "payout_id", payout_batch_id=sent.payout_batch_id) == [
        sent.payout_id
    ]


@pytest.mark.parametrize(
    ("listed", "arguments", "refusal"),
    [
        (list_backjobs, {"state": "LOST"}, InvalidInput),
        (list_payouts, {"state": "LOST"}, InvalidInput),
        (list_payouts, {"payout_batch_id": 0}, NotFound),
        (list_debts, {"owner": " x"}, InvalidInput),
        (list_wallets, {"limit": 0}, InvalidInput),
        (list_wallets, {"currency": ""}, InvalidInput),
    ],
)
def test_a_wrong_filter_is_refused(
    connection: Connection, listed: Listed, arguments: dict[str, Any], refusal: type[Exception]
) -> None:
    """Before anything is read."""
    with pytest.raises(refusal):
        listed(connection, **arguments)
