"""The CHECK `transaction_columns_fit_its_type` of revision 0024, as 0025 extends it."""

# An EARNING is told apart first: a release writes nothing else, and a comparison of texts costs something for
# every row. NULL is not TRUE, so what is compared is there.
_COLUMNS = """(CASE
WHEN type = 'EARNING' THEN
  from_account = 'PENDING_EARNINGS' AND to_account = 'BALANCE' AND from_wallet_id = to_wallet_id
  AND balance_after_minor >= 0
  AND hold_id IS NOT NULL AND batch_id IS NOT NULL AND release_date IS NOT NULL
  AND backjob_id IS NULL AND reference IS NULL
  AND from_balance_after_minor IS NULL AND debt_id IS NULL{no_payout}
ELSE
  (type, from_account, to_account) IN (
    ('PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS'),
    ('EARNING_PART', 'PENDING_EARNINGS', 'BALANCE'),
    ('REFUND', 'PENDING_EARNINGS', 'BALANCE'),
    ('DEPOSIT', 'EXTERNAL', 'BALANCE'),
    ('WITHDRAWAL', 'BALANCE', 'EXTERNAL'),
    ('OPENING_BALANCE', 'OPENING', 'BALANCE'),
    ('CLAWBACK', 'BALANCE', 'BALANCE'),
    ('CLAWBACK', 'BALANCE', 'EXTERNAL'),
    ('ADVANCE', 'BALANCE', 'BALANCE'),
    ('ADVANCE', 'BALANCE', 'EXTERNAL'),
    ('ADVANCE', 'RECEIVABLE', 'EXTERNAL'),
    ('RECOVERY', 'BALANCE', 'BALANCE'),
    ('RECOVERY', 'BALANCE', 'RECEIVABLE'),
    ('WRITE_OFF', 'LOSS', 'BALANCE'),
    ('WRITE_OFF', 'LOSS', 'RECEIVABLE'){accounts}
  )
  AND (from_account IN ('BALANCE', 'PENDING_EARNINGS')) = (from_wallet_id IS NOT NULL)
  AND (to_account IN ('BALANCE', 'PENDING_EARNINGS')) = (to_wallet_id IS NOT NULL)
  AND (type <> 'EARNING_PART' OR from_wallet_id = to_wallet_id)
  AND CASE
    WHEN 'BALANCE' IN (from_account, to_account) THEN balance_after_minor >= 0
    ELSE balance_after_minor IS NULL
  END
  AND CASE
    WHEN from_account = 'BALANCE' AND to_account = 'BALANCE'
      THEN from_wallet_id <> to_wallet_id AND from_balance_after_minor >= 0
    ELSE from_balance_after_minor IS NULL
  END
  AND (type IN ('PENDING_EARNING', 'EARNING_PART', 'REFUND', 'CLAWBACK', 'ADVANCE')) = (hold_id IS NOT NULL)
  AND (
    type IN ('EARNING_PART', 'CLAWBACK', 'ADVANCE', 'RECOVERY', 'WRITE_OFF')
    OR (type = 'REFUND' AND backjob_id IS NULL)
  ) = (batch_id IS NOT NULL)
  AND (type = 'REFUND' OR backjob_id IS NULL)
  AND (
    (type IN ('DEPOSIT', 'WITHDRAWAL', 'OPENING_BALANCE')) = (reference IS NOT NULL)
    OR (type = 'REFUND' AND backjob_id IS NULL)
  )
  AND (type IN ('EARNING_PART', 'REFUND')) = (release_date IS NOT NULL)
  AND (type IN ('ADVANCE', 'RECOVERY', 'WRITE_OFF')) = (debt_id IS NOT NULL){payout}
END) IS TRUE"""

_ACCOUNTS = """,
    ('PAYOUT', 'BALANCE', 'TRANSIT'),
    ('PAYOUT_PAID', 'TRANSIT', 'EXTERNAL'),
    ('PAYOUT_RETURNED', 'TRANSIT', 'BALANCE'),
    ('PAYOUT_RETURNED', 'EXTERNAL', 'BALANCE'),
    ('PAYOUT_CANCELLED', 'TRANSIT', 'BALANCE')"""
_PAYOUT = """
  AND (type IN ('PAYOUT', 'PAYOUT_PAID', 'PAYOUT_RETURNED', 'PAYOUT_CANCELLED')) = (payout_id IS NOT NULL)"""


def columns_fit_its_type(*, payouts: bool) -> str:
    """Return the condition, with the lines of payouts or without them."""
    return _COLUMNS.format(
        no_payout=" AND payout_id IS NULL" if payouts else "",
        accounts=_ACCOUNTS if payouts else "",
        payout=_PAYOUT if payouts else "",
    )
