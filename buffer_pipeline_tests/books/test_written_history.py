"""The database refuses to rewrite history, and refuses lines that do not match existing rows."""

from datetime import datetime
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.database import make_engine
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import release_matured
from buffer_pipeline.rules import add_rule, assign_rule
from buffer_pipeline.tables import batch, transaction, unsettled_hold, wallet
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    books,
    hold_row,
    place_hold,
)
from buffer_pipeline_tests.support.raw_sql import refusal_of
from buffer_pipeline_tests.support.releases import early

REWRITINGS: Final = [
    "UPDATE buffer.transaction SET amount_minor = 1",
    "UPDATE buffer.transaction SET recorded_at = now()",
    "DELETE FROM buffer.transaction",
    "TRUNCATE buffer.transaction",
    "UPDATE buffer.currency SET places = 3",
    "DELETE FROM buffer.currency",
    "TRUNCATE buffer.currency CASCADE",
    "UPDATE buffer.batch SET source = 'x'",
    "DELETE FROM buffer.batch",
    "TRUNCATE buffer.batch",
    "UPDATE buffer.hold SET title = 'x'",
    "DELETE FROM buffer.hold",
    "TRUNCATE buffer.hold CASCADE",
    "TRUNCATE buffer.unsettled_hold",
    "DELETE FROM buffer.wallet",
    "TRUNCATE buffer.wallet CASCADE",
    "DELETE FROM buffer.backjob",
    "TRUNCATE buffer.backjob CASCADE",
    "DELETE FROM buffer.hold_freeze",
    "TRUNCATE buffer.hold_freeze",
    "UPDATE buffer.audit_line SET by = 'x'",
    "DELETE FROM buffer.audit_line",
    "TRUNCATE buffer.audit_line",
    "UPDATE buffer.hold_rule SET fee_percent = 1",
    "DELETE FROM buffer.hold_rule",
    "TRUNCATE buffer.hold_rule CASCADE",
    "UPDATE buffer.rule_assignment SET name = NULL",
    "DELETE FROM buffer.rule_assignment",
    "TRUNCATE buffer.rule_assignment",
]


def write_history(engine: Engine) -> None:
    """Commit a released hold, and another hold with an open backjob."""
    with engine.begin() as connection:
        place_hold(connection, job="job-1")
        release_matured(connection, now=DAY_7, batch_limit=10)
        place_hold(connection)
        request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
        add_rule(
            connection, name="seller", fee_percent=12, fee_owner="shop", by=ADMIN, reason="terms", now=NOON
        )
        assign_rule(connection, owner=PAYEE, name="seller", now=NOON)


def test_owner_has_no_privilege_to_rewrite_history(engine: Engine) -> None:
    """The role that owns the tables may insert, but not update or delete written rows."""
    write_history(engine)

    with engine.begin() as connection:
        before = books(connection)
        refusals = [refusal_of(connection, statement) for statement in REWRITINGS]

    assert {code for code, _ in refusals} == {"42501"}
    assert all("permission denied" in message for _, message in refusals)
    with engine.connect() as connection:
        assert books(connection) == before


def test_trigger_refuses_whoever_has_the_privilege(engine: Engine, superuser_url: str) -> None:
    """A superuser has every privilege; the trigger refuses it too."""
    write_history(engine)
    superuser_engine = make_engine(superuser_url)

    with superuser_engine.begin() as connection:
        before = books(connection)
        refusals = [refusal_of(connection, statement) for statement in REWRITINGS]
    superuser_engine.dispose()

    assert {code for code, _ in refusals} == {"42501"}
    assert all("its rows are kept as they were written" in message for _, message in refusals)
    with engine.connect() as connection:
        assert books(connection) == before


@pytest.mark.parametrize(
    "change",
    [
        "hold SET amount_minor = 1",
        "hold SET payee_wallet_id = payer_wallet_id",
        "hold SET payer_wallet_id = payee_wallet_id",
        "hold SET reference = 'x'",
        "hold SET job = 'x'",
        "hold SET held_at = now()",
        "hold SET original_release_date = now()",
        "unsettled_hold SET payee_wallet_id = 1",
        "unsettled_hold SET currency = 'USD'",
        "wallet SET owner = 'x'",
        "wallet SET currency = 'USD'",
        "backjob SET reason = 'x'",
        "backjob SET job = 'x'",
    ],
)
def test_owner_may_not_change_a_holds_content(connection: Connection, change: str) -> None:
    """Amount, payer, payee and job are written once. Only the state may change."""
    place_hold(connection)
    request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)

    code, message = refusal_of(connection, f"UPDATE buffer.{change}")

    assert code == "42501"
    assert "permission denied" in message


