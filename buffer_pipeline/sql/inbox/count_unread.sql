-- How many messages of an owner are unread.
SELECT count(*) AS unread
FROM buffer.inbox_message
WHERE owner = :owner AND read_at IS NULL
