-- Adds a key, of which only the digest is stored. No row if a key of that name is there already.
INSERT INTO buffer.api_key (name, role, digest, made_at, expires_at)
VALUES (
  CAST(:key_name AS text), CAST(:role AS text), CAST(:digest AS bytea), CAST(:now AS timestamptz),
  CAST(:expires_at AS timestamptz)
)
ON CONFLICT (name) DO NOTHING
RETURNING api_key_id
