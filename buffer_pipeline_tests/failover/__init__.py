"""The books on a replicated cluster whose nodes fail, under load.

    uv run python -m buffer_pipeline_tests.failover --rounds 15

Three nodes of PostgreSQL 15 under Patroni, etcd and HAProxy, each in a network namespace of its own
(`rig.py`), which root alone may make. In each round the actors and a releaser of the stress test work on the
same books through HAProxy, one fault comes (`faults.py`), and when the cluster is whole again everything is
compared with the oracle (`rounds.py`): each acknowledged write must be in the new primary's books, nothing
settled twice.
"""
