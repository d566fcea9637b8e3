"""An oracle in plain Python: what is wrong with the books, given their state before a transaction."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, select

from buffer_pipeline import tables

Row = dict[str, Any]
Rows = dict[Any, Row]

_COOLDOWN_MAX = timedelta(hours=87_600)


@dataclass(frozen=True)
class Snapshot:
    """The rows of the tables with money and decisions, by id or name."""

    wallet: Rows
    hold: Rows
    unsettled_hold: Rows
    transaction: Rows
    batch: Rows
    backjob: Rows
    hold_freeze: Rows
    job: Rows


def look(connection: Connection) -> Snapshot:
    """Read the books as a transaction sees them."""

    def rows(table: Table) -> Rows:
        (key,) = table.primary_key
        found = connection.execute(select(table).order_by(key)).mappings()
        return {row[key.name]: dict(row) for row in found}

    return Snapshot(**{field.name: rows(getattr(tables, field.name)) for field in fields(Snapshot)})


def wrongs(before: Snapshot, after: Snapshot) -> list[str]:
    """Return what a transaction did that no verb does, if the books were right before."""
    return [
        *_rewritten(before, after),
        *_money(before, after),
        *_holds(before, after),
        *_shares(after),
        *_decisions(after),
        *_jobs_and_refunds(after),
        *_releases(after),
        *_dates(after),
    ]


def _rewritten(before: Snapshot, after: Snapshot) -> Iterator[str]:
    for table in ("transaction", "hold", "batch"):
        there = getattr(after, table)
        for key, row in getattr(before, table).items():
            if there.get(key) != row:
                yield f"{table} {key} is not as it was written"
    for key, row in before.job.items():
        if key not in after.job or after.job[key]["payer"] != row["payer"]:
            yield f"job {key} is another's"
    for key, row in before.backjob.items():
        if row["state"] != "OPEN" and after.backjob.get(key) != row:
            yield f"backjob {key} was decided again"
    for key, row in before.hold_freeze.items():
        if row["closed_at"] is not None and after.hold_freeze.get(key) != row:
            yield f"freeze {key} was closed again"


def _money(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """Wallets change by the written lines, and each line has the balance after it."""
    balance = {key: row["balance_minor"] for key, row in before.wallet.items()}
    pending = {key: row["pending_earnings_minor"] for key, row in before.wallet.items()}
    accounts = {"BALANCE": balance, "PENDING_EARNINGS": pending}
    for key, line in after.transaction.items():
        if key in before.transaction:
            continue
        for side, sign in (("from", -1), ("to", 1)):
            account, wallet_id = line[f"{side}_account"], line[f"{side}_wallet_id"]
            if account in accounts:
                accounts[account][wallet_id] = (
                    accounts[account].get(wallet_id, 0) + sign * line["amount_minor"]
                )
                if account == "BALANCE" and line["balance_after_minor"] != balance[wallet_id]:
                    yield f"transaction {key} says another balance"
    for key, row in after.wallet.items():
        if row["balance_minor"] != balance.get(key, 0):
            yield f"wallet {key} has a balance that no line says"
        if row["pending_earnings_minor"] != pending.get(key, 0):
            yield f"wallet {key} has pending earnings that no line says"
        # These books have no debts: `test_raw_debts` tries raw SQL on those.
        if row["debt_minor"]:
            yield f"wallet {key} owes what no debt says"


def _holds(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """A hold's amount is what was paid and what still waits. It is frozen if and only if a freeze is open."""
    lines: dict[int, list[Row]] = {}
    for line in after.transaction.values():
        if line["hold_id"] is not None:
            lines.setdefault(line["hold_id"], []).append(line)
    frozen = {row["hold_id"] for row in after.hold_freeze.values() if row["closed_at"] is None}
    for key, hold in after.hold.items():
        of_hold = lines.get(key, [])
        sums = {
            kind: sum(line["amount_minor"] for line in of_hold if line["type"] == kind)
            for kind in ("PENDING_EARNING", "EARNING", "EARNING_PART", "REFUND")
        }
        waiting = after.unsettled_hold.get(key)
        left = waiting["amount_minor"] if waiting else 0
        if sums["PENDING_EARNING"] != hold["amount_minor"]:
            yield f"hold {key} came in with another amount"
        if sums["EARNING"] + sums["EARNING_PART"] + sums["REFUND"] + left != hold["amount_minor"]:
            yield f"hold {key} pays another amount"
        if waiting and any(line["type"] == "EARNING" for line in of_hold):
            yield f"hold {key} was released and waits"
        if (key in frozen) != (waiting is not None and waiting["state"] == "FROZEN"):
            yield f"hold {key} is frozen without a freeze, or not with one"
        if hold["payee_wallet_id"] == hold["payer_wallet_id"]:
            yield f"hold {key} pays its payer"
        if after.wallet[hold["payer_wallet_id"]]["owner"] != after.job[hold["job"]]["payer"]:
            yield f"hold {key} is on another payer's job"
    for key in before.unsettled_hold:
        if key not in after.unsettled_hold and not lines.get(key):
            yield f"hold {key} is gone"


