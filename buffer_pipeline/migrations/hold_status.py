"""The view `hold_status` as revisions 0016 to 0022 extend it: the columns of 0006, and more after them.

From 0022 on, a part of a hold can be released early, which is not refunded. A revision that changes the first
columns, or where they come from, writes a view of its own: this text is part of the revisions that use it.
"""

from alembic import op

_VIEW = """
CREATE OR REPLACE VIEW buffer.hold_status AS
SELECT
  hold.hold_id,
  hold.reference,
  hold.job,
  hold.title,
  hold.payee_wallet_id,
  hold.payer_wallet_id,
  hold.currency,
  hold.amount_minor,
  {refunded} AS refunded_minor,
  CASE
    WHEN unsettled.hold_id IS NOT NULL THEN unsettled.state
    WHEN earning.hold_id IS NOT NULL THEN 'RELEASED'
    WHEN refund.hold_id IS NOT NULL THEN 'REFUNDED'
  END AS state,
  hold.held_at,
  hold.original_release_date,
  coalesce(unsettled.release_date, earning.release_date, refund.release_date) AS release_date,
  coalesce(earning.recorded_at, refund.recorded_at) AS settled_at{more}
FROM buffer.hold
LEFT JOIN buffer.unsettled_hold AS unsettled ON hold.hold_id = unsettled.hold_id
LEFT JOIN LATERAL (
  SELECT transaction.hold_id, transaction.amount_minor, transaction.release_date, transaction.recorded_at
  FROM buffer.transaction
  WHERE transaction.hold_id = hold.hold_id AND transaction.type = 'EARNING'
  ORDER BY transaction.transaction_id DESC
  LIMIT 1
) AS earning ON unsettled.hold_id IS NULL
LEFT JOIN LATERAL (
  SELECT transaction.hold_id, transaction.release_date, transaction.recorded_at
  FROM buffer.transaction
  WHERE transaction.hold_id = hold.hold_id AND transaction.type = 'REFUND'
  ORDER BY transaction.transaction_id DESC
  LIMIT 1
) AS refund ON unsettled.hold_id IS NULL AND earning.hold_id IS NULL
"""


_REFUNDED = """CASE
    WHEN unsettled.hold_id IS NOT NULL THEN hold.amount_minor - unsettled.amount_minor
    WHEN earning.hold_id IS NOT NULL THEN hold.amount_minor - earning.amount_minor
    WHEN refund.hold_id IS NOT NULL THEN hold.amount_minor
  END"""

_PARTS = """(
      SELECT coalesce(CAST(sum(part.amount_minor) AS bigint), 0)
      FROM buffer.transaction AS part
      WHERE part.hold_id = hold.hold_id AND part.type = 'EARNING_PART' AND part.type <> 'EARNING'
    )"""

# Parts are looked up only of a hold that has not paid out, or does not hold, all of its amount.
_REFUNDED_BESIDE_PARTS = f"""CASE
    WHEN hold.amount_minor IN (unsettled.amount_minor, earning.amount_minor) THEN 0
    WHEN coalesce(unsettled.hold_id, earning.hold_id, refund.hold_id) IS NOT NULL
      THEN hold.amount_minor - coalesce(unsettled.amount_minor, earning.amount_minor, 0) - {_PARTS}
  END"""

_RELEASED = f"""
  CASE
    WHEN hold.amount_minor IN (unsettled.amount_minor, earning.amount_minor)
      THEN coalesce(earning.amount_minor, 0)
    WHEN coalesce(unsettled.hold_id, earning.hold_id, refund.hold_id) IS NOT NULL
      THEN coalesce(earning.amount_minor, 0) + {_PARTS}
  END AS released_minor"""


def extend_hold_status(*columns: str) -> None:
    """Give the view these columns of `buffer.hold` after those of 0006.

    The view is replaced, so it keeps its grants and whatever somebody has built on it. PostgreSQL allows that
    only if no column before the new ones changes.
    """
    op.execute(_VIEW.format(refunded=_REFUNDED, more="".join(f",\n  hold.{column}" for column in columns)))


def count_parts_in_hold_status(*columns: str) -> None:
    """Give the view `released_minor` after these columns, and no longer count released parts as refunded."""
    more = [*(f"\n  hold.{column}" for column in columns), _RELEASED]
    op.execute(_VIEW.format(refunded=_REFUNDED_BESIDE_PARTS, more="".join(f",{column}" for column in more)))


def shorten_hold_status(*columns: str) -> None:
    """Leave the view only these columns after those of 0006.

    A view loses a column only if all of it is dropped, with its grants.
    """
    op.execute("DROP VIEW buffer.hold_status")
    extend_hold_status(*columns)
    op.execute("GRANT SELECT ON buffer.hold_status TO buffer_platform, buffer_releaser, buffer_reader")
