"""Raw SQL of the platform's role that was once accepted: now it is refused, or `reconcile` reports it."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline_tests.support.databases import Books
from buffer_pipeline_tests.support.full_books import fill_books

REJECTED: Final = "(SELECT backjob_id FROM buffer.backjob WHERE job = 'rejected')"
WAITS: Final = "(SELECT hold_id FROM buffer.hold WHERE job = 'waits')"
ASKED: Final = "(SELECT hold_id FROM buffer.hold WHERE job = 'asked')"

OWNER_FREEZE: Final = (
    "INSERT INTO buffer.owner_freeze (owner, kind, opened_by, reason, opened_at, holds_frozen)"
    " VALUES ({owner}, 'RISK', 'x', 'x', now(), 0)"
)
ANOTHER: Final = "'x'"
PAYEE_WHO_WAITS: Final = (
    "(SELECT owner FROM buffer.wallet INNER JOIN buffer.hold ON payee_wallet_id = wallet_id"
    " WHERE job = 'waits')"
)

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

# An earning of 500 on the job of the hold that waits, with all that belongs to it; {first} is that hold.
HELD: Final = f"""
WITH held AS (
  INSERT INTO buffer.hold
    (reference, job, title, payee_wallet_id, payer_wallet_id, currency, amount_minor, held_at,
     original_release_date, kind, earning_id, earning_minor)
  SELECT {{reference}}, job, title, payee.wallet_id, payer_wallet_id, first.currency, 500, held_at,
     original_release_date, {{kind}}
  FROM buffer.hold AS first CROSS JOIN buffer.wallet AS payee
  WHERE first.hold_id = {WAITS} AND payee.owner = 'worker-18' AND payee.currency = first.currency
  RETURNING *
), waiting AS (
  INSERT INTO buffer.unsettled_hold (hold_id, payee_wallet_id, currency, amount_minor, release_date, kind)
  SELECT hold_id, payee_wallet_id, currency, amount_minor, original_release_date, {{waits_as}} FROM held
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
    "a date in 900 years after a rejection": (
        "UPDATE buffer.unsettled_hold SET release_date = release_date + interval '900 years'"
        " WHERE hold_id = (SELECT hold_id FROM buffer.hold WHERE job = 'rejected')",
        {"release_date_is_explained"},
    ),
    "an earlier date": (
        f"UPDATE buffer.unsettled_hold SET release_date = now() WHERE hold_id = {WAITS}",
        {"release_date_is_explained"},
    ),
    "an earlier date with a line of another date": (
        f"UPDATE buffer.unsettled_hold SET release_date = now() WHERE hold_id = {WAITS};"
        " INSERT INTO buffer.audit_line (at, by, verb, owner, hold_id, reason, from_date, to_date)"
        " SELECT now(), 'x', 'RESCHEDULE', owner, hold_id, 'x', original_release_date, now() + interval '1 s'"
        " FROM buffer.hold INNER JOIN buffer.wallet ON payee_wallet_id = wallet_id"
        f" WHERE hold_id = {WAITS}",
        {"release_date_is_explained"},
    ),
    "a line of a move that was not made": (
        "INSERT INTO buffer.audit_line (at, by, verb, owner, hold_id, reason, from_date, to_date)"
        " SELECT now(), 'x', 'RESCHEDULE', owner, hold_id, 'x', original_release_date, now()"
        " FROM buffer.hold INNER JOIN buffer.wallet ON payee_wallet_id = wallet_id"
        f" WHERE hold_id = {WAITS}",
        {"release_date_is_explained"},
    ),
    "a move beyond the cap, with its line": (
        "WITH moved AS ("
        "  UPDATE buffer.unsettled_hold SET release_date = release_date + interval '900 years'"
        f"  WHERE hold_id = {WAITS} RETURNING *"
        ") INSERT INTO buffer.audit_line (at, by, verb, owner, hold_id, reason, from_date, to_date)"
        " SELECT now(), 'x', 'RESCHEDULE', owner, hold_id, 'x',"
        " release_date - interval '900 years', release_date"
        " FROM moved INNER JOIN buffer.wallet ON payee_wallet_id = wallet_id",
        {"release_date_is_explained"},
    ),
    "a line about a deposit that was not made": (
        "INSERT INTO buffer.audit_line (at, by, verb, owner, transaction_id)"
        " VALUES (now(), 'x', 'DEPOSIT', 'worker-17', 1)",
        {"audit_line_matches_what_it_names"},
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
    "a freeze of an owner that freezes nothing": (
        OWNER_FREEZE.format(owner=PAYEE_WHO_WAITS),
        {"owner_names_its_open_freeze", "owner_freeze_covers_its_owner"},
    ),
    "a freeze of a hold by another owner's freeze": (
        f"WITH opened AS ({OWNER_FREEZE.format(owner=ANOTHER)} RETURNING owner_freeze_id)"
        " INSERT INTO buffer.hold_freeze (hold_id, kind, owner_freeze_id, opened_by, reason, opened_at)"
        f" SELECT {ASKED}, 'RISK', owner_freeze_id, 'x', 'x', now() FROM opened",
        "23503",
    ),
    "a freeze of a hold by another earning's freeze": (
        "INSERT INTO buffer.hold_freeze"
        " (hold_id, kind, earning_id, earning_freeze_id, opened_by, reason, opened_at)"
        f" SELECT {ASKED}, kind, {ASKED}, freeze_id, 'x', 'x', now() FROM buffer.hold_freeze"
        " WHERE kind = 'RISK' AND closed_at IS NULL LIMIT 1",
        "23503",
    ),
    "a freeze of a hold for an earning that it is no share of": (
        "INSERT INTO buffer.hold_freeze (hold_id, kind, earning_id, opened_by, reason, opened_at)"
        f" VALUES ({ASKED}, 'RISK', {WAITS}, 'x', 'x', now())",
        "23503",
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
    **{
        f"metadata that is {what}": (
            "INSERT INTO buffer.hold (reference, job, payee_wallet_id, payer_wallet_id, currency,"
            " amount_minor, held_at, original_release_date, metadata)"
            f" VALUES ('raw', 'raw', 1, 2, 'PHP', 1, now(), now(), {value})",
            "23514",
        )
        for what, value in {
            "no object": "'[1]'",
            "empty": "'{}'",
            "nested": """'{"order": {"id": 17}}'""",
            "an array deep": """'{"orders": [17]}'""",
            "large": "jsonb_build_object('order', repeat('x', 65536))",
        }.items()
    },
    "an earning of more than its shares": (
        HELD.format(reference="'raw'", kind="'PAYEE', NULL, 600", waits_as="'PAYEE'"),
        {"earning_equals_its_shares"},
    ),
    "a fee of an earning that has none": (
        HELD.format(reference="reference", kind="'FEE', hold_id, NULL", waits_as="'FEE'"),
        {"earning_equals_its_shares"},
    ),
    "a fee of another earning": (
        HELD.format(reference="'raw'", kind="'FEE', hold_id, NULL", waits_as="'FEE'"),
        {"earning_equals_its_shares"},
    ),
    "a payee's share that waits as a fee": (
        HELD.format(reference="'raw'", kind="'PAYEE', NULL, NULL", waits_as="'FEE'"),
        {"earning_equals_its_shares"},
    ),
    "a share of another kind": (
        HELD.format(reference="reference", kind="'TIP', hold_id, NULL", waits_as="'FEE'"),
        "23514",
    ),
    "a fee without an earning": (
        HELD.format(reference="'raw'", kind="'FEE', NULL, NULL", waits_as="'FEE'"),
        "23514",
    ),
    "a share of an earning to come": (
        HELD.format(reference="reference", kind="'FEE', 999999, NULL", waits_as="'FEE'"),
        "23514",
    ),
    "an earning of less than the payee's share": (
        HELD.format(reference="'raw'", kind="'PAYEE', NULL, 499", waits_as="'PAYEE'"),
        "23514",
    ),
    "the same earning twice": (
        HELD.format(reference="reference", kind="'PAYEE', NULL, NULL", waits_as="'PAYEE'"),
        "23505",
    ),
    "a fee that becomes the payee's": (
        f"UPDATE buffer.unsettled_hold SET kind = 'FEE' WHERE hold_id = {WAITS}",
        "42501",
    ),
    "a cut-off after the writing": (
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
"""Statements of the platform's login, each with its SQLSTATE or the invariants that it breaks."""


def test_known_attempts_are_refused_or_reported(roles: Books) -> None:
    """By exactly the expected CHECK, trigger or invariant."""
    with roles.platform.begin() as connection:
        fill_books(connection)
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
