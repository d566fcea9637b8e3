"""Alerts to operators: their texts, and sending them to the services of BUFFER_ALERT_URLS.

Each text is one message, whatever number of payments or runs it is about: how many, how much, then
the first of them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from buffer_pipeline.currencies import Places
from buffer_pipeline.money import format_amount
from buffer_pipeline.texts import counted

SECONDS_MAX: Final = 15.0
"""A tick of a sensor has 60 seconds, and sends one alert."""

LINES_MAX: Final = 20

NO_FREEZE: Final = "no open freeze"

_ALONE: Final = (
    " A payment frozen without an open freeze is an error in the books; docs/operations.md says how to"
    " release it."
)

TERMINAL_VARIABLE: Final = "BUFFER_DEV_TERMINAL"
"""The file that `dev` copies to its terminal. Between `dev` and its code server, and no setting."""

logger: Final = logging.getLogger("buffer_pipeline.alerts")


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One message, in plain text."""

    title: str
    body: str


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """A run that failed and will not be retried by itself; `error` is one line."""

    job: str
    error: str
    link: str


@dataclass(frozen=True, kw_only=True)
class FailedCheck:
    """A check whose latest evaluation failed, and what to do about it.

    `found` are lines: its figures and its first rows.
    """

    check: str
    asset: str
    severity: str
    found: Sequence[str]
    link: str
    advice: str


def send_alert(
    alert: Alert,
    *,
    urls: Sequence[str],
    log: logging.Logger = logger,
    terminal: Path | None = None,
) -> bool:
    """Send the alert to every URL; return whether one of them took it, or it was logged for want of URLs.

    `log` is the caller's own, so that an alert is seen where it was raised. Without URLs it is added to the
    file `terminal` too, which `dev` copies to its terminal.

    It counts as sent when one took it: otherwise the others would have it again with every attempt for
    as long as one is down. Takes a little over `SECONDS_MAX` seconds at most; raises nothing for a
    receiver that fails. Whoever failed is logged by place and service, without the URL's secrets.
    """
    if not urls:
        log.warning("%s\n%s", alert.title, alert.body)
        if terminal is not None:
            with terminal.open("a", encoding="utf-8") as shown:
                shown.write(f"ALERT {alert.title}\n{alert.body}\n\n")
        return True
    from apprise import (  # noqa: PLC0415 - 0.4 s, for those who have URLs
        Apprise,
        AppriseAsset,
        NotifyFormat,
        NotifyType,
        OverflowMode,
    )

    apprise = Apprise(list(urls), asset=AppriseAsset(app_id="Payment buffer", app_desc="Payment buffer"))
    for service in apprise:
        # Left to itself, a service refuses what is too long for it. What matters most stands first.
        if service.overflow_mode == OverflowMode.UPSTREAM:
            service.overflow_mode = OverflowMode.TRUNCATE
    outcomes = apprise.notify(
        title=alert.title,
        body=alert.body,
        notify_type=NotifyType.WARNING,
        body_format=NotifyFormat.TEXT,
        timeout=SECONDS_MAX,
    )
    for number, outcome in enumerate(outcomes, 1):
        if not outcome:
            log.error(
                "alert not taken by receiver %d of %d, %s: %s (%s)",
                number,
                len(urls),
                outcome.name,
                outcome.status.name,
                alert.title,
            )
    return any(bool(outcome) for outcome in outcomes)


