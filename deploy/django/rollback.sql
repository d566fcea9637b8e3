-- Goes back to the Django application: writes what happened in the books since the import into Django's tables.
--   psql "$DJANGO_URL" --file deploy/django/rollback.sql
-- Run it with a login that owns both schemas, after the release, the platform's verbs and the old command were
-- stopped. It writes everything or nothing, and a second run changes nothing. It is for books whose import was
-- --strict: if a wallet, a payment or a balance differs from the books at the end, it names the difference and writes
-- nothing.
-- Django's tables cannot express everything. A job has one release date: the latest of the holds that still wait. A
-- freeze of one hold becomes a freeze of its job, and covers the other holds too. RISK freezes become ADMIN_HOLD.
-- Withdrawals and deposits become lines of these types.
\set ON_ERROR_STOP on
-- One snapshot of the books.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL timezone = 'UTC';
LOCK TABLE public.accounts_transaction, public.accounts_wallet, public.jobs, public.job_disputes IN EXCLUSIVE MODE;

-- The current state of each hold, with Django's ids.
CREATE TEMPORARY TABLE standing ON COMMIT DROP AS
SELECT
  hold.hold_id,
  hold.reference,
  job."jobID" AS job_id,
  hold.job,
  hold.title,
  payee.owner AS payee,
  payer.owner AS payer,
  job."clientAccountID"::text AS client,
  wallet."walletID" AS wallet_id,
  hold.currency,
  hold.state,
  (coalesce(unsettled.amount_minor, earning.amount_minor, hold.amount_minor) / 100.0)::numeric(12, 2) AS amount,
  hold.held_at,
  hold.release_date,
  hold.settled_at
FROM buffer.hold_status AS hold
JOIN buffer.wallet AS payee ON payee.wallet_id = hold.payee_wallet_id
JOIN buffer.wallet AS payer ON payer.wallet_id = hold.payer_wallet_id
LEFT JOIN buffer.unsettled_hold AS unsettled ON unsettled.hold_id = hold.hold_id
LEFT JOIN buffer.transaction AS earning ON earning.hold_id = hold.hold_id AND earning.type = 'EARNING'
LEFT JOIN public.jobs AS job ON job."jobID"::text = hold.job
LEFT JOIN public.accounts_wallet AS wallet ON wallet."accountFK_id"::text = payee.owner;
ANALYZE standing;

-- Payments that wait in Django's tables and that the import has left out.
CREATE TEMPORARY TABLE left_out ON COMMIT DROP AS
SELECT there."walletID_id" AS wallet_id, there."relatedJobPosting_id" AS job_id, there.amount
FROM public.accounts_transaction AS there
WHERE
  (there."transactionType", there.status) = ('PENDING_EARNING', 'PENDING')
  AND NOT EXISTS (SELECT FROM standing WHERE standing.reference = there."referenceNumber");

-- Each line that changed a balance since the import, without those that Django already has.
CREATE TEMPORARY TABLE line ON COMMIT DROP AS
SELECT
  moved.transaction_id,
  moved.type,
  moved.currency,
  owner.owner,
  wallet."walletID" AS wallet_id,
  -- With the time, because the ids of other books, after a second switch, start at one again.
  CASE moved.type
    WHEN 'EARNING' THEN hold.reference
    ELSE format('BUFFER-%s-%s', moved.transaction_id, to_char(moved.recorded_at, 'YYYYMMDDHH24MISSUS'))
  END AS reference,
  (moved.amount_minor / 100.0)::numeric(12, 2) AS amount,
  CASE WHEN moved.to_account = 'BALANCE' THEN 1 ELSE -1 END AS sign,
  CASE moved.type
    WHEN 'EARNING' THEN 'Payment released for job: ' || hold.title
    WHEN 'REFUND' THEN 'Refund for ' || hold.title
    ELSE moved.reference
  END AS description,
  hold.job_id,
  moved.recorded_at,
  NULL::numeric(12, 2) AS balance_after
FROM buffer.transaction AS moved
JOIN buffer.wallet AS owner
  ON owner.wallet_id = CASE WHEN moved.to_account = 'BALANCE' THEN moved.to_wallet_id ELSE moved.from_wallet_id END
LEFT JOIN standing AS hold ON hold.hold_id = moved.hold_id
LEFT JOIN public.accounts_wallet AS wallet ON wallet."accountFK_id"::text = owner.owner
WHERE
  'BALANCE' IN (moved.from_account, moved.to_account)
  AND moved.type <> 'OPENING_BALANCE';

