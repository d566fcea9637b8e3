"""Hourly counts have the released fees, taxes and reserves; the audit trail reads rules and owners' freezes."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_COLUMNS = """
ALTER TABLE buffer.hourly_release_count
  ADD COLUMN released_fee_minor bigint NOT NULL DEFAULT 0,
  ADD COLUMN released_tax_minor bigint NOT NULL DEFAULT 0,
  ADD COLUMN released_reserve_minor bigint NOT NULL DEFAULT 0
"""

# The hours that were counted before. Books without shares have an empty index of them, so nothing is read. An hour
# that a late transaction has made wrong may not fit: it stays wrong, and the check of the counts names it.
_OLDER_HOURS = """
UPDATE buffer.hourly_release_count
SET
  released_fee_minor = share.fee_minor,
  released_tax_minor = share.tax_minor,
  released_reserve_minor = share.reserve_minor
FROM (
  SELECT
    date_bin('1 hour', transaction.recorded_at, timestamptz '2000-01-01 00:00:00+00') AS hour,
    transaction.currency,
    coalesce(sum(transaction.amount_minor) FILTER (WHERE hold.kind = 'FEE'), 0) AS fee_minor,
    coalesce(sum(transaction.amount_minor) FILTER (WHERE hold.kind = 'TAX'), 0) AS tax_minor,
    coalesce(sum(transaction.amount_minor) FILTER (WHERE hold.kind = 'RESERVE'), 0) AS reserve_minor
  FROM buffer.hold
  INNER JOIN buffer.transaction ON hold.hold_id = transaction.hold_id
  WHERE hold.earning_id IS NOT NULL AND hold.kind <> 'PAYEE' AND transaction.type IN ('EARNING', 'EARNING_PART')
  GROUP BY 1, 2
) AS share
WHERE
  hourly_release_count.hour = share.hour AND hourly_release_count.currency = share.currency
  AND share.fee_minor + share.tax_minor + share.reserve_minor <= hourly_release_count.released_minor
"""

# Without a default: a count that leaves a figure out is refused.
_CHECKED = """
ALTER TABLE buffer.hourly_release_count
  ALTER COLUMN released_fee_minor DROP DEFAULT,
  ALTER COLUMN released_tax_minor DROP DEFAULT,
  ALTER COLUMN released_reserve_minor DROP DEFAULT,
  ADD CONSTRAINT hourly_release_count_shares_in_released CHECK (
    least(released_fee_minor, released_tax_minor, released_reserve_minor) >= 0
    AND released_fee_minor + released_tax_minor + released_reserve_minor <= released_minor
  )
"""

# The trail lists the newest first, of all, of one person or of one owner.
_INDEXES = """
CREATE INDEX owner_freeze_owner_idx ON buffer.owner_freeze (owner);
CREATE INDEX owner_freeze_opened_idx ON buffer.owner_freeze (opened_at);
CREATE INDEX owner_freeze_closed_idx ON buffer.owner_freeze (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX owner_freeze_opened_by_idx ON buffer.owner_freeze (opened_by, opened_at);
CREATE INDEX owner_freeze_closed_by_idx ON buffer.owner_freeze (closed_by, closed_at)
WHERE closed_at IS NOT NULL;
CREATE INDEX rule_assignment_at_idx ON buffer.rule_assignment (assigned_at);
CREATE INDEX rule_assignment_by_idx ON buffer.rule_assignment (assigned_by, assigned_at);
"""


def upgrade() -> None:
    op.execute(_COLUMNS)
    op.execute(_OLDER_HOURS)
    op.execute(_CHECKED)
    op.execute(_INDEXES)


def downgrade() -> None:
    for name in ("owner", "opened", "closed", "opened_by", "closed_by"):
        op.execute(f"DROP INDEX buffer.owner_freeze_{name}_idx")
    op.execute("DROP INDEX buffer.rule_assignment_at_idx, buffer.rule_assignment_by_idx")
    op.execute(
        "ALTER TABLE buffer.hourly_release_count"
        " DROP COLUMN released_fee_minor, DROP COLUMN released_tax_minor, DROP COLUMN released_reserve_minor"
    )
