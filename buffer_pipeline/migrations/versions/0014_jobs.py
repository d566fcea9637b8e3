"""A job has one payer, backjobs and freezes have references, and an admin can refund a frozen hold."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# Of a job that has holds of several payers, the first one's.
_JOBS = """
CREATE TABLE buffer.job (
  job text NOT NULL CONSTRAINT job_pkey PRIMARY KEY
    CONSTRAINT job_name_length CHECK (length(job) BETWEEN 1 AND 200),
  payer text NOT NULL CONSTRAINT job_payer_length CHECK (length(payer) BETWEEN 1 AND 200),
  open_backjob_id bigint CONSTRAINT job_open_backjob_fkey REFERENCES buffer.backjob (backjob_id)
);
INSERT INTO buffer.job (job, payer, open_backjob_id)
SELECT DISTINCT ON (hold.job) hold.job, payer.owner, backjob.backjob_id
FROM buffer.hold
INNER JOIN buffer.wallet AS payer ON payer.wallet_id = hold.payer_wallet_id
LEFT JOIN buffer.backjob ON backjob.job = hold.job AND backjob.state = 'OPEN'
ORDER BY hold.job, hold.hold_id;
CREATE UNIQUE INDEX job_open_backjob_key ON buffer.job (open_backjob_id) WHERE open_backjob_id IS NOT NULL;
ALTER TABLE buffer.hold ADD CONSTRAINT hold_job_fkey FOREIGN KEY (job) REFERENCES buffer.job (job);
CREATE TRIGGER job_is_kept BEFORE DELETE OR TRUNCATE ON buffer.job
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
REVOKE ALL ON buffer.job FROM PUBLIC;
REVOKE UPDATE, DELETE, TRUNCATE ON buffer.job FROM CURRENT_USER;
GRANT UPDATE (open_backjob_id) ON buffer.job TO CURRENT_USER;
GRANT SELECT, INSERT (job, payer), UPDATE (open_backjob_id) ON buffer.job TO buffer_platform;
GRANT SELECT ON buffer.job TO buffer_releaser, buffer_reader;
"""

_REFERENCES = """
ALTER TABLE buffer.backjob
  ADD decision_reference text CONSTRAINT backjob_decision_reference_key UNIQUE,
  ADD CONSTRAINT backjob_decision_reference_only_of_decided CHECK (decision_reference IS NULL OR state <> 'OPEN'),
  ADD CONSTRAINT backjob_decision_reference_length CHECK (length(decision_reference) BETWEEN 1 AND 200);
ALTER TABLE buffer.hold_freeze
  ADD reference text CONSTRAINT hold_freeze_reference_key UNIQUE,
  ADD closing_reference text CONSTRAINT hold_freeze_closing_reference_key UNIQUE,
  ADD CONSTRAINT hold_freeze_reference_length CHECK (length(reference) BETWEEN 1 AND 200),
  ADD CONSTRAINT hold_freeze_closing_reference_only_of_closed
    CHECK (closing_reference IS NULL OR closed_at IS NOT NULL),
  ADD CONSTRAINT hold_freeze_closing_reference_length CHECK (length(closing_reference) BETWEEN 1 AND 200);
GRANT UPDATE (decision_reference) ON buffer.backjob TO CURRENT_USER, buffer_platform;
GRANT UPDATE (closing_reference) ON buffer.hold_freeze TO CURRENT_USER, buffer_platform;
GRANT INSERT (reference) ON buffer.hold_freeze TO buffer_platform;
"""

# As in 0006, but that a refund may be an admin's, and that an earning is paid by its job's payer. Only lines of refunds
# and of new holds are looked at for it: a release costs what it did.
_LINES = """
CREATE OR REPLACE FUNCTION buffer.refuse_stray_transactions() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET random_page_cost = 1.1 SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  stray bigint;
BEGIN
  SELECT min(line.transaction_id) INTO stray
  FROM (
    SELECT inserted.transaction_id
    FROM inserted
    -- Its payee's wallet and its currency. Foreign keys of the hold vouch for the wallets.
    LEFT JOIN buffer.hold
      ON hold.hold_id = inserted.hold_id
      AND hold.currency = inserted.currency
      AND hold.payee_wallet_id = CASE inserted.type
        WHEN 'PENDING_EARNING' THEN inserted.to_wallet_id ELSE inserted.from_wallet_id
      END
    -- Subqueries for a value: EXISTS might read the whole table once, for a line that is looked up.
    WHERE CASE
      WHEN inserted.hold_id IS NULL THEN (
        SELECT wallet.wallet_id FROM buffer.wallet
        WHERE wallet.wallet_id = coalesce(inserted.from_wallet_id, inserted.to_wallet_id)
          AND wallet.currency = inserted.currency
      ) IS NULL
      WHEN hold.hold_id IS NULL THEN TRUE
      -- Of a refund its payer's wallet too, and who decided it.
      WHEN inserted.type = 'REFUND' THEN (
        SELECT refunded.hold_id FROM buffer.hold AS refunded
        WHERE refunded.hold_id = inserted.hold_id AND refunded.payer_wallet_id = inserted.to_wallet_id
      ) IS NULL OR {refund}
      WHEN inserted.type = 'PENDING_EARNING' THEN {earning}
      ELSE FALSE
    END
    UNION ALL
    SELECT of_batch.transaction_id
    FROM (SELECT batch_id, min(transaction_id) AS transaction_id FROM inserted GROUP BY batch_id) AS of_batch
    WHERE of_batch.batch_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM buffer.batch WHERE batch.batch_id = of_batch.batch_id)
  ) AS line;
  IF stray IS NOT NULL THEN
    RAISE EXCEPTION
      'transaction %: its hold, job, wallet, batch, freeze or backjob does not exist or does not match it', stray
      USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'transaction_references_what_is_there';
  END IF;
  RETURN NULL;
