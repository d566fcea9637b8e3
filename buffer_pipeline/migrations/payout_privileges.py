"""What each role may do to the tables of payouts, for revision 0025."""

from typing import Final

# Whoever writes a transaction or makes an hour's mark needs these: triggers read as the login that writes.
GRANTS: Final = """
GRANT USAGE ON SCHEMA buffer TO buffer_payouts;
GRANT EXECUTE ON FUNCTION buffer.enter_hour(timestamptz) TO buffer_payouts;
GRANT EXECUTE ON FUNCTION buffer.sum_minor(bigint) TO buffer_payouts;
GRANT SELECT ON
  buffer.alembic_version, buffer.currency, buffer.owner, buffer.wallet, buffer.hold, buffer.unsettled_hold,
  buffer.hold_status, buffer.transaction, buffer.batch, buffer.job, buffer.backjob, buffer.owner_freeze,
  buffer.debt, buffer.hold_freeze
  TO buffer_payouts;
GRANT UPDATE (balance_minor) ON buffer.wallet TO buffer_payouts;
GRANT INSERT (payout_id) ON buffer.transaction TO buffer_platform, buffer_payouts;
-- Neither a reference nor a hold, so nothing but the lines of payouts.
GRANT INSERT (
  type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor, balance_after_minor,
  recorded_at
) ON buffer.transaction TO buffer_payouts;
GRANT INSERT (type, owner, currency, amount_minor, created_at, payout_id)
  ON buffer.notification TO buffer_payouts;
GRANT INSERT (payout_id) ON buffer.inbox_message TO buffer_releaser;

REVOKE ALL ON
  buffer.payout_destination, buffer.payout_schedule, buffer.payout_batch, buffer.payout_status_file,
  buffer.payout_export, buffer.payout_ids, buffer.payout
  FROM PUBLIC;
REVOKE UPDATE, DELETE, TRUNCATE ON
  buffer.payout_destination, buffer.payout_schedule, buffer.payout_batch, buffer.payout_status_file,
  buffer.payout_export, buffer.payout_ids, buffer.payout
  FROM CURRENT_USER;
-- A foreign key locks the row that it names as the owner, who needs the right to change some column of it.
GRANT UPDATE (destination_id) ON buffer.payout_destination TO CURRENT_USER;
GRANT SELECT (destination_id, owner, version, method, masked, set_by, reason, set_at)
  ON buffer.payout_destination TO buffer_platform, buffer_releaser, buffer_reader;
-- Whoever shows a destination shows the holder's name, which is personal data. A release does not need it.
GRANT SELECT (holder_name) ON buffer.payout_destination TO buffer_platform, buffer_reader;
GRANT SELECT ON buffer.payout_destination TO buffer_payouts;
GRANT INSERT (owner, version, method, account, masked, holder_name, set_by, reason, set_at)
  ON buffer.payout_destination TO buffer_platform;
GRANT SELECT ON
  buffer.payout_schedule, buffer.payout_batch, buffer.payout_status_file, buffer.payout_export,
  buffer.payout_ids, buffer.payout
  TO buffer_platform, buffer_releaser, buffer_reader, buffer_payouts;
GRANT INSERT (owner, number, schedule, set_by, reason, set_at) ON buffer.payout_schedule TO buffer_platform;
-- Only the platform overrides, as its admins do.
GRANT INSERT (
  wallet_id, currency, amount_minor, whole_balance, reference, requested_by, requested_at, override_reason
)
  ON buffer.payout TO buffer_platform;
GRANT INSERT (wallet_id, currency, amount_minor, whole_balance, reference, requested_by, requested_at)
  ON buffer.payout TO buffer_payouts;
GRANT UPDATE (
  state, payout_batch_id, destination_id, sent_at, paid_at, returned_at, return_reason, cancelled_by,
  cancellation_reason, cancelled_at
) ON buffer.payout TO CURRENT_USER;
GRANT UPDATE (state, payout_batch_id, destination_id, cancelled_by, cancellation_reason, cancelled_at)
  ON buffer.payout TO buffer_platform;
GRANT UPDATE (
  state, payout_batch_id, destination_id, sent_at, paid_at, returned_at, return_reason, cancelled_by,
  cancellation_reason, cancelled_at
) ON buffer.payout TO buffer_payouts;
GRANT UPDATE (
  state, payouts, amount_minor, approved_by, approved_at, sent_by, sent_at, cancelled_by, cancellation_reason,
  cancelled_at
) ON buffer.payout_batch TO CURRENT_USER;
GRANT UPDATE (state, payouts, amount_minor, cancelled_by, cancellation_reason, cancelled_at)
  ON buffer.payout_batch TO buffer_platform;
GRANT INSERT (currency, method, payouts, amount_minor, four_eyes, made_by, made_at),
  UPDATE (
    state, payouts, amount_minor, approved_by, approved_at, sent_by, sent_at, cancelled_by,
    cancellation_reason, cancelled_at
  )
  ON buffer.payout_batch TO buffer_payouts;
GRANT INSERT (
  payout_batch_id, digest, imported_by, imported_at, paid, returned, unknown, differing, conflicting
)
  ON buffer.payout_status_file TO buffer_payouts;
GRANT INSERT (payout_batch_id, number, format, digest, exported_by, exported_at)
  ON buffer.payout_export TO buffer_payouts;
"""

