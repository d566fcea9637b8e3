"""Files for banks and providers: a batch is written as a file, and a status file is read.

A format is an entry point of the group `buffer_pipeline.payout_exports` or `buffer_pipeline.payout_statuses`.
"""
