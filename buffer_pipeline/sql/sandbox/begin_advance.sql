-- Records where an advance begins and where it goes, so that it can go on after it was cut short.
UPDATE buffer.sandbox
SET advance_from = CAST(:advance_from AS timestamptz), advance_to = CAST(:advance_to AS timestamptz)
RETURNING sandbox.now
