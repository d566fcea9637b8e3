"""One hold in detail. Reads only."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from buffer_pipeline.errors import NotFound
from buffer_pipeline.hold import Verb
from buffer_pipeline.inputs import require_id
from buffer_pipeline.reports.rows import Rows, rows_of
from buffer_pipeline.rules import STANDARD
from buffer_pipeline.tables import (
    audit_line,
    batch,
    hold,
    hold_freeze,
    hold_rule,
    hold_status,
    transaction,
    wallet,
)

_payee = wallet.alias("payee")
_payer = wallet.alias("payer")


def show_hold(
    connection: Connection, *, hold_id: int | None = None, reference: str | None = None
) -> dict[str, Any]:
    """Return one hold with its `freezes`, `moves` and `transactions`, the oldest first.

    `rule` and `rule_version` name its hold rule; `standard` without a version is the settings' defaults. If
    its earning has `shares`, they are all there.

    A freeze with an `earning_freeze_id` belongs to that freeze, of the earning.

    A move is a change of its release date, `from` one date `to` another. A transaction has the owner that it
    went `to`, and `balance_after_minor` if it changed that owner's balance. `released_by` and
    `release_reason` say who released it and why, `refunded_by` and `refund_reason` the same of a refund
    without a backjob. An EARNING_PART is a part that was released early. A CLAWBACK and an ADVANCE also have
    `taken_back_by` and `claw_back_reason`, and go to the payer or to a `bank`.

    Raises:
        NotFound: no hold with this id or reference.
    """
    if hold_id is not None:
        require_id("hold", hold_id)
    condition: ColumnElement[bool] = hold_status.c.hold_id == hold_id
    if hold_id is None:
        # Of an earning with shares, the payee's own.
        condition = and_(hold_status.c.reference == reference, hold_status.c.earning_id.is_(None))
    rows = rows_of(connection, select_holds().where(condition))
    if not rows:
        raise NotFound(
            f"hold {hold_id}: does not exist"
            if reference is None
            else f"reference {reference!r}: no hold has it",
            hold_id=hold_id,
            reference=reference,
        )
    found = rows[0]
    found |= _rule_of(connection, found["hold_id"])
    found["shares"] = _shares(connection, found["hold_id"])
    found["freezes"] = rows_of(
        connection,
        select(
            hold_freeze.c.freeze_id,
            hold_freeze.c.kind,
            hold_freeze.c.backjob_id,
            hold_freeze.c.owner_freeze_id,
            hold_freeze.c.earning_freeze_id,
            hold_freeze.c.opened_by,
            hold_freeze.c.reason,
            hold_freeze.c.payee_text,
            hold_freeze.c.opened_at,
            hold_freeze.c.closed_by,
            hold_freeze.c.closing_reason,
            hold_freeze.c.closed_at,
        )
        .where(hold_freeze.c.hold_id == found["hold_id"])
        .order_by(hold_freeze.c.freeze_id),
    )
    found["moves"] = rows_of(
        connection,
        select(
            audit_line.c.at,
            audit_line.c.by,
            audit_line.c.reason,
            audit_line.c.from_date.label("from"),
            audit_line.c.to_date.label("to"),
        )
        .where(audit_line.c.hold_id == found["hold_id"], audit_line.c.verb == Verb.RESCHEDULE.upper())
        .order_by(audit_line.c.audit_id),
    )
    is_refund = batch.c.kind == "REFUND"
    is_release = batch.c.kind.in_(("DUE", "EARLY"))
    is_claw_back = batch.c.kind == "CLAWBACK"
    found["transactions"] = rows_of(
        connection,
        select(
            transaction.c.transaction_id,
            transaction.c.type,
            transaction.c.amount_minor,
            transaction.c.currency,
            transaction.c.balance_after_minor,
            transaction.c.backjob_id,
            batch.c.batch_id,
            batch.c.kind.label("batch_kind"),
            case((is_release, batch.c.source)).label("released_by"),
            case((is_release, batch.c.reason)).label("release_reason"),
            case((is_refund, batch.c.source)).label("refunded_by"),
            case((is_refund, batch.c.reason)).label("refund_reason"),
            case((is_claw_back, batch.c.source)).label("taken_back_by"),
            case((is_claw_back, batch.c.reason)).label("claw_back_reason"),
            transaction.c.to_account,
            transaction.c.recorded_at,
        )
        .outerjoin(batch, batch.c.batch_id == transaction.c.batch_id)
        .where(
            transaction.c.hold_id == found["hold_id"],
            # Two partial indexes cover a hold's transactions: one the EARNINGs, one the others. The OR lets
            # the planner use both.
            or_(transaction.c.type == "EARNING", transaction.c.type != "EARNING"),
        )
        .order_by(transaction.c.transaction_id),
    )
    for line in found["transactions"]:
        is_taken_back = line["type"] in ("CLAWBACK", "ADVANCE")
        if not is_taken_back:
            del line["taken_back_by"], line["claw_back_reason"]
        # A refund and a claw-back go to the payer, everything else to the payee.
        line["to"] = found["payer" if is_taken_back or line["type"] == "REFUND" else "payee"]
        if line.pop("to_account") == "EXTERNAL":
            line["to"] = "bank"
    return found


def _rule_of(connection: Connection, hold_id: int) -> dict[str, Any]:
    query = (
        select(hold_rule.c.name.label("rule"), hold_rule.c.version.label("rule_version"))
        .join(hold, hold.c.rule_id == hold_rule.c.rule_id)
        .where(hold.c.hold_id == hold_id)
    )
    rows = rows_of(connection, query)
    return rows[0] if rows else {"rule": STANDARD, "rule_version": None}


def _shares(connection: Connection, hold_id: int) -> Rows:
    """Return the shares of a hold's earning, the payee's first; none if the whole earning is one hold."""
    first = (
        select(func.coalesce(hold_status.c.earning_id, hold_status.c.hold_id))
        .where(hold_status.c.hold_id == hold_id)
        .scalar_subquery()
    )
    found = rows_of(
        connection,
        select(
            hold_status.c.hold_id,
            hold_status.c.kind,
            _payee.c.owner,
            hold_status.c.amount_minor,
            hold_status.c.refunded_minor,
            hold_status.c.released_minor,
            hold_status.c.currency,
            hold_status.c.state,
            hold_status.c.release_date,
        )
        .join(_payee, _payee.c.wallet_id == hold_status.c.payee_wallet_id)
        .where(or_(hold_status.c.hold_id == first, hold_status.c.earning_id == first))
        .order_by(hold_status.c.hold_id),
    )
    return found if len(found) > 1 else []


def select_holds() -> Select[Any]:
    """Return the query for holds.

    `amount_minor` is the amount that was held at first. `refunded_minor` of it was refunded to the payer,
    `released_minor` to the payee, and `left_minor` is still in the buffer, 0 for a settled hold. `metadata`
    is {} if a hold has none. `kind` is PAYEE for an earning without shares. `earning_id` is the first hold of
    the earning that a share is of, and None for that hold itself.
    """
    left = hold_status.c.amount_minor - hold_status.c.refunded_minor - hold_status.c.released_minor
    return (
        select(
            hold_status.c.hold_id,
            hold_status.c.reference,
            hold_status.c.job,
            hold_status.c.title,
            hold_status.c.kind,
            hold_status.c.earning_id,
            _payee.c.owner.label("payee"),
            _payer.c.owner.label("payer"),
            hold_status.c.amount_minor,
            hold_status.c.refunded_minor,
            hold_status.c.released_minor,
            left.label("left_minor"),
            hold_status.c.currency,
            hold_status.c.state,
            hold_status.c.held_at,
            hold_status.c.release_date,
            hold_status.c.settled_at,
            func.coalesce(hold_status.c.metadata, literal_column("'{}'::jsonb"), type_=JSONB).label(
                "metadata"
            ),
        )
        .select_from(hold_status)
        .join(_payee, _payee.c.wallet_id == hold_status.c.payee_wallet_id)
        .join(_payer, _payer.c.wallet_id == hold_status.c.payer_wallet_id)
    )