def _shares(after: Snapshot) -> Iterator[str]:
    """The shares of an earning add up to it and have one payment. Each waits with its own kind."""
    others: dict[int, int] = {}
    for key, hold in after.hold.items():
        if hold["earning_id"] is not None:
            first = after.hold[hold["earning_id"]]
            others[first["hold_id"]] = others.get(first["hold_id"], 0) + hold["amount_minor"]
            of_one = ("reference", "job", "title", "payer_wallet_id", "currency", "held_at")
            if any(hold[name] != first[name] for name in of_one):
                yield f"hold {key} is a share of another payment"
        waiting = after.unsettled_hold.get(key)
        if waiting and waiting["kind"] != hold["kind"]:
            yield f"hold {key} waits as another kind of share"
    for key, hold in after.hold.items():
        whole = hold["amount_minor"] + others[key] if key in others else None
        if hold["earning_minor"] != whole:
            yield f"hold {key} is of another earning than its shares"


def _decisions(after: Snapshot) -> Iterator[str]:
    """A backjob, its freezes and its refunds are consistent."""
    for key, backjob in after.backjob.items():
        freezes = [row for row in after.hold_freeze.values() if row["backjob_id"] == key]
        refunds = [row for row in after.transaction.values() if row["backjob_id"] == key]
        if (backjob["state"] == "OPEN") != any(row["closed_at"] is None for row in freezes):
            yield f"backjob {key} is open without a freeze, or decided with one"
        if sum(row["amount_minor"] for row in refunds) != (backjob["refunded_minor"] or 0):
            yield f"backjob {key} refunded another amount"
        if not {row["hold_id"] for row in refunds} <= {row["hold_id"] for row in freezes}:
            yield f"backjob {key} refunded what it did not freeze"
        if any(row["recorded_at"] != backjob["decided_at"] for row in refunds):
            yield f"backjob {key} refunded at another time"
        decided = (backjob["decided_at"], backjob["decided_by"], backjob["decision_reason"])
        for row in freezes:
            if (row["closed_at"], row["closed_by"], row["closing_reason"]) != decided:
                yield f"freeze {row['freeze_id']} was not closed by its backjob"
            if after.hold[row["hold_id"]]["job"] != backjob["job"]:
                yield f"freeze {row['freeze_id']} is of another job"
    for table, first, last in (
        ("backjob", "requested_at", "decided_at"),
        ("hold_freeze", "opened_at", "closed_at"),
    ):
        for key, row in getattr(after, table).items():
            if row[last] is not None and row[last] < row[first]:
                yield f"{table} {key} ended before it began"


def _jobs_and_refunds(after: Snapshot) -> Iterator[str]:
    """A job names its open backjob, and an admin refunds only frozen holds."""
    open_ = {backjob["job"]: key for key, backjob in after.backjob.items() if backjob["state"] == "OPEN"}
    for key, job in after.job.items():
        if job["open_backjob_id"] != open_.pop(key, None):
            yield f"job {key} names another backjob than its open one"
    yield from (f"backjob {key} is open on no job" for key in open_.values())
    for line in after.transaction.values():
        if line["type"] == "REFUND" and line["backjob_id"] is None:
            kept = [
                row
                for row in after.hold_freeze.values()
                if row["hold_id"] == line["hold_id"]
                and row["kind"] != "BACKJOB"
                and row["opened_at"] <= line["recorded_at"]
            ]
            if not kept:
                yield f"transaction {line['transaction_id']} refunds what nobody froze"


def _releases(after: Snapshot) -> Iterator[str]:
    """A batch has lines of its own time and kind. A DUE batch has only due holds."""
    used = set()
    for key, line in after.transaction.items():
        if line["batch_id"] is None:
            continue
        used.add(line["batch_id"])
        batch = after.batch[line["batch_id"]]
        if (batch["kind"] == "REFUND") != (line["type"] == "REFUND"):
            yield f"transaction {key} is not what its batch is for"
        if batch["recorded_at"] != line["recorded_at"]:
            yield f"transaction {key} was written at another time than its batch"
        if batch["kind"] == "DUE" and not line["release_date"] <= batch["due_by"] <= batch["recorded_at"]:
            yield f"transaction {key} was released before it was due"
    for key in after.batch.keys() - used:
        yield f"batch {key} is empty"


def _dates(after: Snapshot) -> Iterator[str]:
    """A release date is the original one, or later after a rejection."""
    dates = [(row["hold_id"], row["release_date"]) for row in after.unsettled_hold.values()]
    dates += [
        (row["hold_id"], row["release_date"])
        for row in after.transaction.values()
        if row["type"] in {"EARNING", "EARNING_PART", "REFUND"}
    ]
    for key, release_date in dates:
        agreed: datetime = after.hold[key]["original_release_date"]
        rejections = [
            after.backjob[row["backjob_id"]]["decided_at"]
            for row in after.hold_freeze.values()
            if row["hold_id"] == key
            and row["backjob_id"] is not None
            and after.backjob[row["backjob_id"]]["state"] == "REJECTED"
        ]
        latest = max([agreed, *rejections]) + len(rejections) * _COOLDOWN_MAX
        if not agreed <= release_date <= latest:
            yield f"hold {key} has a release date that nothing explains"
