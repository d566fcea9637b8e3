"""Raw SQL by each role: whatever moves money or a decision wrongly is refused, or named by `reconcile`."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import pytest
from hypothesis import settings
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import fetch, statement_text
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import ReleasePosition, Shard, Stretch
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.builders import ADMIN, PAYEE, PAYER, place_hold
from buffer_pipeline_tests.conftest import NOON, Books
from buffer_pipeline_tests.judge import look, wrongs
from buffer_pipeline_tests.raw_sql import Attempt, Statement, rights_of
from buffer_pipeline_tests.test_plans import nodes

TRIALS_PER_EXAMPLE: Final = 4
"""Transactions of a role on a server, for each example that hypothesis would make: 400, or 40,000 with
`--hypothesis-profile=long`."""

TRIALS: Final = TRIALS_PER_EXAMPLE * settings().max_examples

LATER: Final = datetime.now(UTC) + timedelta(days=30)


def fill(connection: Connection) -> None:
    """Write books in which everything has happened once, and some of it waits."""
    for state in HoldState:
        place_hold(connection, state=state, job=f"job-{state}")
    place_hold(connection, job="waits", release_date=LATER)
    place_hold(connection, job="dollars", payee="worker-18", currency="USD", amount="7.00")
    for job, decided in (("asked", ""), ("rejected", "no"), ("refunded in part", "0.50"), ("twice", "no")):
        place_hold(connection, job=job, payee="worker-18", release_date=LATER if job == "asked" else None)
        request = request_backjob(connection, job=job, by=PAYER, reason="hm", now=NOON)
        decision: dict[str, Any] = {
            "backjob_id": request.backjob_id,
            "by": ADMIN,
            "reason": "so be it",
            "now": NOON,
        }
        if decided == "no":
            reject_backjob(connection, **decision)
        elif decided:
            approve_backjob(connection, **decision, amount=decided)
    place_hold(connection, job="refunded in part", state=HoldState.FROZEN)
    hold_id = place_hold(connection, job="looked at", release_date=LATER)
    look_at: dict[str, Any] = {"by": "risk-2", "reason": "hm", "now": NOON}
    freeze = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.ADMIN, **look_at)
    unfreeze_hold(connection, freeze_id=freeze.freeze_id, **look_at)
    for reference, amount in (("back-1", None), ("back-2", "0.75")):
        frozen = place_hold(connection, job=reference, payee="worker-18", state=HoldState.FROZEN)
        refund_hold(
            connection,
            hold_id=frozen,
            by=ADMIN,
            reason="a fraud",
            reference=reference,
            now=NOON,
            amount=amount,
        )
    twice = request_backjob(connection, job="twice", by=PAYER, reason="again", now=NOON)
    (hold_id,) = twice.hold_ids
    freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, **look_at)
    deposit(connection, owner=PAYER, amount="900.00", currency="PHP", reference="in-1", now=NOON)
    withdraw(connection, owner=PAYEE, amount="1.00", currency="PHP", reference="out-1", now=NOON)


def run(connection: Connection, statements: list[Statement]) -> int:
    """Run statements one after the other, each in a savepoint; return how many were refused."""
    refused = 0
    for statement, values in statements:
        try:
            with connection.begin_nested():
                connection.execute(text(statement), values)
        except DBAPIError:
            refused += 1
    return refused


@pytest.mark.timeout(300 + TRIALS)  # A second for each, on a machine that has much else to do.
@pytest.mark.parametrize("role", ["platform", "releaser"])
def test_what_a_role_does_wrongly_is_refused_or_named(roles: Books, role: str) -> None:
    """Statements at random, and deeds of the verbs with something changed: an oracle in plain Python and
    the invariants agree about every transaction that the database accepts.
    """
    with roles.platform.begin() as connection:
        fill(connection)
    with roles.owner.connect() as connection:
        before, rights = look(connection), rights_of(connection, role)
        assert reconcile(connection) == []
    seen: Counter[str] = Counter()

    for trial in range(TRIALS):
        with roles.of(role).connect() as connection:
            # A second before, as whoever asks the clock first.
            now = datetime.now(UTC) - timedelta(seconds=1)
            statements = Attempt(Random(f"{role} {trial}"), before, rights, now).statements()
            refused = run(connection, statements)
            after = look(connection)
            wrong = wrongs(before, after)
            named = [violation.invariant for violation in reconcile(connection)]
            connection.rollback()

        taken = before.unsettled_hold.keys() - after.unsettled_hold.keys()
        assert bool(wrong) == bool(named), (trial, statements, wrong, named)
        if role == "releaser":
            # What is not due it cannot even take.
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


REJECTED: Final = "(SELECT backjob_id FROM buffer.backjob WHERE job = 'rejected')"
WAITS: Final = "(SELECT hold_id FROM buffer.hold WHERE job = 'waits')"
ASKED: Final = "(SELECT hold_id FROM buffer.hold WHERE job = 'asked')"

REFUND_IN_ANOTHERS_NAME: Final = f"""
WITH paid AS (
  DELETE FROM buffer.unsettled_hold WHERE hold_id = {WAITS} RETURNING *
), payee AS (
  UPDATE buffer.wallet SET pending_earnings_minor = pending_earnings_minor - paid.amount_minor FROM paid
  WHERE wallet_id = payee_wallet_id
), payer AS (
  UPDATE buffer.wallet SET balance_minor = balance_minor + paid.amount_minor
  FROM paid INNER JOIN buffer.hold USING (hold_id) WHERE wallet_id = hold.payer_wallet_id
  RETURNING wallet_id, balance_minor
)
INSERT INTO buffer.transaction (
  type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor, balance_after_minor,
  hold_id, backjob_id, recorded_at, release_date
)
SELECT
  'REFUND', 'PENDING_EARNINGS', payee_wallet_id, 'BALANCE', payer.wallet_id, currency, amount_minor,
  payer.balance_minor, hold_id, backjob_id, decided_at, release_date
