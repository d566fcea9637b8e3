"""Which database errors a platform must expect, and which are findings."""

import re
import time
from typing import Final

import psycopg

from buffer_pipeline_tests.stress.record import Kind, Trail
from buffer_pipeline_tests.stress.sessions import DEADLOCK, LOCK_NOT_AVAILABLE, SERIALIZATION_FAILURE, is_lost
from buffer_pipeline_tests.stress.stage import Round
from buffer_pipeline_tests.stress.transactions import Transaction

RECONNECT_SECONDS: Final = 0.2


def may_run_again(
    round_: Round,
    trail: Trail,
    error: psycopg.Error,
    *,
    transaction: Transaction | None,
    lock_timeout: bool = False,
) -> bool:
    """Return True if a transaction with this error should be retried. Unexpected errors are findings."""
    state, kind = error.sqlstate, transaction.attempt.kind if transaction else Kind.NOTES
    trail.note(f"error: {state} {error}")
    if is_lost(error):
        round_.tally.count("session killed")
        if round_.servers_fail:
            time.sleep(RECONNECT_SECONDS)
        elif transaction is not None and transaction.session.pid not in round_.ground.presence.killed:
            round_.findings.add("session lost that nobody killed", f"{trail.name}: {error}", who=trail.name)
        return False
    round_.tally.count(f"sqlstate {state}")
    if lock_timeout and state == LOCK_NOT_AVAILABLE:
        return False
    if state in {DEADLOCK, SERIALIZATION_FAILURE} and kind is Kind.SEVERAL:
        return True
    if state == DEADLOCK and (others := _took_locks_in_another_order(round_, error)):
        trail.note(f"deadlock with {', '.join(others)}")
        return True
    found = "deadlock of single verbs" if state == DEADLOCK else f"sqlstate {state}"
    facts = f"{error} {error.diag.message_detail or ''} {error.diag.context or ''}"
    round_.findings.add(found, f"{trail.name}: {facts}", who=trail.name)
    return state in {DEADLOCK, SERIALIZATION_FAILURE}


def _took_locks_in_another_order(round_: Round, error: psycopg.Error) -> list[str]:
    """Return the sessions of a deadlock that may have caused it: those with several verbs in a
    transaction.
    """
    pids = {int(pid) for pid in re.findall(r"[Pp]rocess (\d+)", error.diag.message_detail or "")}
    # They were in it when PostgreSQL checked, a moment ago.
    since = time.monotonic() - 0.5
    return [
        f"{attempt.actor} ({attempt.kind})"
        for pid in pids
        for attempt in round_.ground.presence.during(pid, since=since)
        if attempt.kind is Kind.SEVERAL
    ]
