"""The tables of payouts, for revision 0025."""

from typing import Final

# The newest version of an owner counts. The account is never changed and never shown: `masked` is.
DESTINATIONS: Final = """
CREATE TABLE buffer.payout_destination (
  destination_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT payout_destination_pkey PRIMARY KEY,
  owner text NOT NULL,
  version bigint NOT NULL,
  method text NOT NULL,
  account text NOT NULL,
  masked text NOT NULL,
  holder_name text,
  set_by text NOT NULL,
  reason text NOT NULL,
  set_at timestamptz NOT NULL,
  CONSTRAINT payout_destination_version_key UNIQUE (owner, version),
  CONSTRAINT payout_destination_owner_length CHECK (length(owner) BETWEEN 1 AND 200),
  CONSTRAINT payout_destination_version_is_positive CHECK (version > 0),
  CONSTRAINT payout_destination_method_is_known CHECK (method IN ('IBAN', 'TOKEN')),
  CONSTRAINT payout_destination_account_length CHECK (length(account) BETWEEN 1 AND 200),
  CONSTRAINT payout_destination_iban_has_its_form
    CHECK (method <> 'IBAN' OR account ~ '^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$'),
  CONSTRAINT payout_destination_masked_hides_the_account
    CHECK (masked <> '' AND length(masked) <= 10 AND masked <> account),
  CONSTRAINT payout_destination_iban_names_its_holder CHECK (method <> 'IBAN' OR holder_name IS NOT NULL),
  CONSTRAINT payout_destination_holder_name_length CHECK (length(holder_name) BETWEEN 1 AND 140),
  CONSTRAINT payout_destination_says_who_and_why CHECK (set_by <> '' AND reason <> '')
);
-- For the audit trail, as the other indexes on a time, or on a person and a time.
CREATE INDEX payout_destination_set_at_idx ON buffer.payout_destination (set_at);
CREATE INDEX payout_destination_set_by_idx ON buffer.payout_destination (set_by, set_at);
CREATE TRIGGER payout_destination_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.payout_destination
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();

CREATE TABLE buffer.payout_schedule (
  owner text NOT NULL,
  number bigint NOT NULL,
  schedule text NOT NULL,
  set_by text NOT NULL,
  reason text NOT NULL,
  set_at timestamptz NOT NULL,
  CONSTRAINT payout_schedule_pkey PRIMARY KEY (owner, number),
  CONSTRAINT payout_schedule_owner_length CHECK (length(owner) BETWEEN 1 AND 200),
  CONSTRAINT payout_schedule_number_is_positive CHECK (number > 0),
  CONSTRAINT payout_schedule_is_known CHECK (schedule IN ('MANUAL', 'DAILY', 'WEEKLY', 'MONTHLY')),
  CONSTRAINT payout_schedule_says_who_and_why CHECK (set_by <> '' AND reason <> '')
);
CREATE INDEX payout_schedule_set_at_idx ON buffer.payout_schedule (set_at);
CREATE INDEX payout_schedule_set_by_idx ON buffer.payout_schedule (set_by, set_at);
CREATE TRIGGER payout_schedule_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.payout_schedule
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
"""

# One row, random, so that two sets of books at one bank never send the same id. It never changes.
IDS: Final = """
CREATE TABLE buffer.payout_ids (
  books_number bigint CONSTRAINT payout_ids_pkey PRIMARY KEY,
  CONSTRAINT payout_ids_books_number_has_eight_digits CHECK (books_number BETWEEN 10000000 AND 99999999)
);
INSERT INTO buffer.payout_ids (books_number)
SELECT 10000000 + abs(hashtextextended(CAST(gen_random_uuid() AS text), 0) % 90000000);
CREATE TRIGGER payout_ids_are_kept BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON buffer.payout_ids
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
"""