def stuck_alert(
    rows: Sequence[dict[str, Any]],
    *,
    places: Places,
    holds: int,
    amounts: str,
    after_hours: int,
    dagster_url: str,
) -> Alert:
    """Return the alert about `holds` payments that have been frozen for too long; `rows` are the first."""
    lines = [
        f"hold {row['hold_id']}, job {row['job']}, to {row['payee']}, {_amount(row, places)},"
        f" frozen since {_moment(row['frozen_since'])} ({', '.join(row['kinds']) or NO_FREEZE})"
        for row in rows[:LINES_MAX]
    ]
    alone = f" or with {NO_FREEZE}" if any(not row["kinds"] for row in rows) else ""
    return Alert(
        title=f"{counted(holds, 'payment')} frozen for more than {after_hours} hours{alone}: {amounts}",
        body="\n".join(
            [
                *_shortened(lines, holds),
                "",
                "A frozen payment waits for a decision on its backjob, or for somebody to lift its freeze."
                + (_ALONE if alone else ""),
                f"All of them: buffer-pipeline stuck, or {dagster_url}/assets/frozen_payments",
            ]
        ),
    )


def overdue_alert(
    rows: Sequence[dict[str, Any]],
    *,
    places: Places,
    holds: int,
    amounts: str,
    oldest: datetime,
    dagster_url: str,
) -> Alert:
    """Return the alert about `holds` payments that are due and not released; `rows` are the first."""
    lines = [
        f"hold {row['hold_id']}, job {row['job']}, to {row['payee']}, {_amount(row, places)},"
        f" due since {_moment(row['release_date'])}"
        for row in rows[:LINES_MAX]
    ]
    return Alert(
        title=f"{counted(holds, 'payment')} due for more than an hour and not released: {amounts}",
        body="\n".join(
            [
                f"The oldest has been due since {_moment(oldest)}. Is the schedule hourly_release on, does"
                " the Dagster daemon run, do the runs succeed?",
                f"Release them now: buffer-pipeline release, or"
                f" {dagster_url}/locations/buffer_pipeline/jobs/release_pending_payments/playground",
                "",
                *_shortened(lines, holds),
            ]
        ),
    )


def failed_runs_alert(first: Sequence[FailedRun], *, runs: int, dagster_url: str) -> Alert:
    """Return the alert about `runs` failed runs, of which `first` are told in full."""
    lines = [f"{run.job}: {run.error}\n{run.link}" for run in first[:LINES_MAX]]
    return Alert(
        title=f"{first[0].job} failed" if runs == 1 else f"{runs} runs failed",
        body="\n".join(_shortened(lines, runs, where=f": {dagster_url}/runs?q=status:FAILURE")),
    )


def failed_checks_alert(first: Sequence[FailedCheck], *, checks: int, dagster_url: str) -> Alert:
    """Return the alert about `checks` failed checks, of which `first` are told in full."""
    lines = [
        "\n".join(
            [
                f"{each.check} of {each.asset}, {each.severity}",
                *(f"  {line}" for line in each.found),
                each.link,
            ]
        )
        for each in first[:LINES_MAX]
    ]
    return Alert(
        title=f"check failed: {first[0].check} of {first[0].asset}"
        if checks == 1
        else f"{checks} checks failed: {', '.join(dict.fromkeys(each.check for each in first))}",
        body="\n".join(
            [
                *_shortened(lines, checks, where=f": {dagster_url}/assets"),
                "",
                *dict.fromkeys(each.advice for each in first),
                f"This alert repeats until the {'check passes' if checks == 1 else 'checks pass'}.",
            ]
        ),
    )


def outcome_of(*, sent: bool, urls: Sequence[str]) -> str:
    """Return what became of an alert, for people."""
    if not sent:
        return "not told: no receiver took the alert, which is sent again at the next tick"
    return "told" if urls else "told in this tick's log, as BUFFER_ALERT_URLS is not set"


def _shortened(lines: list[str], of: int, *, where: str = "") -> list[str]:
    return lines if of <= len(lines) else [*lines, f"and {of - len(lines)} more{where}"]


def _amount(row: dict[str, Any], places: Places) -> str:
    held_minor, currency = row["amount_minor"] - row["refunded_minor"], row["currency"]
    return f"{format_amount(held_minor, places[currency])} {currency}"


def _moment(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="minutes").replace("+00:00", " UTC")