FROM paid CROSS JOIN payer CROSS JOIN buffer.backjob WHERE backjob_id = {REJECTED}
"""

REFUND_ALONE: Final = """
WITH paid AS (
  DELETE FROM buffer.unsettled_hold
  WHERE hold_id = (SELECT hold_id FROM buffer.hold WHERE job = '{job}') RETURNING *
), payee AS (
  UPDATE buffer.wallet SET pending_earnings_minor = pending_earnings_minor - paid.amount_minor FROM paid
  WHERE wallet_id = payee_wallet_id
), payer AS (
  UPDATE buffer.wallet SET balance_minor = balance_minor + paid.amount_minor
  FROM paid INNER JOIN buffer.hold USING (hold_id) WHERE wallet_id = hold.payer_wallet_id
  RETURNING wallet_id, balance_minor
), batch AS (
  INSERT INTO buffer.batch (kind, source, reason, recorded_at) VALUES ('REFUND', 'raw', 'raw', now())
  RETURNING batch_id
)
INSERT INTO buffer.transaction (
  type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor, balance_after_minor,
  hold_id, batch_id, reference, recorded_at, release_date
)
SELECT
  'REFUND', 'PENDING_EARNINGS', payee_wallet_id, 'BALANCE', payer.wallet_id, currency, amount_minor,
  payer.balance_minor, hold_id, batch_id, 'raw', now(), release_date
FROM paid CROSS JOIN payer CROSS JOIN batch
"""

ON_ANOTHERS_JOB: Final = """
WITH held AS (
  INSERT INTO buffer.hold
    (reference, job, payee_wallet_id, payer_wallet_id, currency, amount_minor, held_at, original_release_date)
  SELECT 'raw', 'waits', payee.wallet_id, payer.wallet_id, 'PHP', 500, now(), now()
  FROM buffer.wallet AS payee CROSS JOIN buffer.wallet AS payer
  WHERE payee.owner = 'worker-18' AND payer.owner = 'worker-17'
    AND payee.currency = 'PHP' AND payer.currency = 'PHP'
  RETURNING *
), waiting AS (
  INSERT INTO buffer.unsettled_hold (hold_id, payee_wallet_id, currency, amount_minor, release_date)
  SELECT hold_id, payee_wallet_id, currency, amount_minor, original_release_date FROM held
), payee AS (
  UPDATE buffer.wallet SET pending_earnings_minor = pending_earnings_minor + 500 FROM held
  WHERE wallet_id = payee_wallet_id
)
INSERT INTO buffer.transaction
  (type, from_account, to_account, to_wallet_id, currency, amount_minor, hold_id, recorded_at)
SELECT
  'PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS', payee_wallet_id, currency, amount_minor, hold_id, now()
FROM held
"""

PAID_EARLY: Final = f"""
WITH paid AS (
  DELETE FROM buffer.unsettled_hold WHERE hold_id = {WAITS} RETURNING *
), credited AS (
  UPDATE buffer.wallet
  SET
    pending_earnings_minor = pending_earnings_minor - paid.amount_minor,
    balance_minor = balance_minor + paid.amount_minor
  FROM paid WHERE wallet_id = payee_wallet_id RETURNING balance_minor
), batch AS (
  INSERT INTO buffer.batch (kind, source, due_by, recorded_at) VALUES ('DUE', 'raw', now(), now())
  RETURNING batch_id
)
INSERT INTO buffer.transaction (
  type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor, balance_after_minor,
  hold_id, batch_id, recorded_at, release_date
)
SELECT
  'EARNING', 'PENDING_EARNINGS', payee_wallet_id, 'BALANCE', payee_wallet_id, currency, amount_minor,
  balance_minor, hold_id, batch_id, now(), {{release_date}}
