"""The CHECK on the columns of a transaction, beside a table of what each type has."""

from itertools import product
from typing import Any, Final

from sqlalchemy import Engine, insert, select, text
from sqlalchemy.schema import MetaData

from buffer_pipeline.tables import transaction

_CHECK: Final = "transaction_columns_fit_its_type"

# The accounts that a type moves between, and its columns that are there. REFUND: of a backjob, or of an admin
# with a reference or without.
_KINDS: Final[tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]] = (
    ("PENDING_EARNING", ("ESCROW>PENDING_EARNINGS",), ("hold_id",)),
    ("EARNING", ("PENDING_EARNINGS>BALANCE",), ("hold_id", "batch_id", "release_date")),
    ("EARNING_PART", ("PENDING_EARNINGS>BALANCE",), ("hold_id", "batch_id", "release_date")),
    ("REFUND", ("PENDING_EARNINGS>BALANCE",), ("hold_id", "backjob_id", "release_date")),
    ("REFUND", ("PENDING_EARNINGS>BALANCE",), ("hold_id", "batch_id", "release_date")),
    ("REFUND", ("PENDING_EARNINGS>BALANCE",), ("hold_id", "batch_id", "release_date", "reference")),
    ("DEPOSIT", ("EXTERNAL>BALANCE",), ("reference",)),
    ("WITHDRAWAL", ("BALANCE>EXTERNAL",), ("reference",)),
    ("OPENING_BALANCE", ("OPENING>BALANCE",), ("reference",)),
    ("CLAWBACK", ("BALANCE>BALANCE", "BALANCE>EXTERNAL"), ("hold_id", "batch_id")),
    (
        "ADVANCE",
        ("BALANCE>BALANCE", "BALANCE>EXTERNAL", "RECEIVABLE>EXTERNAL"),
        ("hold_id", "batch_id", "debt_id"),
    ),
    ("RECOVERY", ("BALANCE>BALANCE", "BALANCE>RECEIVABLE"), ("batch_id", "debt_id")),
    ("WRITE_OFF", ("LOSS>BALANCE", "LOSS>RECEIVABLE"), ("batch_id", "debt_id")),
    ("PAYOUT", ("BALANCE>TRANSIT",), ("payout_id",)),
    ("PAYOUT_PAID", ("TRANSIT>EXTERNAL",), ("payout_id",)),
    ("PAYOUT_RETURNED", ("TRANSIT>BALANCE", "EXTERNAL>BALANCE"), ("payout_id",)),
    ("PAYOUT_CANCELLED", ("TRANSIT>BALANCE",), ("payout_id",)),
)
_TYPES: Final = sorted({type_ for type_, _, _ in _KINDS})
_ACCOUNTS: Final = (
    "BALANCE",
    "ESCROW",
    "EXTERNAL",
    "LOSS",
    "OPENING",
    "PENDING_EARNINGS",
    "RECEIVABLE",
    "TRANSIT",
)
_VALUES: Final[dict[str, Any]] = {
    "hold_id": 1,
    "batch_id": 1,
    "backjob_id": 1,
    "debt_id": 1,
    "payout_id": 1,
    "reference": "reference-1",
    "release_date": "2026-11-02T00:00:00Z",
    "from_wallet_id": 17,
    "to_wallet_id": 18,
    "balance_after_minor": 0,
    "from_balance_after_minor": 0,
}
_OWN: Final = {"BALANCE", "PENDING_EARNINGS"}


def _right(type_: str, accounts: str, columns: tuple[str, ...]) -> dict[str, Any]:
    """Return a line that has what its type has."""
    source, _, target = accounts.partition(">")
    there = {
        *columns,
        *(["from_wallet_id"] if source in _OWN else []),
        *(["to_wallet_id"] if target in _OWN else []),
        *(["balance_after_minor"] if "BALANCE" in (source, target) else []),
        *(["from_balance_after_minor"] if source == target == "BALANCE" else []),
    }
    line = {name: value if name in there else None for name, value in _VALUES.items()}
    line |= {"type": type_, "from_account": source, "to_account": target}
    if type_ in ("EARNING", "EARNING_PART"):
        line["to_wallet_id"] = line["from_wallet_id"]
    return line


_RIGHT: Final = [_right(type_, accounts, columns) for type_, pairs, columns in _KINDS for accounts in pairs]


def _accepted(engine: Engine, lines: list[dict[str, Any]]) -> list[bool]:
    """Return what the CHECK says of each line, in a copy of the table that has nothing but its columns."""
    with engine.connect() as connection:
        condition = connection.scalar(
            text("SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conname = :name"),
            {"name": _CHECK},
        )
        connection.execute(text("CREATE TEMPORARY TABLE line (LIKE buffer.transaction)"))
        line = transaction.to_metadata(MetaData(), schema="pg_temp", name="line")
        facts = {"currency": "PHP", "amount_minor": 1, "recorded_at": "2026-11-02T00:00:00Z"}
        connection.execute(
            insert(line),
            [{**facts, **values, "transaction_id": number} for number, values in enumerate(lines)],
        )
        return list(
            connection.scalars(
                select(text(condition or "")).select_from(line).order_by(line.c.transaction_id)
            )
        )


def test_lines_of_each_type_are_accepted(engine: Engine) -> None:
    """A line of each type, between each pair of its accounts, is accepted."""
    assert all(_accepted(engine, _RIGHT))


def test_only_what_a_type_has_is_accepted(engine: Engine) -> None:
    """Of all combinations of columns, a line has those of its type, or is refused."""
    optional = [name for name in _VALUES if not name.endswith("_minor") and not name.endswith("wallet_id")]
    rest = [name for name in _VALUES if name not in optional]
    lines = []
    for right in _RIGHT:
        for chosen in product((True, False), repeat=len(optional)):
            there = dict(zip(optional, chosen, strict=True))
            lines.append(right | {name: _VALUES[name] if there[name] else None for name in optional})
        for name in rest:
            lines.append(right | {name: _VALUES[name] if right[name] is None else None})

    accepted = [line for line, good in zip(lines, _accepted(engine, lines), strict=True) if good]

    assert [line for line in accepted if line not in _RIGHT] == []
    assert [line for line in _RIGHT if line not in accepted] == []


def test_a_type_moves_only_between_its_accounts(engine: Engine) -> None:
    """Each type with each pair of accounts is accepted for its own pairs only."""
    columns = {type_: columns for type_, _, columns in _KINDS}
    lines = [
        _right(type_, f"{source}>{target}", columns[type_])
        for type_, source, target in product(_TYPES, _ACCOUNTS, _ACCOUNTS)
    ]

    accepted = [line for line, good in zip(lines, _accepted(engine, lines), strict=True) if good]

    assert {(line["type"], line["from_account"], line["to_account"]) for line in accepted} == {
        (type_, *pair.split(">")) for type_, pairs, _ in _KINDS for pair in pairs
    }


def test_wallets_and_balances_of_a_line_make_sense(engine: Engine) -> None:
    """An earning stays at its wallet, money between balances leaves it, and no balance is below zero."""
    wrong = []
    for right in _RIGHT:
        if right["type"] in ("EARNING", "EARNING_PART"):
            wrong.append(right | {"to_wallet_id": 18})
        if right["from_balance_after_minor"] is not None:
            wrong += [
                right | {"to_wallet_id": right["from_wallet_id"]},
                right | {"from_balance_after_minor": -1},
            ]
        if right["balance_after_minor"] is not None:
            wrong.append(right | {"balance_after_minor": -1})

    assert not any(_accepted(engine, wrong))
