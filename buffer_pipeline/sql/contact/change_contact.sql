-- Changes the parts of an owner's contact that the changes_ flags name, and :notify_of_shares if it is given, and keeps the others. Makes the
-- contact if there is none.
INSERT INTO buffer.contact (owner, locale, time_zone, email, notify_of_shares, updated_at)
VALUES (
  :owner, CAST(:locale AS text), CAST(:time_zone AS text), CAST(:email AS text),
  coalesce(CAST(:notify_of_shares AS boolean), FALSE), CAST(:now AS timestamptz)
)
ON CONFLICT (owner) DO UPDATE
SET
  locale = CASE WHEN :changes_locale THEN excluded.locale ELSE contact.locale END,
  time_zone = CASE WHEN :changes_time_zone THEN excluded.time_zone ELSE contact.time_zone END,
  email = CASE WHEN :changes_email THEN excluded.email ELSE contact.email END,
  notify_of_shares = coalesce(CAST(:notify_of_shares AS boolean), contact.notify_of_shares),
  updated_at = excluded.updated_at
RETURNING owner, locale, time_zone, email, notify_of_shares