BATCHES: Final = """
CREATE TABLE buffer.payout_batch (
  payout_batch_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT payout_batch_pkey PRIMARY KEY,
  currency text NOT NULL CONSTRAINT payout_batch_currency_fkey REFERENCES buffer.currency (currency),
  method text NOT NULL,
  state text NOT NULL DEFAULT 'MADE',
  payouts bigint NOT NULL,
  amount_minor bigint NOT NULL,
  four_eyes boolean NOT NULL,
  made_by text NOT NULL,
  made_at timestamptz NOT NULL,
  approved_by text,
  approved_at timestamptz,
  sent_by text,
  sent_at timestamptz,
  cancelled_by text,
  cancellation_reason text,
  cancelled_at timestamptz,
  CONSTRAINT payout_batch_currency_key UNIQUE (payout_batch_id, currency),
  CONSTRAINT payout_batch_method_is_known CHECK (method IN ('IBAN', 'TOKEN')),
  CONSTRAINT payout_batch_state_is_known CHECK (state IN ('MADE', 'APPROVED', 'SENT', 'CANCELLED')),
  CONSTRAINT payout_batch_has_payouts CHECK (payouts > 0 AND amount_minor >= payouts),
  CONSTRAINT payout_batch_approved_whole_or_not_at_all CHECK ((approved_at IS NULL) = (approved_by IS NULL)),
  CONSTRAINT payout_batch_approved_iff_past_it CHECK (
    (state <> 'MADE' OR approved_at IS NULL) AND (state NOT IN ('APPROVED', 'SENT') OR approved_at IS NOT NULL)
  ),
  CONSTRAINT payout_batch_sent_iff_sent
    CHECK ((state = 'SENT') = (sent_at IS NOT NULL) AND (sent_at IS NULL) = (sent_by IS NULL)),
  CONSTRAINT payout_batch_cancelled_iff_cancelled CHECK (
    (state = 'CANCELLED') = (cancelled_at IS NOT NULL)
    AND (cancelled_at IS NULL) = (cancelled_by IS NULL)
    AND (cancelled_at IS NULL) = (cancellation_reason IS NULL)
  ),
  CONSTRAINT payout_batch_approved_by_somebody_else CHECK (NOT four_eyes OR approved_by <> made_by),
  CONSTRAINT payout_batch_says_who_and_why CHECK (
    made_by <> '' AND approved_by <> '' AND sent_by <> '' AND cancelled_by <> '' AND cancellation_reason <> ''
  )
);
CREATE INDEX payout_batch_made_at_idx ON buffer.payout_batch (made_at);
CREATE INDEX payout_batch_open_idx ON buffer.payout_batch (made_at) WHERE state IN ('MADE', 'APPROVED');
-- What was decided stays. An update that changes nothing passes, and so does one that takes a payout out of it.
CREATE TRIGGER payout_batch_moves_on BEFORE UPDATE ON buffer.payout_batch
FOR EACH ROW WHEN (
  old.* IS DISTINCT FROM new.* AND (
    old.state IN ('SENT', 'CANCELLED')
    OR (
      old.state <> new.state AND (old.state, new.state) NOT IN (
        ('MADE', 'APPROVED'), ('APPROVED', 'SENT'), ('MADE', 'CANCELLED'), ('APPROVED', 'CANCELLED')
      )
    )
    OR (old.state <> new.state AND (old.payouts, old.amount_minor) IS DISTINCT FROM (new.payouts, new.amount_minor))
    OR new.payouts > old.payouts
    OR (old.payouts = new.payouts) <> (old.amount_minor = new.amount_minor)
    OR new.amount_minor > old.amount_minor
    OR (old.payout_batch_id, old.currency, old.method, old.four_eyes, old.made_by, old.made_at)
    IS DISTINCT FROM (new.payout_batch_id, new.currency, new.method, new.four_eyes, new.made_by, new.made_at)
    OR (
      old.approved_at IS NOT NULL
      AND (old.approved_by, old.approved_at) IS DISTINCT FROM (new.approved_by, new.approved_at)
    )
  )
) EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER payout_batch_is_kept BEFORE DELETE OR TRUNCATE ON buffer.payout_batch
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();

CREATE TABLE buffer.payout_status_file (
  payout_batch_id bigint NOT NULL
    CONSTRAINT payout_status_file_batch_fkey REFERENCES buffer.payout_batch (payout_batch_id),
  digest bytea NOT NULL,
  imported_by text NOT NULL,
  imported_at timestamptz NOT NULL,
  paid bigint NOT NULL,
  returned bigint NOT NULL,
  unknown text [] NOT NULL,
  differing text [] NOT NULL,
  conflicting text [] NOT NULL,
  CONSTRAINT payout_status_file_pkey PRIMARY KEY (payout_batch_id, digest),
  CONSTRAINT payout_status_file_digest_length CHECK (length(digest) = 32),
  CONSTRAINT payout_status_file_says_who CHECK (imported_by <> ''),
  CONSTRAINT payout_status_file_counts_not_negative CHECK (least(paid, returned) >= 0)
);
CREATE TRIGGER payout_status_file_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.payout_status_file
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();

CREATE TABLE buffer.payout_export (
  payout_batch_id bigint NOT NULL
    CONSTRAINT payout_export_batch_fkey REFERENCES buffer.payout_batch (payout_batch_id),
  number bigint NOT NULL,
  format text NOT NULL,
  digest bytea NOT NULL,
  exported_by text NOT NULL,
  exported_at timestamptz NOT NULL,
  CONSTRAINT payout_export_pkey PRIMARY KEY (payout_batch_id, number),
  CONSTRAINT payout_export_number_is_positive CHECK (number > 0),
  CONSTRAINT payout_export_format_length CHECK (length(format) BETWEEN 1 AND 100),
  CONSTRAINT payout_export_digest_length CHECK (length(digest) = 32),
  CONSTRAINT payout_export_says_who CHECK (exported_by <> '')
);
CREATE TRIGGER payout_export_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.payout_export
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
"""

