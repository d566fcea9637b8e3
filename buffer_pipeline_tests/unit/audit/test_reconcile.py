"""Reconciliation returns each broken invariant with its rows and its meaning."""

from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, insert, text

from buffer_pipeline.audit.reconcile import (
    INVARIANTS,
    RUN_INVARIANTS,
    Violation,
    meaning_in_a_run,
    meaning_of,
    reconcile,
    reconcile_run,
    require_empty,
    tables_in_use,
)
from buffer_pipeline.database import database_clock
from buffer_pipeline.errors import Refused
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.tables import counted_hour
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import NOON, place_hold
from buffer_pipeline_tests.support.releases import early
from buffer_pipeline_tests.support.runs import corrupt


@pytest.mark.parametrize(
    ("invariant", "meaning"),
    [
        (
            "books_balance",
            "Per currency, what the wallets hold is what came in from outside less what went out.",
        ),
        (
            "hold_equals_its_transactions",
            "Each hold's amount is what its transactions say: held once, and then earned, refunded or"
            " still waiting.",
        ),
    ],
)
def test_each_invariant_has_a_meaning(invariant: str, meaning: str) -> None:
    """The sentence is the header of its statement."""
    assert meaning_of(invariant) == meaning


@pytest.mark.parametrize(
    ("invariant", "meaning"),
    [
        (
            "books_balance",
            "Per currency, what the run credited is what came into the buffer for the same holds,"
            " less refunds.",
        ),
        (
            "wallet_equals_its_transactions",
            "Each wallet that the run credited has the balance from before the run, changed by every line"
            " since, and its last line records the same balance.",
        ),
    ],
)
def test_meaning_for_a_run_is_one_sentence(invariant: str, meaning: str) -> None:
    """The first sentence of a longer header."""
    assert meaning_in_a_run(invariant) == meaning


def test_sound_books_break_no_invariant(connection: Connection) -> None:
    """The result is empty."""
    place_hold(connection)

    assert reconcile(connection) == []


def test_broken_invariants_are_returned_with_their_rows(engine: Engine, superuser_url: str) -> None:
    """By name and in order, with amounts in minor units; with `names`, only those."""
    with engine.begin() as connection:
        place_hold(connection)
    corrupt(superuser_url, "UPDATE buffer.wallet SET balance_minor = 7 WHERE owner = 'worker-17'")

    with engine.begin() as connection:
        found = reconcile(connection)
        broken = reconcile(connection, ["books_balance", "hold_settled_once"])

    balance = Violation(
        invariant="books_balance",
        rows=[{"currency": "PHP", "wallets_minor": 100_007, "transactions_minor": 100_000}],
    )
    assert [violation.invariant for violation in found] == ["books_balance", "wallet_equals_its_transactions"]
    assert found[0] == balance
    assert broken == [balance]
    assert set(RUN_INVARIANTS) <= set(INVARIANTS)


def test_proof_of_a_run_covers_only_its_source(engine: Engine, superuser_url: str) -> None:
    """Wrong rows of this run are returned, and no other run's."""
    with engine.begin() as connection:
        place_hold(connection)
        since = database_clock(connection)
    release_all_due(engine, due_by=since, source="a run")
    corrupt(superuser_url, "UPDATE buffer.hold SET amount_minor = amount_minor + 1")

    with engine.begin() as connection:
        found = reconcile_run(connection, source="a run", since=since)
        broken = reconcile_run(connection, ["books_balance"], source="a run", since=since)
        others = reconcile_run(connection, source="another run", since=since)
        later = reconcile_run(connection, source="a run", since=since + timedelta(hours=1))

    assert [violation.invariant for violation in found] == ["hold_settled_once"]
    assert len(found[0].rows) == 1
    assert (broken, others, later) == ([], [], [])


def test_a_runs_proof_reads_by_index(connection: Connection) -> None:
    """However small the books are according to the statistics, until the caller's transaction ends."""
    reconcile_run(connection, source="a run", since=database_clock(connection))

    assert connection.scalar(text("SELECT current_setting('enable_seqscan')")) == "off"


@pytest.mark.parametrize("table", ["hold", "wallet", "counted_hour"])
def test_books_are_empty_until_a_table_has_a_row(connection: Connection, table: str) -> None:
    """Of any table, including an hour that was counted with no payment."""
    before = tables_in_use(connection)
    if table == "hold":
        place_hold(connection)
    elif table == "wallet":
        deposit(connection, owner="client-3", amount="1.00", currency="PHP", reference="first", now=NOON)
    else:
        hour = hour_of(NOON)
        connection.execute(insert(counted_hour).values(hour=hour, counted_by="test", counted_at=hour + HOUR))
    with_a_row = tables_in_use(connection)

    assert before == []
    assert table in with_a_row


def test_non_empty_books_are_refused(connection: Connection) -> None:
    """The refusal names each table with rows, and what to do."""
    require_empty(connection, "a comparison")
    connection.execute(insert(counted_hour).values(hour=NOON, counted_by="test", counted_at=NOON + HOUR))
    deposit(connection, owner="client-3", amount="1.00", currency="PHP", reference="first", now=NOON)

    with pytest.raises(Refused) as refused:
        require_empty(connection, "a comparison")

    filled = ", ".join(tables_in_use(connection))
    assert filled.startswith("counted_hour, ")
    assert str(refused.value) == (
        f"books: not empty ({filled}); a comparison needs books of its own: another BUFFER_HOME, or another"
        " database"
    )


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (
            "UPDATE buffer.transaction SET amount_minor = amount_minor - 1 WHERE type = 'EARNING_PART'",
            {
                "balance_after_follows",
                "hold_equals_its_transactions",
                "wallet_equals_its_transactions",
            },
        ),
        (
            "UPDATE buffer.transaction SET amount_minor = 100001 WHERE type = 'EARNING_PART'",
            {
                "balance_after_follows",
                "hold_equals_its_transactions",
                "hold_settled_once",
                "wallet_equals_its_transactions",
            },
        ),
        (
            "UPDATE buffer.transaction SET type = 'EARNING' WHERE type = 'EARNING_PART'",
            {"hold_equals_its_transactions"},
        ),
        (
            "UPDATE buffer.batch SET kind = 'DUE', reference = NULL, named_hold_id = NULL, left_minor = NULL,"
            " reason = NULL, due_by = recorded_at WHERE kind = 'EARLY'",
            {"earning_follows_its_batch"},
        ),
        (
            "UPDATE buffer.transaction SET release_date = release_date - interval '1 hour'"
            " WHERE type = 'EARNING_PART'",
            {"release_date_is_explained"},
        ),
    ],
)
def test_wrong_part_breaks_an_invariant(
    engine: Engine, superuser_url: str, change: str, broken: set[str]
) -> None:
    """A wrong amount, type, batch or date breaks the invariant that covers it."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, amount="1000.00")
        early(connection, hold_id=hold_id, amount="0.50", reference="part-1")
    corrupt(superuser_url, change)

    with engine.begin() as connection:
        found = {violation.invariant for violation in reconcile(connection)}

    assert found == broken