DELETE FROM line
USING public.accounts_transaction AS there
WHERE
  (there."referenceNumber", there."transactionType", there.status) = (line.reference, line.type, 'COMPLETED')
  AND (there."walletID_id", there.amount) = (line.wallet_id, line.amount);
ANALYZE line;

DO $$
DECLARE
  stray text;
BEGIN
  SELECT format('hold %s of %s, job %s of %s, in %s', hold_id, payee, job, payer, currency) INTO stray
  FROM standing
  WHERE wallet_id IS NULL OR job_id IS NULL OR payer <> client OR currency <> 'PHP'
  LIMIT 1;
  IF stray IS NULL THEN
    SELECT format('transaction %s of %s in %s', transaction_id, owner, currency) INTO stray
    FROM line
    WHERE wallet_id IS NULL OR currency <> 'PHP'
    LIMIT 1;
  END IF;
  IF stray IS NOT NULL THEN
    RAISE EXCEPTION '%: Django has no such wallet, or no such job of that client; nothing was written', stray;
  END IF;
  SELECT format('account %s: has %s wallets', wallet."accountFK_id", count(*)) INTO stray
  FROM public.accounts_wallet AS wallet
  WHERE wallet."accountFK_id"::text IN (SELECT payee FROM standing UNION SELECT owner FROM line)
  GROUP BY wallet."accountFK_id"
  HAVING count(*) > 1
  LIMIT 1;
  IF stray IS NOT NULL THEN
    RAISE EXCEPTION '% there; nothing was written', stray;
  END IF;
  SELECT format('hold %s, %s', hold.hold_id, hold.reference) INTO stray
  FROM standing AS hold
  JOIN public.accounts_transaction AS there
    ON
      (there."referenceNumber", there."transactionType", there.status)
      = (hold.reference, 'EARNING', 'COMPLETED')
      AND there."walletID_id" = hold.wallet_id
  WHERE hold.state <> 'RELEASED'
  LIMIT 1;
  IF stray IS NOT NULL THEN
    RAISE EXCEPTION '%: is released there, and not here; nothing was written', stray;
  END IF;
END $$;

UPDATE line
SET balance_after = running.balance_after
FROM (
  SELECT
    line.transaction_id,
    wallet.balance
    + sum(line.sign * line.amount) OVER (
      PARTITION BY line.wallet_id ORDER BY line.recorded_at, line.transaction_id
    ) AS balance_after
  FROM line
  JOIN public.accounts_wallet AS wallet ON wallet."walletID" = line.wallet_id
) AS running
WHERE line.transaction_id = running.transaction_id;

-- Payments that waited at the import: released, refunded, or still waiting, less what was refunded in part.
UPDATE public.accounts_transaction AS there
SET
  "transactionType" = 'EARNING',
  status = 'COMPLETED',
  amount = line.amount,
  "balanceAfter" = line.balance_after,
  description = line.description,
  "completedAt" = line.recorded_at
FROM line
WHERE
  line.type = 'EARNING'
  AND there."referenceNumber" = line.reference
  AND (there."transactionType", there.status) = ('PENDING_EARNING', 'PENDING');

UPDATE public.accounts_transaction AS there
SET status = CASE hold.state WHEN 'REFUNDED' THEN 'CANCELLED' ELSE there.status END, amount = hold.amount
FROM standing AS hold
WHERE
  hold.reference = there."referenceNumber"
  AND (there."transactionType", there.status) = ('PENDING_EARNING', 'PENDING')
  AND (hold.state = 'REFUNDED' OR hold.amount <> there.amount);

-- Payments that began in the books.
INSERT INTO public.accounts_transaction (
  "walletID_id", "transactionType", amount, "balanceAfter", status, description, "referenceNumber",
  "relatedJobPosting_id", "createdAt", "completedAt"
)
SELECT
  hold.wallet_id, 'PENDING_EARNING', hold.amount, wallet.balance,
  CASE hold.state WHEN 'REFUNDED' THEN 'CANCELLED' ELSE 'PENDING' END,
  'Pending payment for job: ' || hold.title, hold.reference, hold.job_id, hold.held_at, NULL