FROM paid CROSS JOIN credited CROSS JOIN batch
"""

ATTEMPTS: Final = {
    "a refund in the name of another job's rejected backjob": (
        REFUND_IN_ANOTHERS_NAME,
        {"backjob_equals_its_refunds"},
    ),
    "a payment before its date": (
        PAID_EARLY.format(release_date="release_date"),
        {"earning_follows_its_batch"},
    ),
    "a payment before its date, with another date": (
        PAID_EARLY.format(release_date="now()"),
        {"release_date_is_explained"},
    ),
    "a date in 900 years": (
        f"UPDATE buffer.unsettled_hold SET release_date = release_date + interval '900 years'"
        f" WHERE hold_id = {WAITS}",
        {"release_date_is_explained"},
    ),
    "a date in 900 years behind a rejection": (
        "UPDATE buffer.unsettled_hold SET release_date = release_date + interval '900 years'"
        " WHERE hold_id = (SELECT hold_id FROM buffer.hold WHERE job = 'rejected')",
        {"release_date_is_explained"},
    ),
    "an earlier date": (
        f"UPDATE buffer.unsettled_hold SET release_date = now() WHERE hold_id = {WAITS}",
        {"hold_equals_its_transactions", "release_date_is_explained"},
    ),
    "a backjob's freeze closed by somebody else": (
        "UPDATE buffer.hold_freeze SET closed_at = now(), closed_by = 'x', closing_reason = 'x'"
        f" WHERE hold_id = {ASKED}",
        {"frozen_iff_open_freeze", "backjob_open_iff_it_freezes", "freeze_closed_with_its_backjob"},
    ),
    "an empty batch": (
        "INSERT INTO buffer.batch (kind, source, reason, recorded_at) VALUES ('EARLY', 'x', 'x', now())",
        {"earning_follows_its_batch"},
    ),
    "an open backjob that its job does not name": (
        "UPDATE buffer.job SET open_backjob_id = NULL WHERE job = 'asked'",
        {"job_names_its_open_backjob"},
    ),
    "a job that names a backjob of another": (
        f"UPDATE buffer.job SET open_backjob_id = {REJECTED} WHERE job = 'waits'",
        {"job_names_its_open_backjob"},
    ),
    "a job that changes its payer": ("UPDATE buffer.job SET payer = 'x' WHERE job = 'waits'", "42501"),
    "a job that is removed": ("DELETE FROM buffer.job WHERE job = 'waits'", "42501"),
    "an earning on another payer's job": (ON_ANOTHERS_JOB, "23503"),
    "a refund by an admin of what nobody froze": (REFUND_ALONE.format(job="waits"), "23503"),
    "a refund by an admin of what was let go": (REFUND_ALONE.format(job="looked at"), "23503"),
    "a refund by an admin that leaves the freezes open": (
        REFUND_ALONE.format(job="job-FROZEN"),
        {"frozen_iff_open_freeze"},
    ),
    "another decision": (
        f"UPDATE buffer.backjob SET decided_by = 'x' WHERE backjob_id = {REJECTED}",
        "42501",
    ),
    "a decision taken back": (
        "UPDATE buffer.backjob SET state = 'OPEN', decided_at = NULL, decided_by = NULL,"
        f" decision_reason = NULL WHERE backjob_id = {REJECTED}",
        "42501",
    ),
    "a freeze closed again": (
        "UPDATE buffer.hold_freeze SET closed_by = 'x' WHERE closed_at IS NOT NULL",
        "42501",
    ),
    "a decision before its request": (
        "UPDATE buffer.backjob SET state = 'REJECTED', decided_at = requested_at - interval '1 s',"
        " decided_by = 'x', decision_reason = 'x' WHERE job = 'asked'",
        "23514",
    ),
    "a freeze closed before it was opened": (
        "UPDATE buffer.hold_freeze SET closed_at = opened_at - interval '1 s', closed_by = 'x',"
        " closing_reason = 'x' WHERE kind = 'ADMIN'",
        "23514",
    ),
    "a decision by nobody": (
        "UPDATE buffer.backjob SET state = 'REJECTED', decided_at = now(), decided_by = '',"
        " decision_reason = 'x' WHERE job = 'asked'",
        "23514",
    ),
    "a payer who pays itself": (
        "INSERT INTO buffer.hold (reference, job, payee_wallet_id, payer_wallet_id, currency, amount_minor,"
        " held_at, original_release_date) VALUES ('raw', 'raw', 1, 1, 'PHP', 1, now(), now())",
        "23514",
    ),
    "a hold of another millennium": (
        "INSERT INTO buffer.hold (reference, job, payee_wallet_id, payer_wallet_id, currency, amount_minor,"
        " held_at, original_release_date) VALUES ('raw', 'raw', 1, 2, 'PHP', 1, now(), '3000-01-01 00:00Z')",
        "23514",
    ),
    "a cut-off behind the writing": (
        "INSERT INTO buffer.batch (kind, source, due_by, recorded_at)"
        " VALUES ('DUE', 'x', now() + interval '1 s', now())",
        "23514",
    ),
    "a freeze of a settled hold": (
        "INSERT INTO buffer.hold_freeze (hold_id, kind, opened_by, reason, opened_at)"
        " SELECT hold_id, 'RISK', 'x', 'x', now() FROM buffer.hold WHERE job = 'job-RELEASED'",
        "23503",
    ),
    "a freeze by a backjob of another job": (
        "INSERT INTO buffer.hold_freeze (hold_id, kind, backjob_id, opened_by, reason, opened_at)"
        " SELECT hold_id, 'BACKJOB', backjob_id, 'x', 'x', now() FROM buffer.hold CROSS JOIN buffer.backjob"
        " WHERE hold.job = 'job-FROZEN' AND backjob.job = 'asked'",
        "23503",
    ),
    "a freeze by a backjob that is decided": (
        "INSERT INTO buffer.hold_freeze (hold_id, kind, backjob_id, opened_by, reason, opened_at)"
        " SELECT hold_id, 'BACKJOB', backjob_id, 'x', 'x', now() FROM buffer.hold INNER JOIN buffer.backjob"
        " USING (job) WHERE job = 'refunded in part'"
        " AND hold_id NOT IN (SELECT hold_id FROM buffer.hold_freeze WHERE kind = 'BACKJOB')",
        "23503",
    ),
}
"""What somebody might write by the platform's login, and its SQLSTATE or the invariants that it breaks."""