PAYOUTS: Final = """
CREATE TABLE buffer.payout (
  payout_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT payout_pkey PRIMARY KEY,
  wallet_id bigint NOT NULL,
  currency text NOT NULL,
  amount_minor bigint NOT NULL,
  whole_balance boolean NOT NULL,
  state text NOT NULL DEFAULT 'REQUESTED',
  reference text NOT NULL CONSTRAINT payout_reference_key UNIQUE,
  requested_by text NOT NULL,
  requested_at timestamptz NOT NULL,
  override_reason text,
  payout_batch_id bigint,
  destination_id bigint
    CONSTRAINT payout_destination_fkey REFERENCES buffer.payout_destination (destination_id),
  sent_at timestamptz,
  paid_at timestamptz,
  returned_at timestamptz,
  return_reason text,
  cancelled_by text,
  cancellation_reason text,
  cancelled_at timestamptz,
  CONSTRAINT payout_wallet_fkey FOREIGN KEY (wallet_id, currency) REFERENCES buffer.wallet (wallet_id, currency),
  CONSTRAINT payout_batch_fkey FOREIGN KEY (payout_batch_id, currency)
    REFERENCES buffer.payout_batch (payout_batch_id, currency),
  CONSTRAINT payout_amount_in_range CHECK (amount_minor BETWEEN 1 AND 1000000000000000),
  CONSTRAINT payout_reference_length CHECK (length(reference) BETWEEN 1 AND 200),
  CONSTRAINT payout_state_is_known
    CHECK (state IN ('REQUESTED', 'BATCHED', 'SENT', 'PAID', 'RETURNED', 'CANCELLED')),
  CONSTRAINT payout_batch_and_destination_iff_batched CHECK (
    (state IN ('BATCHED', 'SENT', 'PAID', 'RETURNED')) = (payout_batch_id IS NOT NULL)
    AND (payout_batch_id IS NULL) = (destination_id IS NULL)
  ),
  CONSTRAINT payout_sent_at_iff_sent CHECK ((state IN ('SENT', 'PAID', 'RETURNED')) = (sent_at IS NOT NULL)),
  CONSTRAINT payout_paid_at_iff_paid CHECK (
    (state <> 'PAID' OR paid_at IS NOT NULL) AND (paid_at IS NULL OR state IN ('PAID', 'RETURNED'))
  ),
  CONSTRAINT payout_returned_iff_returned CHECK (
    (state = 'RETURNED') = (returned_at IS NOT NULL) AND (returned_at IS NULL) = (return_reason IS NULL)
  ),
  CONSTRAINT payout_return_reason_length CHECK (length(return_reason) BETWEEN 1 AND 500),
  CONSTRAINT payout_cancelled_iff_cancelled CHECK (
    (state = 'CANCELLED') = (cancelled_at IS NOT NULL)
    AND (cancelled_at IS NULL) = (cancelled_by IS NULL)
    AND (cancelled_at IS NULL) = (cancellation_reason IS NULL)
  ),
  CONSTRAINT payout_says_who_and_why CHECK (
    requested_by <> '' AND override_reason <> '' AND cancelled_by <> '' AND cancellation_reason <> ''
  )
);
CREATE INDEX payout_wallet_idx ON buffer.payout (wallet_id, payout_id);
CREATE INDEX payout_batch_idx ON buffer.payout (payout_batch_id, payout_id) WHERE payout_batch_id IS NOT NULL;
CREATE INDEX payout_requested_idx ON buffer.payout (currency, payout_id) WHERE state = 'REQUESTED';
CREATE INDEX payout_sent_idx ON buffer.payout (sent_at) WHERE state = 'SENT';
CREATE INDEX payout_requested_at_idx ON buffer.payout (requested_at);
CREATE INDEX payout_requested_by_idx ON buffer.payout (requested_by, requested_at);
CREATE INDEX payout_cancelled_at_idx ON buffer.payout (cancelled_at) WHERE cancelled_at IS NOT NULL;
CREATE INDEX payout_cancelled_by_idx ON buffer.payout (cancelled_by, cancelled_at) WHERE cancelled_at IS NOT NULL;
-- What was asked for never changes, and neither does a row without its state.
CREATE TRIGGER payout_moves_on BEFORE UPDATE ON buffer.payout
FOR EACH ROW WHEN (
  old.* IS DISTINCT FROM new.* AND (
    (old.state, new.state) NOT IN (
      ('REQUESTED', 'BATCHED'), ('REQUESTED', 'CANCELLED'), ('BATCHED', 'REQUESTED'), ('BATCHED', 'CANCELLED'),
      ('BATCHED', 'SENT'), ('SENT', 'PAID'), ('SENT', 'RETURNED'), ('PAID', 'RETURNED')
    )
    OR (
      old.payout_id, old.wallet_id, old.currency, old.amount_minor, old.whole_balance, old.reference,
      old.requested_by, old.requested_at, old.override_reason
    ) IS DISTINCT FROM (
      new.payout_id, new.wallet_id, new.currency, new.amount_minor, new.whole_balance, new.reference,
      new.requested_by, new.requested_at, new.override_reason
    )
    OR (
      new.state IN ('SENT', 'PAID', 'RETURNED')
      AND (old.payout_batch_id, old.destination_id) IS DISTINCT FROM (new.payout_batch_id, new.destination_id)
    )
    OR (old.sent_at IS NOT NULL AND old.sent_at IS DISTINCT FROM new.sent_at)
    OR (old.paid_at IS NOT NULL AND old.paid_at IS DISTINCT FROM new.paid_at)
  )
) EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER payout_is_kept BEFORE DELETE OR TRUNCATE ON buffer.payout
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
"""
