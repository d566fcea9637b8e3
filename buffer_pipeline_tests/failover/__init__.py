"""The books on a replicated cluster whose nodes fail, under load.

    uv run python -m buffer_pipeline_tests.failover --rounds 15

Three nodes of PostgreSQL 15 run under Patroni, etcd and HAProxy, each in its own network namespace
(`rig.py`),
which only root can create. In each round, the actors and a releaser of the stress test work on the books
through
HAProxy while one fault happens (`faults.py`). When the cluster is whole again, everything is compared with
the
oracle (`rounds.py`): each acknowledged write must be in the new primary's books, and nothing may be settled
twice.
"""
