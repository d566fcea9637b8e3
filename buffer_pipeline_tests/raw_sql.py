"""Raw SQL as a login might write it: statements at random, and whole deeds with something changed in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from sqlalchemy import Connection, text

from buffer_pipeline_tests.builders import ADMIN, JOB, PAYEE, PAYER
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.judge import Snapshot

Statement = tuple[str, dict[str, Any]]

TABLES: Final = ("wallet", "hold", "unsettled_hold", "transaction", "batch", "backjob", "hold_freeze", "job")
"""Those that money and decisions are in."""

_PRIVILEGES: Final = text(
    """
    SELECT privilege_type, table_name, column_name
    FROM information_schema.column_privileges
    WHERE table_schema = 'buffer' AND grantee = :role AND privilege_type IN ('INSERT', 'UPDATE')
    UNION ALL
    SELECT privilege_type, table_name, ''
    FROM information_schema.table_privileges
    WHERE table_schema = 'buffer' AND grantee = :role AND privilege_type = 'DELETE'
    ORDER BY 1, 2, 3
    """
)

_WORDS: Final = {
    "state": ("BUFFERED", "FROZEN", "OPEN", "REJECTED", "APPROVED", "WITHDRAWN", "RELEASED"),
    "kind": ("DUE", "EARLY", "REFUND", "BACKJOB", "ADMIN", "RISK"),
    "type": ("PENDING_EARNING", "EARNING", "REFUND", "DEPOSIT", "WITHDRAWAL", "OPENING_BALANCE"),
    "currency": ("PHP", "USD", "XXX"),
    "from_account": ("ESCROW", "PENDING_EARNINGS", "EXTERNAL", "BALANCE", "OPENING"),
    "to_account": ("PENDING_EARNINGS", "BALANCE", "EXTERNAL"),
}
_NAMES: Final = (PAYEE, PAYER, ADMIN, JOB, "nobody", "")


@dataclass(frozen=True)
class Rights:
    """What a role may add, change and delete of TABLES: columns by table."""

    adds: dict[str, list[str]]
    changes: dict[str, list[str]]
    deletes: list[str]


def rights_of(connection: Connection, role: str) -> Rights:
    """Return what the database says that a role may do."""
    rows = connection.execute(_PRIVILEGES, {"role": f"buffer_{role}"}).all()

    def columns(privilege: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for kind, table, column in rows:
            if kind == privilege and table in TABLES:
                found.setdefault(table, []).append(column)
        return found

    return Rights(columns("INSERT"), columns("UPDATE"), [*columns("DELETE")])


@dataclass(frozen=True)
class Attempt:
    """What one transaction tries, by statements of any kind."""

    random: Random
    books: Snapshot
    rights: Rights
    now: datetime

    def statements(self) -> list[Statement]:
        """Return a deed with something changed in it, mostly, or statements at random."""
        strays = [self._stray() for _ in range(self.random.choice((1, 1, 2, 3)))]
        if self.random.random() < 0.3:
            return strays
        deed = self.random.choice(DEEDS)(self)
        while not all(map(self._may, deed)) and self.random.random() < 0.95:
            deed = self.random.choice(DEEDS)(self)
        for _ in range(self.random.choice((0, 1, 1, 1, 2))):
            self._bend(deed)
        return deed + (strays if self.random.random() < 0.1 else [])

    def some(self, table: str, **wanted: object) -> dict[str, Any]:
        """Return a row that has what is wanted, or any where none has."""
        rows = list(getattr(self.books, table).values())
        fitting = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
        found: dict[str, Any] = self.random.choice(fitting or rows)
        return found

    def value(self, column: str) -> object:
        """Return something that might stand in a column: plausible, hostile or nothing."""
        if self.random.random() < 0.05:
            return None
        words = {**_WORDS, "job": (*self.books.job, "new")}
        if column in words:
            return self.random.choice(words[column])
        table = {"payee_wallet_id": "wallet", "payer_wallet_id": "wallet"}.get(column)
        table = table or next((name for name in TABLES if column in (f"{name}_id", f"from_{name}_id")), None)
        if column == "to_wallet_id":
            table = "wallet"
        if column == "open_backjob_id":
            table = "backjob"
        if column.endswith("_id"):
            ids = [*getattr(self.books, table or "hold")]
            return self.random.choice([*ids, *ids, 0, 404])
        if column.endswith("_minor"):
            amounts = [row["amount_minor"] for row in self.books.transaction.values()]
            return self.random.choice([*amounts, 1, 0, -1, 100_000, 10**15, 2**63 - 1])
        if column.endswith(("_at", "_date")) or column == "due_by":
            return self._moment()
        return self.random.choice([*_NAMES, f"new-{self.random.random()}"])

    def _moment(self) -> datetime:
        given = [row["release_date"] for row in self.books.unsettled_hold.values()]
        moment: datetime = self.random.choice(
            [
                *given,
                self.now,
                NOON,
                NOON - timedelta(days=900),
                self.now + timedelta(hours=1),
                self.now + timedelta(days=900 * 365),
                datetime(1969, 7, 20, tzinfo=UTC),
            ]
        )
        return moment

    def _stray(self) -> Statement:
        kind = self.random.choice(
            [name for name in ("adds", "changes", "changes", "deletes") if getattr(self.rights, name)]
        )
        if kind == "adds":
            table = self.random.choice([*self.rights.adds])
            named = [name for name in self.rights.adds[table] if self.random.random() < 0.9]
            values = {name: self.value(name) for name in named}
            places = ", ".join(f":{name}" for name in named)
            return f"INSERT INTO buffer.{table} ({', '.join(named)}) VALUES ({places})", values
        if kind == "deletes":
            table = self.random.choice(self.rights.deletes)
            return f"DELETE FROM buffer.{table}" + self._where(table), {}
        table = self.random.choice([*self.rights.changes])
        columns = self.rights.changes[table]
        named = self.random.sample(columns, self.random.randint(1, len(columns)))
        values = {name: self.value(name) for name in named}
        sets = ", ".join(f"{name} = :{name}" for name in named)
        return f"UPDATE buffer.{table} SET {sets}" + self._where(table), values

    def _where(self, table: str) -> str:
        key = "hold_id" if table == "unsettled_hold" else f"{table.removeprefix('hold_')}_id"
        if self.random.random() < 0.1:
            return ""
        if table == "job":
            key = "job"
        row = self.random.choice([*getattr(self.books, table)])
        return f" WHERE {key} = '{row}'"

    def _may(self, statement: Statement) -> bool:
        # Of what a role's privileges refuse anyway only some is tried.
        verb, _, rest = statement[0].partition(" buffer.")
        known = {"INSERT INTO": self.rights.adds, "UPDATE": self.rights.changes}
        return rest.split()[0] in known.get(verb, self.rights.deletes)

    def _bend(self, deed: list[Statement]) -> None:
        if not deed:
            return
        place = self.random.randrange(len(deed))
        _, values = deed[place]
        if not values or self.random.random() < 0.25:
            del deed[place]
            return
        name = self.random.choice([*values])
        other = self.value(name)
        # A deed says the same thing in several places: all of them are bent, or this one alone.
        together = self.random.random() < 0.5
        for number, (text_there, values_there) in enumerate(deed):
            if number == place or (together and values_there.get(name) == values[name]):
                deed[number] = (
                    text_there,
                    {**values_there, name: other} if name in values_there else values_there,
                )


# ---- deeds: what a verb does, in plain statements, of which each value can be bent

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
    # The balance behind it is read, the batch, hold or backjob may be the one that was just added.
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


def _release(attempt: Attempt, kind: str) -> list[Statement]:
    waiting = attempt.some("unsettled_hold", state="BUFFERED")
    if waiting["release_date"] > attempt.now and kind == "DUE":
        # What is due is tried more often than what is not.
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


def _release_due(attempt: Attempt) -> list[Statement]:
    return _release(attempt, "DUE")


def _release_early(attempt: Attempt) -> list[Statement]:
    return _release(attempt, "EARLY")


def _refund(attempt: Attempt) -> list[Statement]:
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
    deed = [
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
    # The money alone, in the name of a backjob that nobody decides now.
    return deed if attempt.random.random() < 0.7 else deed[3:]


def _refund_by_an_admin(attempt: Attempt) -> list[Statement]:
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


def _reject(attempt: Attempt) -> list[Statement]:
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


def _reopen(attempt: Attempt) -> list[Statement]:
    undecided = {"decided_at": None, "decided_by": None, "decision_reason": None}
    return _decide(attempt.some("backjob")["backjob_id"], "OPEN", undecided)[:1]


def _unfreeze(attempt: Attempt) -> list[Statement]:
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


def _request(attempt: Attempt) -> list[Statement]:
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


def _deposit(attempt: Attempt) -> list[Statement]:
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


def _hold(attempt: Attempt) -> list[Statement]:
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


def _push(attempt: Attempt) -> list[Statement]:
    waiting = attempt.some("unsettled_hold")
    moved = waiting["release_date"] + timedelta(days=attempt.random.choice((-1, 1, 900 * 365)))
    return [
        (
            "UPDATE buffer.unsettled_hold SET release_date = :release_date WHERE hold_id = :hold_id",
            {"hold_id": waiting["hold_id"], "release_date": moved},
        )
    ]


DEEDS: Final[Sequence[Callable[[Attempt], list[Statement]]]] = (
    _release_due,
    _release_early,
    _refund,
    _refund_by_an_admin,
    _reject,
    _reopen,
    _unfreeze,
    _request,
    _deposit,
    _hold,
    _push,
)
