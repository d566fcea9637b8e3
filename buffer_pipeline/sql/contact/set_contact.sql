-- Writes one owner's contact, whole, over the one that was there.
INSERT INTO buffer.contact (owner, locale, time_zone, email, updated_at)
VALUES (
  :owner, CAST(:locale AS text), CAST(:time_zone AS text), CAST(:email AS text), CAST(:now AS timestamptz)
)
ON CONFLICT (owner) DO UPDATE
SET
  locale = excluded.locale,
  time_zone = excluded.time_zone,
  email = excluded.email,
  updated_at = excluded.updated_at
RETURNING owner