def line(**changes: Any) -> dict[str, Any]:
    """Return an EARNING of a hold of 100 pesos, with some values changed."""
    return {
        "type": "EARNING",
        "from_account": "PENDING_EARNINGS",
        "to_account": "BALANCE",
        "currency": "PHP",
        "amount_minor": 10_000,
        "balance_after_minor": 10_000,
        "recorded_at": NOON,
        "release_date": DAY_7,
        **changes,
    }


def early_batch(connection: Connection, hold_id: int) -> int:
    """Write the batch of an early release that names a hold, and return its id."""
    values = {"kind": "EARLY", "source": PAYER, "reason": "hm", "named_hold_id": hold_id, "recorded_at": NOON}
    batch_id: int = connection.execute(insert(batch).values(values).returning(batch.c.batch_id)).scalar_one()
    return batch_id


@pytest.fixture
def ids(connection: Connection) -> dict[str, int]:
    """The ids of a hold and its rows: wallets, a batch, a backjob and another owner's wallet."""
    other = place_hold(connection, job="job-9", payee="worker-99", payer="client-99")
    release_matured(connection, now=DAY_7, batch_limit=1)
    hold_id = place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    deposit(connection, owner=PAYEE, amount="1.00", currency="USD", reference="transfer-1", now=NOON)
    row = hold_row(connection, hold_id)
    return {
        "hold": hold_id,
        "payee": row["payee_wallet_id"],
        "payer": row["payer_wallet_id"],
        "stranger": hold_row(connection, other)["payee_wallet_id"],
        "dollars": connection.execute(
            wallet.select().with_only_columns(wallet.c.wallet_id).where(wallet.c.currency == "USD")
        ).scalar_one(),
        "batch": connection.execute(text("SELECT batch_id FROM buffer.batch")).scalar_one(),
        "early": early_batch(connection, hold_id),
        "another's": early_batch(connection, other),
        "backjob": backjob.backjob_id,
        "nothing": 404_404,
    }


def earning(ids: dict[str, int], **changes: str) -> dict[str, Any]:
    """Return a correct EARNING, with names replaced by ids."""
    names = {"hold_id": "hold", "from_wallet_id": "payee", "to_wallet_id": "payee", "batch_id": "batch"}
    return line(**{column: ids[name] for column, name in {**names, **changes}.items()})


def part(ids: dict[str, int], **changes: str) -> dict[str, Any]:
    """Return an EARNING_PART, in a batch that names its hold if `changes` say so."""
    return {**earning(ids, **changes), "type": "EARNING_PART"}


def refund(ids: dict[str, int], **changes: str) -> dict[str, Any]:
    """Return a correct REFUND, with names replaced by ids."""
    names = {"hold_id": "hold", "from_wallet_id": "payee", "to_wallet_id": "payer", "backjob_id": "backjob"}
    return line(type="REFUND", **{column: ids[name] for column, name in {**names, **changes}.items()})


def test_correct_lines_are_accepted(connection: Connection, ids: dict[str, int]) -> None:
    """These are the lines that the next test changes."""
    for values in (earning(ids), part(ids, batch_id="early"), refund(ids)):
        with connection.begin_nested() as savepoint:
            connection.execute(insert(transaction), values)
            savepoint.rollback()


def test_stray_transaction_is_refused(connection: Connection, ids: dict[str, int]) -> None:
    """A line whose hold, wallet, batch or backjob is missing or another one's is refused."""
    movement = {
        "type": "DEPOSIT",
        "from_account": "EXTERNAL",
        "reference": "transfer-2",
        "release_date": None,
    }
    strays = {
        "no such hold": earning(ids, hold_id="nothing"),
        "no such batch": earning(ids, batch_id="nothing"),
        "no such backjob": refund(ids, backjob_id="nothing"),
        "a stranger's earning": earning(ids, from_wallet_id="stranger", to_wallet_id="stranger"),
        "a refund to a stranger": refund(ids, to_wallet_id="stranger"),
        "a refund from a stranger": refund(ids, from_wallet_id="stranger"),
        "a refund to the payee": refund(ids, to_wallet_id="payee"),
        "an earning in another currency": {**earning(ids), "currency": "USD"},
        "an earning in a dollar wallet": earning(ids, from_wallet_id="dollars", to_wallet_id="dollars"),
        "a part of a scheduled release": part(ids),
        "a part of another hold's early release": part(ids, batch_id="another's"),
        "a part in another's wallet": part(
            ids, batch_id="early", from_wallet_id="stranger", to_wallet_id="stranger"
        ),
        "a deposit to no wallet": line(**movement, to_wallet_id=ids["nothing"]),
        "a deposit of pesos to a dollar wallet": line(**movement, to_wallet_id=ids["dollars"]),
    }

    for what, values in strays.items():
        with pytest.raises(IntegrityError) as refusal, connection.begin_nested():
            connection.execute(insert(transaction), values)
        error: Any = refusal.value.orig
        assert (what, error.sqlstate) == (what, "23503")
        assert error.diag.constraint_name == "transaction_references_what_is_there"