FROM standing AS hold
JOIN public.accounts_wallet AS wallet ON wallet."walletID" = hold.wallet_id
WHERE
  hold.state <> 'RELEASED'
  AND NOT EXISTS (
    SELECT FROM public.accounts_transaction AS there
    WHERE
      (there."referenceNumber", there."transactionType", there."walletID_id", there.amount)
      = (hold.reference, 'PENDING_EARNING', hold.wallet_id, hold.amount)
      -- A payment with this reference that was cancelled in Django long ago is another one.
      AND there.status = CASE hold.state WHEN 'REFUNDED' THEN 'CANCELLED' ELSE 'PENDING' END
  )
ORDER BY hold.hold_id;

INSERT INTO public.accounts_transaction (
  "walletID_id", "transactionType", amount, "balanceAfter", status, description, "referenceNumber",
  "relatedJobPosting_id", "createdAt", "completedAt"
)
SELECT
  line.wallet_id, line.type, line.amount, line.balance_after, 'COMPLETED', line.description, line.reference,
  line.job_id, line.recorded_at, line.recorded_at
FROM line
WHERE
  NOT EXISTS (
    SELECT FROM public.accounts_transaction AS there
    WHERE
      (there."referenceNumber", there."transactionType", there.status) = (line.reference, line.type, 'COMPLETED')
      AND (there."walletID_id", there.amount) = (line.wallet_id, line.amount)
  )
ORDER BY line.recorded_at, line.transaction_id;

UPDATE public.accounts_wallet AS wallet
SET balance = wallet.balance + moved.amount, "updatedAt" = clock_timestamp()
FROM (SELECT line.wallet_id, sum(line.sign * line.amount) AS amount FROM line GROUP BY line.wallet_id) AS moved
WHERE wallet."walletID" = moved.wallet_id;

UPDATE public.accounts_wallet AS wallet
SET "pendingEarnings" = waiting.amount, "updatedAt" = clock_timestamp()
FROM (
  SELECT
    own."walletID" AS wallet_id,
    coalesce(sum(there.amount), 0) AS amount
  FROM public.accounts_wallet AS own
  LEFT JOIN public.accounts_transaction AS there
    ON
      there."walletID_id" = own."walletID"
      AND (there."transactionType", there.status) = ('PENDING_EARNING', 'PENDING')
  GROUP BY own."walletID"
) AS waiting
WHERE
  wallet."walletID" = waiting.wallet_id
  AND wallet."pendingEarnings" <> waiting.amount
  AND wallet."accountFK_id"::text IN (SELECT payee FROM standing);

UPDATE public.jobs AS job
SET
  status = CASE WHEN of_job.waits = 0 AND of_job.released = 0 THEN 'CANCELLED' ELSE job.status END,
  "paymentReleaseDate" = of_job.release_date,
  "paymentReleasedToWorker" = (of_job.waits = 0 AND of_job.released > 0),
  "paymentReleasedAt" = CASE WHEN of_job.waits = 0 AND of_job.released > 0 THEN of_job.settled_at END,
  "paymentHeldReason" = CASE
    WHEN of_job.waits = 0 AND of_job.released > 0 THEN 'RELEASED'
    WHEN of_job.waits = 0 OR of_job.kept THEN 'ADMIN_HOLD'
    WHEN of_job.disputed THEN 'BACKJOB_PENDING'
    ELSE 'BUFFER_PERIOD'
  END
FROM (
  SELECT
    hold.job_id,
    count(*) FILTER (WHERE hold.state IN ('BUFFERED', 'FROZEN'))
    + (SELECT count(*) FROM left_out WHERE left_out.job_id = hold.job_id) AS waits,
    count(*) FILTER (WHERE hold.state = 'RELEASED') AS released,
    coalesce(
      max(hold.release_date) FILTER (WHERE hold.state IN ('BUFFERED', 'FROZEN')), max(hold.release_date)
    ) AS release_date,
    max(hold.settled_at) AS settled_at,
    coalesce(bool_or(stop.kind = 'BACKJOB'), false) AS disputed,
    coalesce(bool_or(stop.kind <> 'BACKJOB'), false) AS kept
  FROM standing AS hold
  LEFT JOIN buffer.hold_freeze AS stop ON stop.hold_id = hold.hold_id AND stop.closed_at IS NULL
  GROUP BY hold.job_id
) AS of_job
WHERE job."jobID" = of_job.job_id;