END
$$;
"""

_OF_A_BACKJOB = """(
        SELECT backjob.backjob_id FROM buffer.backjob WHERE backjob.backjob_id = inserted.backjob_id
      ) IS NULL"""
# An admin's is of a hold that an admin or risk control kept frozen until then.
_OF_A_BACKJOB_OR_A_FREEZE = """(
        SELECT coalesce(
          (SELECT backjob.backjob_id FROM buffer.backjob WHERE backjob.backjob_id = inserted.backjob_id),
          nullif((
            SELECT count(*) FROM buffer.hold_freeze
            WHERE inserted.backjob_id IS NULL AND hold_freeze.hold_id = inserted.hold_id
              AND hold_freeze.backjob_id IS NULL AND hold_freeze.opened_at <= inserted.recorded_at
              AND coalesce(hold_freeze.closed_at = inserted.recorded_at, TRUE)
          ), 0)
        )
      ) IS NULL"""
# Looks the hold up once more: a release, which has no such line, reads of a hold what its index has.
_OF_ITS_JOB = """(
        SELECT earned.hold_id FROM buffer.hold AS earned
        INNER JOIN buffer.job ON job.job = earned.job
        INNER JOIN buffer.wallet ON wallet.wallet_id = earned.payer_wallet_id AND wallet.owner = job.payer
        WHERE earned.hold_id = inserted.hold_id
      ) IS NULL"""

# Constraints of batch and transaction: table, old name, new name, old condition, new condition.
_CHECKS = (
    (
        "batch",
        "batch_kind_is_known",
        "batch_kind_is_known",
        "kind IN ('DUE', 'EARLY')",
        "kind IN ('DUE', 'EARLY', 'REFUND')",
    ),
    (
        "batch",
        "batch_is_due_or_has_a_reason",
        "batch_is_due_or_has_a_reason",
        "(kind = 'EARLY') = (reason IS NOT NULL) AND (kind = 'DUE') = (due_by IS NOT NULL)",
        "(kind = 'DUE') = (reason IS NULL) AND (kind = 'DUE') = (due_by IS NOT NULL)",
    ),
    (
        "transaction",
        "transaction_batch_iff_earning",
        "transaction_batch_iff_earning_or_refund_by_admin",
        "(type = 'EARNING') = (batch_id IS NOT NULL)",
        "(batch_id IS NOT NULL) = (type = 'EARNING' OR (type = 'REFUND' AND backjob_id IS NULL))",
    ),
    (
        "transaction",
        "transaction_backjob_iff_refund",
        "transaction_backjob_only_of_refund",
        "(type = 'REFUND') = (backjob_id IS NOT NULL)",
        "type = 'REFUND' OR backjob_id IS NULL",
    ),
    (
        "transaction",
        "transaction_reference_iff_without_hold",
        "transaction_reference_iff_named_by_caller",
        "(type IN ('DEPOSIT', 'WITHDRAWAL', 'OPENING_BALANCE')) = (reference IS NOT NULL)",
        "(reference IS NOT NULL) = (type IN ('DEPOSIT', 'WITHDRAWAL', 'OPENING_BALANCE')"
        " OR (type = 'REFUND' AND backjob_id IS NULL))",
    ),
)


def upgrade() -> None:
    op.execute(_JOBS)
    op.execute(_REFERENCES)
    _replace_checks([(table, old, new, condition) for table, old, new, _, condition in _CHECKS])
    op.execute(_LINES.format(refund=_OF_A_BACKJOB_OR_A_FREEZE, earning=_OF_ITS_JOB))
    _index_lines(["hold_id", "type", "backjob_id", "batch_id"])


def downgrade() -> None:
    # Refuses where an admin has refunded a hold: the older constraints know no such line.
    op.execute(_LINES.format(refund=_OF_A_BACKJOB, earning="FALSE"))
    _index_lines(["hold_id", "type", "backjob_id"])
    _replace_checks([(table, new, old, condition) for table, old, new, condition, _ in _CHECKS])
    # A privilege on a column outlives the column.
    op.execute(
        "REVOKE UPDATE (decision_reference) ON buffer.backjob FROM buffer_platform;"
        " REVOKE INSERT (reference), UPDATE (closing_reference) ON buffer.hold_freeze FROM buffer_platform"
    )
    op.execute("ALTER TABLE buffer.hold_freeze DROP COLUMN reference, DROP COLUMN closing_reference")
    op.execute("ALTER TABLE buffer.backjob DROP COLUMN decision_reference")
    op.execute("ALTER TABLE buffer.hold DROP CONSTRAINT hold_job_fkey")
    op.execute("DROP TABLE buffer.job")


def _replace_checks(checks: list[tuple[str, str, str, str]]) -> None:
    """Replace CHECKs (table, name, new name, condition): each table is read once for all of its own."""
    for table in dict.fromkeys(table for table, *_ in checks):
        changes = [
            f"DROP CONSTRAINT {name}, ADD CONSTRAINT {new_name} CHECK ({condition})"
            for of_table, name, new_name, condition in checks
            if of_table == table
        ]
        op.execute(f"ALTER TABLE buffer.{table} {', '.join(changes)}")


def _index_lines(columns: list[str]) -> None:
    op.drop_index("transaction_hold_line_key", "transaction", schema="buffer")
    op.create_index(
        "transaction_hold_line_key",
        "transaction",
        columns,
        schema="buffer",
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("hold_id IS NOT NULL AND type <> 'EARNING'"),
    )