def test_known_attempts_are_refused_or_named(roles: Books) -> None:
    """Each one by its own CHECK, trigger or invariant, and no other."""
    with roles.platform.begin() as connection:
        fill(connection)
    found: dict[str, object] = {}
    for name, (statement, _) in ATTEMPTS.items():
        with roles.platform.connect() as connection:
            try:
                rows = connection.execute(text(statement)).rowcount
            except DBAPIError as error:
                found[name] = getattr(error.orig, "sqlstate", None)
                continue
            assert rows == 1, name
            found[name] = {violation.invariant for violation in reconcile(connection)}
            connection.rollback()

    assert found == {name: expected for name, (_, expected) in ATTEMPTS.items()}


@pytest.mark.parametrize(
    ("taken", "rows"),
    [
        ("state = 'BUFFERED' AND release_date > clock_timestamp()", 0),
        ("state = 'FROZEN'", 0),
        ("state = 'BUFFERED' AND release_date <= clock_timestamp()", 4),
    ],
)
def test_a_releaser_can_take_what_is_due_and_nothing_else(roles: Books, taken: str, rows: int) -> None:
    """By the database's clock, whatever the statement says; the rest is not there for it to delete."""
    with roles.platform.begin() as connection:
        fill(connection)

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
def test_a_releaser_opens_no_batch_before_its_time(roles: Books, batch: str) -> None:
    """Neither an early release nor one of an hour that has not come."""
    statement = f"INSERT INTO buffer.batch (kind, source, reason, due_by, recorded_at) VALUES {batch}"

    with roles.releaser.connect() as connection, pytest.raises(DBAPIError, match="row-level security"):
        connection.execute(text(statement))
    with roles.owner.connect() as connection:
        assert connection.execute(text(statement)).rowcount == 1
        connection.rollback()


@pytest.mark.parametrize(
    ("column", "value", "refused"),
    [("", "", "transaction_reference_iff_named_by_caller"), (", reference", ", 'raw'", "permission denied")],
)
def test_a_releaser_writes_no_refund(roles: Books, column: str, value: str, refused: str) -> None:
    """A line of a refund has a backjob or a reference, and a releaser may write neither."""
    with roles.platform.begin() as connection:
        fill(connection)
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


def test_a_releasers_policy_leaves_the_plan_of_a_release(roles: Books) -> None:
    """The owner's and the releaser's statement find a stretch by the same condition on the same index."""
    with roles.platform.begin() as connection:
        fill(connection)
    everything = Stretch(after=ReleasePosition(), through=ReleasePosition.end(NOON), shard=Shard())
    parameters = {"hold_ids": None, "kind": "DUE", "source": "x", "reason": None, "due_by": NOON, "now": NOON}
    found = {}

    for role in ("owner", "releaser"):
        with roles.of(role).connect() as connection:
            fetch(connection, "stretch_settings", wait_milliseconds=50)
            explain = text(f"EXPLAIN (FORMAT JSON) {statement_text('release_holds')}")
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
