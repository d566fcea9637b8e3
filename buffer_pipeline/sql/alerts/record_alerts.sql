-- Remembers that operators were told of :subjects in :period; how many of them had not been.
WITH
recorded AS (
  INSERT INTO buffer.alert (kind, subject, period, sent_at)
  SELECT
    :kind,
    subject,
    CAST(:period AS timestamptz),
    CAST(:now AS timestamptz)
  FROM unnest(CAST(:subjects AS text[])) AS subject
  ON CONFLICT (kind, period, subject) DO NOTHING
  RETURNING subject
)

SELECT count(*) AS recorded FROM recorded
