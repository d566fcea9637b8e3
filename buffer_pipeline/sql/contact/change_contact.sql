-- Writes the parts of one owner's contact that the changes_ flags name over those that were there, and keeps
-- the rest; makes a contact where there is none.
INSERT INTO buffer.contact (owner, locale, time_zone, email, updated_at)
VALUES (
  :owner, CAST(:locale AS text), CAST(:time_zone AS text), CAST(:email AS text), CAST(:now AS timestamptz)
)
ON CONFLICT (owner) DO UPDATE
SET
  locale = CASE WHEN :changes_locale THEN excluded.locale ELSE contact.locale END,
  time_zone = CASE WHEN :changes_time_zone THEN excluded.time_zone ELSE contact.time_zone END,
  email = CASE WHEN :changes_email THEN excluded.email ELSE contact.email END,
  updated_at = excluded.updated_at
RETURNING owner, locale, time_zone, email
