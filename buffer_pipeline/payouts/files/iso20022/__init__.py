"""The messages of ISO 20022: pain.001 is written; pain.002 and camt.054 are read."""

from buffer_pipeline.extras import need

need("payouts", "lxml")
