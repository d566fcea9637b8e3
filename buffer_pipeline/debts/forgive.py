"""Forgive a debt: its creditor gets what is outstanding from the account LOSS."""

from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, Row, fetch, wallet_capacity_or_refusal
from buffer_pipeline.debts.replay import require_same
from buffer_pipeline.errors import BooksOutOfBalance, DebtRefused, NotFound
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import (
    require_id,
    require_not_before,
    require_reason,
    require_text,
    require_time,
)
from buffer_pipeline.locks import lock_reference, lock_wallets


@dataclass(frozen=True, kw_only=True)
class Forgiven:
    """A debt that was forgiven. `amount_minor` is what was outstanding of it.

    `replayed` is True if an earlier call with the same reference did the work.
    """

    debt_id: int
    owner: str
    currency: str
    amount_minor: int
    replayed: bool = False


def forgive_debt(
    connection: AnyConnection,
    *,
    debt_id: int,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None = None,
) -> Forgiven:
    """Write off what is outstanding of a debt, against the account LOSS.

    Whoever waits for the money gets it now. Only an admin should do this; the platform checks who may.
    `reference` is the idempotency key. Without one, a repeated call is refused, since the debt is closed.

    Raises:
        NotFound: no such debt.
        DebtRefused: nothing of it is outstanding.
        InvalidInput: `now` is more than a minute before the debt was opened, or a value cannot be accepted.
        WalletFull: the creditor's wallet cannot hold so much.
        ReferenceConflict: the reference was used for something else.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("debt", debt_id)
    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
    debt = _read(connection, debt_id)
    if reference is not None:
        found = fetch(connection, "debts/find_forgiven", reference=reference, debt_id=debt_id)
        if found:
            return _replay(connection, found[0], debt=debt, by=by, reason=reason)
    # Neither wallet of a debt ever changes, so both are known before their locks.
    creditor_id = debt["creditor_wallet_id"]
    lock_wallets(connection, {debt["wallet_id"]} | (set() if creditor_id is None else {creditor_id}))
    debt = _read(connection, debt_id)
    if debt["closed_at"] is not None:
        raise DebtRefused(
            f"debt {debt_id}: of {debt['owner']!r}, closed since {debt['closed_at'].isoformat()};"
            " only an open debt can be forgiven",
            owner=debt["owner"],
            state="CLOSED",
        )
    now = require_not_before(now, debt["opened_at"], what=f"debt {debt_id} was opened")
    with wallet_capacity_or_refusal(connection, f"debt {debt_id}: its creditor's wallet"):
        rows = fetch(
            connection,
            "debts/forgive_debt",
            debt_id=debt_id,
            forgiven_by=by,
            reason=reason,
            reference=reference,
            now=now,
        )
    if not rows or rows[0]["amount_minor"] != debt["outstanding_minor"]:
        raise BooksOutOfBalance(f"debt {debt_id}: was not written off as asked; roll back")
    return Forgiven(
        debt_id=debt_id,
        owner=debt["owner"],
        currency=debt["currency"],
        amount_minor=debt["outstanding_minor"],
    )


def _read(connection: AnyConnection, debt_id: int) -> Row:
    rows = fetch(connection, "debts/read_debt", debt_id=debt_id)
    if not rows:
        raise NotFound(f"debt {debt_id}: does not exist")
    return rows[0]


def _replay(connection: AnyConnection, found: Row, *, debt: Row, by: str, reason: str) -> Forgiven:
    same = (found["debt_id"], found["source"], found["reason"]) == (debt["debt_id"], by, reason)
    require_same(connection, found, kind="FORGIVEN", same=same)
    return Forgiven(
        debt_id=debt["debt_id"],
        owner=debt["owner"],
        currency=debt["currency"],
        amount_minor=found["amount_minor"],
        replayed=True,
    )
