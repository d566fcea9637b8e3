"""Which batches of payouts, and payouts without one, an alert was about, for revision 0025."""

from typing import Final

ALERTS: Final = """
ALTER TABLE buffer.alert
  DROP CONSTRAINT alert_kind_is_known,
  ADD CONSTRAINT alert_kind_is_known CHECK (kind IN ('STUCK_PAYMENT', 'OVERDUE_RELEASE', 'STUCK_PAYOUT')),
  ADD COLUMN payout_batch_ids bigint [] NOT NULL DEFAULT '{}',
  ADD COLUMN payout_ids bigint [] NOT NULL DEFAULT '{}',
  ADD CONSTRAINT alert_has_payouts_iff_of_stuck_payouts
    CHECK ((kind = 'STUCK_PAYOUT') = (cardinality(payout_batch_ids) + cardinality(payout_ids) > 0));
GRANT INSERT (payout_batch_ids, payout_ids) ON buffer.alert TO buffer_releaser;
"""
ALERTS_BEFORE: Final = """
DELETE FROM buffer.alert WHERE kind = 'STUCK_PAYOUT';
REVOKE INSERT (payout_batch_ids, payout_ids) ON buffer.alert FROM buffer_releaser;
ALTER TABLE buffer.alert
  DROP COLUMN payout_batch_ids,
  DROP COLUMN payout_ids,
  DROP CONSTRAINT alert_kind_is_known,
  ADD CONSTRAINT alert_kind_is_known CHECK (kind IN ('STUCK_PAYMENT', 'OVERDUE_RELEASE'));
"""
