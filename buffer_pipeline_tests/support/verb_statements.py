"""The statements of each verb, in plain SQL whose values can be changed one by one."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from buffer_pipeline_tests.support.builders import ADMIN, PAYER
from buffer_pipeline_tests.support.choices import Choices

Statement = tuple[str, dict[str, Any]]

_NEWEST_BATCH: Final = "(SELECT max(batch_id) FROM buffer.batch)"
_NEWEST_HOLD: Final = "(SELECT max(hold_id) FROM buffer.hold)"
_NEWEST_BACKJOB: Final = "(SELECT max(backjob_id) FROM buffer.backjob)"


def _credit(wallet_id: int, *, balance: int = 0, pending: int = 0) -> Statement:
    return (
        "UPDATE buffer.wallet SET balance_minor = balance_minor + :balance_minor,"
        " pending_earnings_minor = pending_earnings_minor + :pending_minor WHERE wallet_id = :wallet_id",
        {"wallet_id": wallet_id, "balance_minor": balance, "pending_minor": pending},
    )


def _line(**values: Any) -> Statement:
    # The balance is read. The batch, hold or backjob may be the one that was just added.
    wallet = values["to_wallet_id"] if values["to_account"] == "BALANCE" else values["from_wallet_id"]
    written = {name: f":{name}" for name in values}
    for name in ("batch_id", "hold_id", "backjob_id"):
        if isinstance(values.get(name), str):
            written[name] = values.pop(name)
    if "BALANCE" in (values["from_account"], values["to_account"]):
        written["balance_after_minor"] = (
            "(SELECT balance_minor FROM buffer.wallet WHERE wallet_id = :of_wallet)"
        )
        values["of_wallet"] = wallet
    columns, places = ", ".join(written), ", ".join(written.values())
    return f"INSERT INTO buffer.transaction ({columns}) VALUES ({places})", values


def _release(attempt: Choices, kind: str) -> list[Statement]:
    waiting = attempt.some("unsettled_hold", state="BUFFERED")
    if waiting["release_date"] > attempt.now and kind == "DUE":
        # Due holds are tried more often than others.
        waiting = attempt.some("unsettled_hold", state="BUFFERED")
    wallet_id, amount = waiting["payee_wallet_id"], waiting["amount_minor"]
    due_by = attempt.now if kind == "DUE" else None
    batch = {"kind": kind, "source": "raw", "reason": None if kind == "DUE" else "raw", "due_by": due_by}
    return [
        ("DELETE FROM buffer.unsettled_hold WHERE hold_id = :hold_id", {"hold_id": waiting["hold_id"]}),
        _credit(wallet_id, balance=amount, pending=-amount),
        (
            "INSERT INTO buffer.batch (kind, source, reason, due_by, recorded_at)"
            " VALUES (:kind, :source, :reason, :due_by, :recorded_at)",
            {**batch, "recorded_at": attempt.now},
        ),
        _line(
            type="EARNING",
            from_account="PENDING_EARNINGS",
            from_wallet_id=wallet_id,
            to_account="BALANCE",
            to_wallet_id=wallet_id,
            currency=waiting["currency"],
            amount_minor=amount,
            hold_id=waiting["hold_id"],
            batch_id=_NEWEST_BATCH,
            recorded_at=attempt.now,
            release_date=waiting["release_date"],
        ),
    ]


def _release_due(attempt: Choices) -> list[Statement]:
    return _release(attempt, "DUE")


def _release_early(attempt: Choices) -> list[Statement]:
    return _release(attempt, "EARLY")


def _release_part(attempt: Choices) -> list[Statement]:
    waiting = attempt.some("unsettled_hold", state="BUFFERED")
    wallet_id, hold_id = waiting["payee_wallet_id"], waiting["hold_id"]
    amount = attempt.random.choice((1, 1, waiting["amount_minor"], waiting["amount_minor"] - 1))
    named_id = hold_id if attempt.random.random() < 0.7 else attempt.some("hold")["hold_id"]
    batch = {"kind": "EARLY", "source": "raw", "reason": "raw", "reference": f"raw-{attempt.random.random()}"}
    return [
        (
            "UPDATE buffer.unsettled_hold SET amount_minor = amount_minor - :amount_minor"
            " WHERE hold_id = :hold_id",
            {"hold_id": hold_id, "amount_minor": amount},
        ),
        _credit(wallet_id, balance=amount, pending=-amount),
        (
            "INSERT INTO buffer.batch (kind, source, reason, reference, named_hold_id, recorded_at)"
            " VALUES (:kind, :source, :reason, :reference, :named_hold_id, :recorded_at)",
            {**batch, "named_hold_id": named_id, "recorded_at": attempt.now},
        ),
        _line(
            type="EARNING_PART",
            from_account="PENDING_EARNINGS",
            from_wallet_id=wallet_id,
            to_account="BALANCE",
            to_wallet_id=wallet_id,
            currency=waiting["currency"],
            amount_minor=amount,
            hold_id=hold_id,
            batch_id=_NEWEST_BATCH,
            recorded_at=attempt.now,
            release_date=waiting["release_date"],
        ),
    ]


def _refund(attempt: Choices) -> list[Statement]:
    freeze = attempt.some("hold_freeze", kind="BACKJOB", closed_at=None)
    if attempt.random.random() < 0.3:
        freeze = attempt.some("hold_freeze", kind="BACKJOB")
    backjob_id = freeze["backjob_id"]
    if attempt.random.random() < 0.2:
        backjob_id = attempt.some("backjob")["backjob_id"]
    hold = attempt.books.hold[freeze["hold_id"]]
    waiting = attempt.books.unsettled_hold.get(hold["hold_id"]) or attempt.some("unsettled_hold")
    payee, payer, amount = hold["payee_wallet_id"], hold["payer_wallet_id"], waiting["amount_minor"]
    decided = {"decided_at": attempt.now, "decided_by": ADMIN, "decision_reason": "raw"}
    statements = [
        *_decide(backjob_id, "APPROVED", {**decided, "refunded_minor": amount}),
        ("DELETE FROM buffer.unsettled_hold WHERE hold_id = :hold_id", {"hold_id": hold["hold_id"]}),
        _credit(payee, pending=-amount),
        _credit(payer, balance=amount),
        _line(
            type="REFUND",
            from_account="PENDING_EARNINGS",
            from_wallet_id=payee,
            to_account="BALANCE",
            to_wallet_id=payer,
            currency=hold["currency"],
            amount_minor=amount,
            hold_id=hold["hold_id"],
            backjob_id=backjob_id,
            recorded_at=attempt.now,
            release_date=waiting["release_date"],
        ),
    ]
    # Only the money, for a backjob that nobody decides now.
    return statements if attempt.random.random() < 0.7 else statements[3:]


def _refund_by_an_admin(attempt: Choices) -> list[Statement]:
    waiting = attempt.some("unsettled_hold", state="FROZEN")
    if attempt.random.random() < 0.3:
        waiting = attempt.some("unsettled_hold")
    hold = attempt.books.hold[waiting["hold_id"]]
    payee, payer, amount = hold["payee_wallet_id"], hold["payer_wallet_id"], waiting["amount_minor"]
    return [
        ("DELETE FROM buffer.unsettled_hold WHERE hold_id = :hold_id", {"hold_id": hold["hold_id"]}),
        (
            "UPDATE buffer.hold_freeze SET closed_at = :closed_at, closed_by = :closed_by,"
            " closing_reason = :closing_reason WHERE hold_id = :hold_id AND closed_at IS NULL",
            {
                "hold_id": hold["hold_id"],
                "closed_at": attempt.now,
                "closed_by": ADMIN,
                "closing_reason": "raw",
            },
        ),
        (
            "INSERT INTO buffer.batch (kind, source, reason, recorded_at)"
            " VALUES (:kind, :source, :reason, :recorded_at)",
            {"kind": "REFUND", "source": ADMIN, "reason": "raw", "recorded_at": attempt.now},
        ),
        _credit(payee, pending=-amount),
        _credit(payer, balance=amount),
        _line(
            type="REFUND",
            from_account="PENDING_EARNINGS",
            from_wallet_id=payee,
            to_account="BALANCE",
            to_wallet_id=payer,
            currency=hold["currency"],
            amount_minor=amount,
            hold_id=hold["hold_id"],
            batch_id=_NEWEST_BATCH,
            reference=f"raw-{attempt.random.random()}",
            recorded_at=attempt.now,
            release_date=waiting["release_date"],
        ),
    ]


def _decide(backjob_id: int, state: str, decided: dict[str, Any]) -> list[Statement]:
    closed = {name: decided[name] for name in ("decided_at", "decided_by", "decision_reason")}
    refunded = decided.get("refunded_minor")
    return [
        (
            "UPDATE buffer.backjob SET state = :state, decided_at = :decided_at, decided_by = :decided_by,"
            " decision_reason = :decision_reason, refunded_minor = :refunded_minor"
            " WHERE backjob_id = :backjob_id",
            {"backjob_id": backjob_id, "state": state, **closed, "refunded_minor": refunded},
        ),
        (
            "UPDATE buffer.hold_freeze SET closed_at = :decided_at, closed_by = :decided_by,"
            " closing_reason = :decision_reason WHERE backjob_id = :backjob_id AND closed_at IS NULL",
            {"backjob_id": backjob_id, **closed},
        ),
        (
            "UPDATE buffer.job SET open_backjob_id = NULL WHERE open_backjob_id = :backjob_id",
            {"backjob_id": backjob_id},
        ),
    ]


def _reject(attempt: Choices) -> list[Statement]:
    freeze = attempt.some("hold_freeze", kind="BACKJOB", closed_at=None)
    decided = {"decided_at": attempt.now, "decided_by": ADMIN, "decision_reason": "raw"}
    state = attempt.random.choice(("REJECTED", "WITHDRAWN"))
    hours = 24 if state == "REJECTED" else 0
    release_date = attempt.books.unsettled_hold[freeze["hold_id"]]["release_date"] + timedelta(hours=hours)
    return [
        *_decide(freeze["backjob_id"], state, decided),
        (
            "UPDATE buffer.unsettled_hold SET state = :state, release_date = :release_date"
            " WHERE hold_id = :hold_id",
            {"hold_id": freeze["hold_id"], "state": "BUFFERED", "release_date": release_date},
        ),
    ]


def _reopen(attempt: Choices) -> list[Statement]:
    undecided = {"decided_at": None, "decided_by": None, "decision_reason": None}
    return _decide(attempt.some("backjob")["backjob_id"], "OPEN", undecided)[:1]


def _unfreeze(attempt: Choices) -> list[Statement]:
    freeze = attempt.some("hold_freeze", kind="ADMIN")
    return [
        (
            "UPDATE buffer.hold_freeze SET closed_at = :closed_at, closed_by = :closed_by,"
            " closing_reason = :closing_reason WHERE freeze_id = :freeze_id",
            {
                "freeze_id": freeze["freeze_id"],
                "closed_at": attempt.now,
                "closed_by": ADMIN,
                "closing_reason": "raw",
            },
        ),
        (
            "UPDATE buffer.unsettled_hold SET state = :state WHERE hold_id = :hold_id",
            {"hold_id": freeze["hold_id"], "state": "BUFFERED"},
        ),
    ]


def _request(attempt: Choices) -> list[Statement]:
    waiting = attempt.some("unsettled_hold", state="BUFFERED")
    job = attempt.books.hold[waiting["hold_id"]]["job"]
    return [
        (
            "INSERT INTO buffer.backjob (job, requested_by, reason, requested_at)"
            " VALUES (:job, :requested_by, :reason, :requested_at)",
            {"job": job, "requested_by": PAYER, "reason": "raw", "requested_at": attempt.now},
        ),
        (
            f"UPDATE buffer.job SET open_backjob_id = {_NEWEST_BACKJOB} WHERE job = :job",
            {"job": job},
        ),
        (
            "UPDATE buffer.unsettled_hold SET state = :state WHERE hold_id = :hold_id",
            {"hold_id": waiting["hold_id"], "state": "FROZEN"},
        ),
        (
            "INSERT INTO buffer.hold_freeze (hold_id, kind, backjob_id, opened_by, reason, opened_at)"
            f" VALUES (:hold_id, :kind, {_NEWEST_BACKJOB}, :opened_by, :reason, :opened_at)",
            {
                "hold_id": waiting["hold_id"],
                "kind": "BACKJOB",
                "opened_by": PAYER,
                "reason": "raw",
                "opened_at": attempt.now,
            },
        ),
    ]


def _deposit(attempt: Choices) -> list[Statement]:
    wallet = attempt.some("wallet")
    amount = attempt.random.choice((1, 100_000))
    return [
        _credit(wallet["wallet_id"], balance=amount),
        _line(
            type="DEPOSIT",
            from_account="EXTERNAL",
            to_account="BALANCE",
            to_wallet_id=wallet["wallet_id"],
            currency=wallet["currency"],
            amount_minor=amount,
            reference=f"raw-{attempt.random.random()}",
            recorded_at=attempt.now,
        ),
    ]


def _hold(attempt: Choices) -> list[Statement]:
    hold = attempt.some("hold")
    agreed = {name: hold[name] for name in ("job", "payee_wallet_id", "payer_wallet_id", "currency")}
    columns = "reference, job, payee_wallet_id, payer_wallet_id, currency, amount_minor, held_at"
    return [
        (
            f"INSERT INTO buffer.hold ({columns}, original_release_date)"
            f" VALUES (:{columns.replace(', ', ', :')}, :release_date)",
            {
                **agreed,
                "reference": f"raw-{attempt.random.random()}",
                "amount_minor": 500,
                "held_at": attempt.now,
                "release_date": attempt.now + timedelta(days=7),
            },
        ),
        (
            "INSERT INTO buffer.unsettled_hold"
            " (hold_id, payee_wallet_id, currency, amount_minor, release_date)"
            f" VALUES ({_NEWEST_HOLD}, :payee_wallet_id, :currency, :amount_minor, :release_date)",
            {
                "payee_wallet_id": hold["payee_wallet_id"],
                "currency": hold["currency"],
                "amount_minor": 500,
                "release_date": attempt.now + timedelta(days=7),
            },
        ),
        _credit(hold["payee_wallet_id"], pending=500),
        _line(
            type="PENDING_EARNING",
            from_account="ESCROW",
            from_wallet_id=None,
            to_account="PENDING_EARNINGS",
            to_wallet_id=hold["payee_wallet_id"],
            currency=hold["currency"],
            amount_minor=500,
            hold_id=_NEWEST_HOLD,
            recorded_at=attempt.now,
        ),
    ]


def _with_columns(statement: Statement, columns: str, values: str, **extra: Any) -> Statement:
    """Return an INSERT with more columns, whose values come first."""
    added, given = statement
    added = added.replace(" (", f" ({columns}, ", 1).replace("VALUES (", f"VALUES ({values}, ", 1)
    return added, {**given, **extra}


def _share(attempt: Choices) -> list[Statement]:
    """An earning of 560 with a fee of 60 for the same payee."""
    hold, waits, credit, line = first = _hold(attempt)
    fee = {"amount_minor": 60, "kind": "FEE"}
    return [
        _with_columns(hold, "earning_minor", ":earning_minor", earning_minor=560),
        *first[1:],
        _with_columns(hold, "kind, earning_id", f":kind, {_NEWEST_HOLD}", **fee),
        _with_columns(waits, "kind", ":kind", **fee),
        (credit[0], {**credit[1], "pending_minor": 60}),
        (line[0], {**line[1], "amount_minor": 60}),
    ]


def _push(attempt: Choices) -> list[Statement]:
    waiting = attempt.some("unsettled_hold")
    moved = waiting["release_date"] + timedelta(days=attempt.random.choice((-1, 1, 900 * 365)))
    return [
        (
            "UPDATE buffer.unsettled_hold SET release_date = :release_date WHERE hold_id = :hold_id",
            {"hold_id": waiting["hold_id"], "release_date": moved},
        )
    ]


STATEMENTS_OF_VERBS: Final[Sequence[Callable[[Choices], list[Statement]]]] = (
    _release_due,
    _release_early,
    _release_part,
    _refund,
    _refund_by_an_admin,
    _reject,
    _reopen,
    _unfreeze,
    _request,
    _deposit,
    _hold,
    _share,
    _push,
)