# A destination waits because it is new, so it is not dated back. The platform takes a payout back only before
# it is sent: it may neither send a batch nor report one.
POLICIES: Final = """
ALTER TABLE buffer.payout_destination ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.payout_destination FOR SELECT USING (true);
CREATE POLICY platform_adds ON buffer.payout_destination FOR INSERT TO buffer_platform
WITH CHECK (
  set_at BETWEEN clock_timestamp() - interval '1 hour' AND clock_timestamp() + interval '1 day'
);
ALTER TABLE buffer.payout_schedule ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.payout_schedule FOR SELECT USING (true);
CREATE POLICY platform_adds ON buffer.payout_schedule FOR INSERT TO buffer_platform
WITH CHECK (set_at <= clock_timestamp() + interval '1 day');
ALTER TABLE buffer.payout ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.payout FOR SELECT USING (true);
CREATE POLICY payouts_are_requested ON buffer.payout FOR INSERT TO buffer_platform, buffer_payouts
WITH CHECK (requested_at <= clock_timestamp() + interval '1 day');
CREATE POLICY platform_cancels ON buffer.payout FOR UPDATE TO buffer_platform
USING (true)
WITH CHECK (state = 'CANCELLED' AND cancelled_at <= clock_timestamp() + interval '1 day');
CREATE POLICY payouts_moves_on ON buffer.payout FOR UPDATE TO buffer_payouts
USING (true)
WITH CHECK (
  greatest(sent_at, paid_at, returned_at, requested_at, cancelled_at) <= clock_timestamp() + interval '1 day'
);
ALTER TABLE buffer.payout_batch ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.payout_batch FOR SELECT USING (true);
CREATE POLICY payouts_adds ON buffer.payout_batch FOR INSERT TO buffer_payouts
WITH CHECK (made_at <= clock_timestamp() + interval '1 day');
CREATE POLICY platform_takes_out ON buffer.payout_batch FOR UPDATE TO buffer_platform
USING (true)
WITH CHECK (
  state <> 'SENT' AND (cancelled_at IS NULL OR cancelled_at <= clock_timestamp() + interval '1 day')
);
CREATE POLICY payouts_decides ON buffer.payout_batch FOR UPDATE TO buffer_payouts
USING (true)
WITH CHECK (
  greatest(approved_at, sent_at, cancelled_at, made_at) <= clock_timestamp() + interval '1 day'
);
ALTER TABLE buffer.payout_status_file ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.payout_status_file FOR SELECT USING (true);
CREATE POLICY payouts_adds ON buffer.payout_status_file FOR INSERT TO buffer_payouts
WITH CHECK (imported_at <= clock_timestamp() + interval '1 day');
ALTER TABLE buffer.payout_export ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.payout_export FOR SELECT USING (true);
CREATE POLICY payouts_adds ON buffer.payout_export FOR INSERT TO buffer_payouts
WITH CHECK (exported_at <= clock_timestamp() + interval '1 day');
"""
