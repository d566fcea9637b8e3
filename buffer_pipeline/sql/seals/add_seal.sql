-- Adds one link to the chain.
INSERT INTO buffer.seal (
  seal_id, first_id, through_id, lines, transaction_ids, line_digests, digest, sealed_at
)
VALUES (
  :seal_id, :first_id, :through_id, :lines, CAST(:transaction_ids AS bigint []), :line_digests, :digest,
  buffer.clock()
)
RETURNING seal_id
