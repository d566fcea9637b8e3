"""The lists and explanations, each in a function that reads pages of large books."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection

from buffer_pipeline.explain import explain_hold
from buffer_pipeline.reads import (
    Page,
    find_hold,
    find_wallet,
    list_backjobs,
    list_debts,
    list_holds,
    list_payouts,
    list_wallets,
    statement,
)
from buffer_pipeline_tests.support.builders import NOON
from buffer_pipeline_tests.support.large_books import LAST

ORDERS: Final = (False, True)


def pages(connection: Connection, listed: Callable[..., Page[Any]], **filters: Any) -> None:
    """Read the first two pages in both orders."""
    for oldest_first in ORDERS:
        first = listed(connection, oldest_first=oldest_first, limit=2, **filters)
        if first.next_cursor is not None:
            listed(connection, oldest_first=oldest_first, limit=2, cursor=first.next_cursor, **filters)


def _reading(listed: Callable[..., Page[Any]], **filters: Any) -> Callable[[Connection], None]:
    return lambda connection: pages(connection, listed, **filters)


READS: Final[dict[str, Callable[[Connection], object]]] = {
    "find hold": lambda books: find_hold(books, hold_id=17),
    "find hold by reference": lambda books: find_hold(books, reference="earning-17"),
    "page of holds": _reading(list_holds),
    "page of a payee": _reading(list_holds, owner="owner-17"),
    "page of a payer": _reading(list_holds, owner="owner-17", role="PAYER"),
    "page of what waits for a payee": _reading(list_holds, owner="owner-17", state="BUFFERED"),
    "page of frozen holds": _reading(list_holds, state="FROZEN"),
    "page of buffered holds": _reading(list_holds, state="BUFFERED"),
    "page of released holds": _reading(list_holds, state="RELEASED"),
    "page of a kind": _reading(list_holds, kind="FEE"),
    "page of a time": _reading(list_holds, held_since=NOON - timedelta(days=1)),
    "page of a job": _reading(list_holds, job="job-17"),
    "page by metadata": _reading(list_holds, metadata={"order": "300"}),
    "page of due holds": _reading(list_holds, due_by=NOON - timedelta(minutes=58)),
    "find wallet": lambda books: find_wallet(books, owner="owner-17", currency="PHP"),
    "page of wallets": _reading(list_wallets),
    "page of a statement": _reading(statement, owner="owner-17"),
    "page of backjobs": _reading(list_backjobs),
    "page of open backjobs": _reading(list_backjobs, state="OPEN"),
    "page of a job's backjobs": _reading(list_backjobs, job="job-17"),
    "page of debts": _reading(list_debts),
    "page of open debts": _reading(list_debts, only_open=True),
    "page of an owner's debts": _reading(list_debts, owner="owner-17"),
    "page of payouts": _reading(list_payouts),
    "page of requested payouts": _reading(list_payouts, state="REQUESTED"),
    "page of sent payouts": _reading(list_payouts, state="SENT"),
    "page of a batch's payouts": _reading(list_payouts, payout_batch_id=1),
    "page of an owner's payouts": _reading(list_payouts, owner="owner-17"),
    "explain a released hold": lambda books: explain_hold(books, hold_id=17, now=NOON),
    "explain a frozen hold": lambda books: explain_hold(books, hold_id=LAST, now=NOON),
}
