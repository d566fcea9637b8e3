"""Reconciliation: a broken invariant is returned with its rows, and says what it means."""

from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, insert, text

from buffer_pipeline.database import database_clock
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.errors import Refused
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.reconcile import (
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
from buffer_pipeline.tables import counted_hour
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.builders import place_hold
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.runs import corrupt


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
def test_an_invariant_says_what_it_means(invariant: str, meaning: str) -> None:
    """The sentence is its statement's header, however many lines it has."""
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
            "Each wallet that the run credited has the balance that stood before the run's first line to it,"
            " changed by every line since, and the last of these says the same.",
        ),
    ],
)
def test_what_is_proved_of_a_run_is_one_sentence(invariant: str, meaning: str) -> None:
    """Of a header that has more to say, the first sentence."""
    assert meaning_in_a_run(invariant) == meaning


def test_books_in_order_break_nothing(connection: Connection) -> None:
    """No invariant is returned that holds."""
    place_hold(connection)

    assert reconcile(connection) == []


def test_what_is_broken_is_returned_with_its_rows(engine: Engine, superuser_url: str) -> None:
    """Each broken invariant by name and in order, amounts in minor units; asked for some, only those."""
    with engine.begin() as connection:
        place_hold(connection)
    corrupt(superuser_url, "UPDATE buffer.wallet SET balance_minor = 7 WHERE owner = 'worker-17'")

    with engine.begin() as connection:
        found = reconcile(connection)
        asked = reconcile(connection, ["books_balance", "hold_settled_once"])

    balance = Violation(
        invariant="books_balance",
        rows=[{"currency": "PHP", "wallets_minor": 100_007, "transactions_minor": 100_000}],
    )
    assert [violation.invariant for violation in found] == ["books_balance", "wallet_equals_its_transactions"]
    assert found[0] == balance
    assert asked == [balance]
    assert set(RUN_INVARIANTS) <= set(INVARIANTS)


def test_a_run_is_its_source_since_a_moment(engine: Engine, superuser_url: str) -> None:
    """What a run released wrong is returned with its rows, and no other run's."""
    with engine.begin() as connection:
        place_hold(connection)
        since = database_clock(connection)
    drain_matured(engine, due_by=since, source="a run")
    corrupt(superuser_url, "UPDATE buffer.hold SET amount_minor = amount_minor + 1")

    with engine.begin() as connection:
        found = reconcile_run(connection, source="a run", since=since)
        asked = reconcile_run(connection, ["books_balance"], source="a run", since=since)
        others = reconcile_run(connection, source="another run", since=since)
        later = reconcile_run(connection, source="a run", since=since + timedelta(hours=1))

    assert [violation.invariant for violation in found] == ["hold_settled_once"]
    assert len(found[0].rows) == 1
    assert (asked, others, later) == ([], [], [])


def test_a_runs_proof_reads_by_index(connection: Connection) -> None:
    """However small the statistics say that the books are, until the caller's transaction ends."""
    reconcile_run(connection, source="a run", since=database_clock(connection))

    assert connection.scalar(text("SELECT current_setting('enable_seqscan')")) == "off"


@pytest.mark.parametrize("table", ["hold", "wallet", "counted_hour"])
def test_books_are_empty_until_a_table_has_a_row(connection: Connection, table: str) -> None:
    """Whichever it is: also an hour that was counted while there was nothing to count."""
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


def test_books_that_hold_anything_are_refused_to_what_needs_its_own(connection: Connection) -> None:
    """Empty ones pass; of others the refusal names each table that has a row, and what to do."""
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