UPDATE public.job_disputes AS there
SET
  status = CASE backjob.state WHEN 'APPROVED' THEN 'RESOLVED' ELSE 'CLOSED' END,
  resolution = CASE backjob.state WHEN 'APPROVED' THEN 'FAVOR_CLIENT: refunded' END,
  "resolvedDate" = CASE backjob.state WHEN 'APPROVED' THEN backjob.decided_at END,
  "adminRejectedAt" = CASE backjob.state WHEN 'REJECTED' THEN backjob.decided_at END,
  "adminRejectionReason" = CASE backjob.state WHEN 'REJECTED' THEN backjob.decision_reason END
FROM buffer.backjob
WHERE
  backjob.reference = 'legacy-dispute-' || there."disputeID"
  AND backjob.state <> 'OPEN'
  AND there.status NOT IN ('RESOLVED', 'CLOSED');

INSERT INTO public.job_disputes (
  "jobID_id", "disputedBy", reason, description, status, "jobAmount", "disputedAmount", resolution,
  "resolvedDate", "openedDate", "adminRejectedAt", "adminRejectionReason"
)
SELECT
  job."jobID",
  'CLIENT',
  left(backjob.reason, 200),
  backjob.reason,
  CASE backjob.state WHEN 'OPEN' THEN 'OPEN' WHEN 'APPROVED' THEN 'RESOLVED' ELSE 'CLOSED' END,
  job.budget,
  coalesce((backjob.refunded_minor / 100.0)::numeric(12, 2), job.budget),
  CASE backjob.state WHEN 'APPROVED' THEN 'FAVOR_CLIENT: refunded' END,
  CASE backjob.state WHEN 'APPROVED' THEN backjob.decided_at END,
  backjob.requested_at,
  CASE backjob.state WHEN 'REJECTED' THEN backjob.decided_at END,
  CASE backjob.state WHEN 'REJECTED' THEN backjob.decision_reason END
FROM buffer.backjob
JOIN public.jobs AS job ON job."jobID"::text = backjob.job
WHERE
  (backjob.reference IS NULL OR backjob.reference NOT LIKE 'legacy-dispute-%')
  AND NOT EXISTS (
    SELECT FROM public.job_disputes AS there
    WHERE there."jobID_id" = job."jobID" AND there."openedDate" = backjob.requested_at
  )
ORDER BY backjob.backjob_id;

-- The moved wallets and payments must now equal the books. If not, Django's tables were written to since the import,
-- or the import left out something that was corrected elsewhere.
DO $$
DECLARE
  differs text;
BEGIN
  SELECT
    format(
      'wallet %s: balance %s and pending %s there, %s and %s here',
      there."walletID", there.balance, there."pendingEarnings", here.balance, here.pending
    )
  INTO differs
  FROM (
    SELECT
      wallet.owner,
      (wallet.balance_minor / 100.0)::numeric(12, 2) AS balance,
      (wallet.pending_earnings_minor / 100.0)::numeric(12, 2) AS pending
    FROM buffer.wallet
    WHERE wallet.currency = 'PHP'
  ) AS here
  JOIN public.accounts_wallet AS there ON there."accountFK_id"::text = here.owner
  LEFT JOIN (
    SELECT left_out.wallet_id, sum(left_out.amount) AS amount FROM left_out GROUP BY left_out.wallet_id
  ) AS left_out ON left_out.wallet_id = there."walletID"
  WHERE
    (there.balance, there."pendingEarnings") <> (here.balance, here.pending + coalesce(left_out.amount, 0))
    AND (
      here.owner IN (SELECT payee FROM standing)
      OR here.balance <> 0
      OR EXISTS (SELECT FROM line WHERE line.owner = here.owner)
    )
  LIMIT 1;
  IF differs IS NOT NULL THEN
    RAISE EXCEPTION '%; nothing was written', differs;
  END IF;
  SELECT format('hold %s, %s', hold.hold_id, hold.reference) INTO differs
  FROM standing AS hold
  LEFT JOIN public.accounts_transaction AS there
    ON
      (there."referenceNumber", there."transactionType", there.status, there."walletID_id", there.amount)
      = (hold.reference, 'PENDING_EARNING', 'PENDING', hold.wallet_id, hold.amount)
  WHERE hold.state IN ('BUFFERED', 'FROZEN')
  GROUP BY hold.hold_id, hold.reference
  HAVING count(there."transactionID") <> 1
  LIMIT 1;
  IF differs IS NOT NULL THEN
    RAISE EXCEPTION '%: does not wait there once; nothing was written', differs;
  END IF;
END $$;
COMMIT;
