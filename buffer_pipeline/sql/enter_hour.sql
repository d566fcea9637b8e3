-- Marks the hour of :now as being written until the transaction ends; waits for nobody.
SELECT buffer.enter_hour(CAST(:now AS timestamptz)) AS entered