def test_one_stray_line_refuses_the_whole_statement(connection: Connection, ids: dict[str, int]) -> None:
    """The trigger checks every row of a statement."""
    before = books(connection)

    with pytest.raises(IntegrityError), connection.begin_nested():
        connection.execute(
            insert(transaction).values(
                [
                    {"batch_id": None, "backjob_id": None, **values}
                    for values in (refund(ids), earning(ids, batch_id="nothing"), earning(ids))
                ]
            )
        )

    assert books(connection) == before


@pytest.mark.parametrize(
    ("line", "state", "index"),
    [
        ("EARNING", HoldState.RELEASED, "transaction_hold_earned_key"),
        ("PENDING_EARNING", HoldState.BUFFERED, "transaction_hold_line_key"),
        ("REFUND", HoldState.REFUNDED, "transaction_hold_line_key"),
        ("EARNING_PART", HoldState.BUFFERED, "transaction_hold_line_key"),
    ],
)
def test_second_line_of_a_kind_is_refused(
    connection: Connection, line: str, state: HoldState, index: str
) -> None:
    """A unique index keeps a hold from being held, paid or refunded for a backjob twice."""
    hold_id = place_hold(connection, state=state)
    if line == "EARNING_PART":
        early(connection, hold_id=hold_id, amount="1", reference="part-1")

    code, message = refusal_of(
        connection,
        "INSERT INTO buffer.transaction (type, from_account, from_wallet_id, to_account, to_wallet_id,"
        " currency, amount_minor, balance_after_minor, hold_id, backjob_id, batch_id, recorded_at,"
        " release_date)"
        " SELECT type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,"
        " balance_after_minor, hold_id, backjob_id, batch_id, recorded_at, release_date"
        f" FROM buffer.transaction WHERE type = '{line}'",
    )

    assert code == "23505"
    assert index in message


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("wallet SET balance_minor = -1", "wallet_balance_not_negative"),
        ("wallet SET pending_earnings_minor = -1", "wallet_pending_earnings_not_negative"),
        ("unsettled_hold SET state = 'RELEASED'", "unsettled_hold_state_is_known"),
        ("unsettled_hold SET amount_minor = 0", "unsettled_hold_holds_something"),
        ("backjob SET state = 'REJECTED'", "backjob_decided_iff_not_open"),
        (
            "backjob SET state = 'APPROVED', decided_at = now(), decided_by = 'x', decision_reason = 'x'",
            "backjob_refunds_iff_approved",
        ),
    ],
)
def test_check_refuses_impossible_rows(connection: Connection, change: str, constraint: str) -> None:
    """A named CHECK refuses what no verb writes."""
    place_hold(connection)
    request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)

    code, message = refusal_of(connection, f"UPDATE buffer.{change}")

    assert code == "23514"
    assert constraint in message


def release_hour_of(connection: Connection, hold_id: int) -> datetime:
    """Return the hold's release hour."""
    hour = connection.scalar(select(unsettled_hold.c.release_hour).where(unsettled_hold.c.hold_id == hold_id))
    assert isinstance(hour, datetime)
    return hour


def test_release_hour_follows_the_release_date(connection: Connection) -> None:
    """The release hour is the hour of the release date in UTC, also after the date has moved."""
    hold_id = place_hold(connection, release_date=DAY_7.replace(minute=59, second=59))

    assert release_hour_of(connection, hold_id) == DAY_7
    connection.execute(text("UPDATE buffer.unsettled_hold SET release_date = release_date + interval '1 s'"))
    assert release_hour_of(connection, hold_id) == DAY_7.replace(hour=13)


def test_release_hour_cannot_be_written(connection: Connection) -> None:
    """The column is computed."""
    place_hold(connection)

    with pytest.raises(ProgrammingError), connection.begin_nested():
        connection.execute(text("UPDATE buffer.unsettled_hold SET release_hour = release_date"))
