-- The number of these books in the ids of bank files. One row, which never changes. Reads only.
SELECT books_number
FROM buffer.payout_ids
