-- Whether any earning has shares. max() finds it by the index of shares, whatever the planner expects.
SELECT max(earning_id) IS NOT NULL AS has_shares
FROM buffer.hold
