"""The books under random load, compared with an oracle in plain Python.

    uv run python -m buffer_pipeline_tests.stress --minutes 10 --seed 7 --threads 8

A run is a series of rounds, each on fresh books (`rounds.py`). In a round, actors run transactions of random
verbs
(`actors.py`, `verbs.py`), two threads release what is due (`releasing.py`), and a watcher kills sessions and
looks
for releases that keep their locks (`watcher.py`). Every few seconds all of them pause: the oracle
(`oracle.py`)
applies the committed answers, and the books are compared with it (`books.py`). At the end of a round, a
release runs
while other transactions keep wallets locked (`stall.py`), and then one that must release everything not
frozen.
"""
