"""The message of each sensor's tick: what the sensor found, and whether operators were alerted."""

from collections.abc import Sequence

from buffer_pipeline.monitoring.alerts import outcome_of, stuck_payouts_text
from buffer_pipeline.notifications.sanitize import counted

_SAME = ", the same as before"


def stuck_message(
    *,
    holds: int,
    unreported_holds: int,
    after_hours: int,
    has_changed: bool,
    sent: bool | None,
    urls: Sequence[str],
) -> str:
    """Return the message about stuck payments.

    `unreported_holds` of the `holds` were not in an alert of today before this tick. `sent` is None
    without an alert in this tick.
    """
    if not holds:
        return f"no payment has been frozen for more than {after_hours} hours"
    outcome = "already reported today" if sent is None else outcome_of(sent=sent, urls=urls)
    if sent is not None and unreported_holds < holds:
        outcome = f"{unreported_holds} of them {outcome}"
    fact = f"{counted(holds, 'payment')} frozen for more than {after_hours} hours"
    return f"{fact}{'' if has_changed else _SAME}; {outcome}"


def overdue_message(*, holds: int, has_changed: bool, sent: bool | None, urls: Sequence[str]) -> str:
    """Return the message about overdue payments. `sent` is None without an alert in this tick."""
    if not holds:
        return "no payment has been due for more than an hour"
    outcome = "already reported this hour" if sent is None else outcome_of(sent=sent, urls=urls)
    fact = f"{counted(holds, 'payment')} due for more than an hour and not released"
    return f"{fact}{'' if has_changed else _SAME}; {outcome}"


def stuck_payouts_message(
    *, batches: int, payouts: int, unreported: int, has_changed: bool, sent: bool | None, urls: Sequence[str]
) -> str:
    """Return the message about stuck batches of payouts, and payouts that no batch takes.

    `unreported` of them were not in an alert of today before this tick. `sent` is None without an alert in
    this tick.
    """
    if not batches + payouts:
        return "no payout waits for too long"
    outcome = "already reported today" if sent is None else outcome_of(sent=sent, urls=urls)
    if sent is not None and unreported < batches + payouts:
        outcome = f"{unreported} of them {outcome}"
    fact = f"{stuck_payouts_text(batches=batches, payouts=payouts)} stuck"
    return f"{fact}{'' if has_changed else _SAME}; {outcome}"


def failed_checks_message(
    *, failed_checks: int, new_checks: int, sent: bool | None, urls: Sequence[str]
) -> str:
    """Return the message about failed checks, `new_checks` of which are in this tick's alert."""
    if not failed_checks:
        return "no check has failed"
    if sent is None:
        return f"{counted(failed_checks, 'failed check')}, already reported"
    return f"{counted(new_checks, 'failed check')} {outcome_of(sent=sent, urls=urls)}"


def failed_runs_message(
    *,
    failed_ids: Sequence[str],
    retried_ids: Sequence[str],
    sent: bool | None,
    urls: Sequence[str],
    dagster_url: str,
) -> str:
    """Return the message about failed runs, and about those that Dagster retries."""
    facts = []
    if sent is not None:
        facts.append(
            f"{counted(len(failed_ids), 'failed run')} {outcome_of(sent=sent, urls=urls)}:"
            f" {dagster_url}/runs/{failed_ids[0]}"
        )
    if retried_ids:
        facts.append(
            f"{counted(len(retried_ids), 'failed run')} retried by Dagster itself, whose last attempt is"
            f" reported: {dagster_url}/runs/{retried_ids[0]}"
        )
    return "; ".join(facts) or "no run has failed since the last tick"


def sending_already_message(run_id: str) -> str:
    """Return the message of a tick during a run that sends notifications."""
    return f"run {run_id} is sending already"


def released_first_message(run_id: str) -> str:
    """Return the message of a tick during a release."""
    return f"run {run_id} releases, and sends once its checks have passed"


def held_back_message(failed_checks: Sequence[str]) -> str:
    """Return the message of a tick while checks of a release have failed."""
    return f"{', '.join(failed_checks)}: failed; nothing is sent until a release passes this"


def left_message(run_id: str, *, seconds: int) -> str:
    """Return the message about deliveries that the latest run left, until `seconds` after its end."""
    return (
        f"run {run_id} left what is due, because a receiver did not answer or the run's time was over;"
        f" it is tried again {seconds} seconds after the end of that run"
    )
