"""Random raw SQL by each role: wrong statements are refused, or `reconcile` reports them."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import pytest
from hypothesis import settings
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import fetch, statement_text
from buffer_pipeline.release import ReleasePosition, ReleaseRange, Shard
from buffer_pipeline_tests.support.builders import NOON
from buffer_pipeline_tests.support.databases import Books
from buffer_pipeline_tests.support.full_books import fill_books
from buffer_pipeline_tests.support.judge import look, wrongs
from buffer_pipeline_tests.support.plans import nodes
from buffer_pipeline_tests.support.raw_sql import Attempt, rights_of
from buffer_pipeline_tests.support.verb_statements import Statement

TRIALS_PER_EXAMPLE: Final = 4
"""Transactions per role and server for each Hypothesis example: 400, or 40,000 with
`--hypothesis-profile=long`.
"""

TRIALS: Final = TRIALS_PER_EXAMPLE * settings().max_examples


def run(connection: Connection, statements: list[Statement]) -> int:
    """Run statements in order, each in a savepoint; return the number of refused ones."""
    refused = 0
    for statement, values in statements:
        try:
            with connection.begin_nested():
                connection.execute(text(statement), values)
        except DBAPIError:
            refused += 1
    return refused


@pytest.mark.timeout(300 + TRIALS)  # A second for each, on a busy machine.
@pytest.mark.parametrize("role", ["platform", "releaser"])
def test_wrong_statements_of_a_role_are_refused_or_reported(roles: Books, role: str) -> None:
    """Random statements, and the statements of a verb with random changes. An oracle in plain Python and the
    invariants agree about every accepted transaction.
    """
    with roles.platform.begin() as connection:
        fill_books(connection)
    with roles.owner.connect() as connection:
        before, rights = look(connection), rights_of(connection, role)
        assert reconcile(connection) == []
    seen: Counter[str] = Counter()

    for trial in range(TRIALS):
        with roles.of(role).connect() as connection:
            # A second earlier, like a caller that reads its clock first.
            now = datetime.now(UTC) - timedelta(seconds=1)
            statements = Attempt(Random(f"{role} {trial}"), before, now, rights=rights).statements()
            refused = run(connection, statements)
            after = look(connection)
            wrong = wrongs(before, after)
            named = [violation.invariant for violation in reconcile(connection)]
            connection.rollback()

        taken = before.unsettled_hold.keys() - after.unsettled_hold.keys()
        assert bool(wrong) == bool(named), (trial, statements, wrong, named)
        if role == "releaser":
            # Row-level security hides holds that are not due.
            assert all(
                before.unsettled_hold[key]["state"] == "BUFFERED"
                and before.unsettled_hold[key]["release_date"] <= datetime.now(UTC)
                for key in taken
            ), (trial, statements)
        seen["refused"] += refused > 0
        seen["named"] += bool(named)
        seen["right"] += not wrong and not refused and after != before
        seen.update(named)

    assert min(seen[what] for what in ("refused", "named", "right")) >= 5, seen


@pytest.mark.parametrize(
    ("taken", "rows"),
    [
        ("state = 'BUFFERED' AND release_date > clock_timestamp()", 0),
        ("state = 'FROZEN'", 0),
        ("state = 'BUFFERED' AND release_date <= clock_timestamp()", 4),
    ],
)
def test_releaser_sees_only_due_holds(roles: Books, taken: str, rows: int) -> None:
    """By the database's clock, whatever the statement says. Row-level security hides the rest from its
    DELETE.
    """
    with roles.platform.begin() as connection:
        fill_books(connection)

    with roles.releaser.connect() as connection:
        deleted = connection.execute(text(f"DELETE FROM buffer.unsettled_hold WHERE {taken}")).rowcount
        connection.rollback()
    with roles.platform.connect() as connection:
        there = connection.execute(text(f"DELETE FROM buffer.unsettled_hold WHERE {taken}")).rowcount
        connection.rollback()

    assert deleted == rows
    assert there > 0


@pytest.mark.parametrize(
    "batch",
    [
        "('EARLY', 'x', 'x', NULL, now())",
        "('DUE', 'x', NULL, now() + interval '1 hour', now() + interval '1 hour')",
    ],
)
def test_releaser_cannot_write_an_early_batch(roles: Books, batch: str) -> None:
    """Neither an early release nor a release of a later hour."""
    statement = f"INSERT INTO buffer.batch (kind, source, reason, due_by, recorded_at) VALUES {batch}"

    with roles.releaser.connect() as connection, pytest.raises(DBAPIError, match="row-level security"):
        connection.execute(text(statement))
    with roles.owner.connect() as connection:
        assert connection.execute(text(statement)).rowcount == 1
        connection.rollback()


@pytest.mark.parametrize(
    ("column", "value", "refused"),
    [("", "", "freeze or backjob does not exist"), (", reference", ", 'raw'", "permission denied")],
)
def test_releaser_cannot_write_a_refund(roles: Books, column: str, value: str, refused: str) -> None:
    """A REFUND needs a backjob or a reference, and a releaser may write neither."""
    with roles.platform.begin() as connection:
        fill_books(connection)
    statement = f"""
      WITH batch AS (
        INSERT INTO buffer.batch (kind, source, due_by, recorded_at) VALUES ('DUE', 'raw', now(), now())
        RETURNING batch_id
      )
      INSERT INTO buffer.transaction (
        type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
        balance_after_minor, hold_id, batch_id, recorded_at, release_date{column}
      )
      SELECT
        'REFUND', 'PENDING_EARNINGS', payee_wallet_id, 'BALANCE', payer_wallet_id, currency, 1,
        1, hold_id, batch_id, now(), original_release_date{value}
      FROM buffer.hold CROSS JOIN batch WHERE job = 'job-FROZEN'
    """

    with roles.releaser.connect() as connection, pytest.raises(DBAPIError, match=refused):
        connection.execute(text(statement))


def test_row_level_security_keeps_the_plan_of_a_release(roles: Books) -> None:
    """For the owner and for the releaser, the same condition on the same index finds a range."""
    with roles.platform.begin() as connection:
        fill_books(connection)
    everything = ReleaseRange(after=ReleasePosition(), through=ReleasePosition.end(NOON), shard=Shard())
    parameters = {"hold_ids": None, "kind": "DUE", "source": "x", "reason": None, "due_by": NOON, "now": NOON}
    parameters |= {"reference": None, "named_hold_id": None}
    found = {}

    for role in ("owner", "releaser"):
        with roles.of(role).connect() as connection:
            fetch(connection, "release/range_settings", wait_milliseconds=50)
            explain = text(f"EXPLAIN (FORMAT JSON) {statement_text('release/release_holds')}")
            plan = connection.execute(explain, {**parameters, **everything.parameters()}).scalar_one()
            found[role] = [
                node["Index Cond"]
                for node in nodes(plan[0]["Plan"])
                if node.get("Index Name") == "unsettled_hold_due_idx"
            ]

    assert found["releaser"] == found["owner"]
    assert (
        max(condition.count("ROW(release_hour, payee_wallet_id, hold_id)") for condition in found["owner"])
        == 2
    )
