"""Alerts to operators: their texts, and sending them to the services of BUFFER_ALERT_URLS.

An alert is one message, however many payments or runs it is about. It has their number and amount, then the
first of them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from buffer_pipeline.explain.words import kind_words
from buffer_pipeline.money import Places, format_amount
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.reports.payouts import UNBATCHED

ALERT_SECONDS_MAX: Final = 15.0
"""How long sending one alert may take. A sensor's tick has 60 seconds and sends one alert."""

LINES_MAX: Final = 20

NO_FREEZE: Final = "no open freeze"

_ALONE: Final = (
    " A payment frozen without an open freeze is an error in the books; docs/runbook.md says how to"
    " release it."
)

_OWNERS: Final = " The payments of a frozen owner wait until the owner is unfrozen."

TERMINAL_VARIABLE: Final = "BUFFER_DEV_TERMINAL"
"""The file that `dev` copies to its terminal. `dev` sets it for its code server; it is not a setting."""

logger: Final = logging.getLogger("buffer_pipeline.monitoring.sent_alerts")


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One message, in plain text."""

    title: str
    body: str


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """A failed run that is not retried automatically; `error` is one line."""

    job: str
    error: str
    link: str


@dataclass(frozen=True, kw_only=True)
class FailedCheck:
    """A check whose latest evaluation failed, and what to do about it.

    `found` are lines with its figures and first rows.
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
    """Send the alert to every URL; return whether it counts as sent.

    It counts as sent if one receiver accepted it. Otherwise the others would get it again with every attempt
    while one of them is down. A receiver that fails raises nothing: it is logged by its position and
    service, without the URL's secrets. Sending takes little more than `ALERT_SECONDS_MAX` seconds.

    Without URLs the alert is logged and counts as sent. It is then also added to the file `terminal`, which
    `dev` copies to its terminal. `log` is the caller's logger, so that the alert is in the log of what
    raised it.
    """
    if not urls:
        log.warning("%s\n%s", alert.title, alert.body)
        if terminal is not None:
            with terminal.open("a", encoding="utf-8") as shown:
                shown.write(f"ALERT {alert.title}\n{alert.body}\n\n")
        return True
    from apprise import (  # noqa: PLC0415 - takes 0.4 s to import, needed only with URLs
        Apprise,
        AppriseAsset,
        NotifyFormat,
        NotifyType,
        OverflowMode,
    )

    apprise = Apprise(list(urls), asset=AppriseAsset(app_id="Payment buffer", app_desc="Payment buffer"))
    for service in apprise:
        # By default a service refuses a text that is too long. The most important part comes first.
        if service.overflow_mode == OverflowMode.UPSTREAM:
            service.overflow_mode = OverflowMode.TRUNCATE
    outcomes = apprise.notify(
        title=alert.title,
        body=alert.body,
        notify_type=NotifyType.WARNING,
        body_format=NotifyFormat.TEXT,
        timeout=ALERT_SECONDS_MAX,
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
    owners: Sequence[dict[str, Any]] = (),
    places: Places,
    holds: int,
    amounts: str,
    after_hours: int,
    dagster_url: str,
) -> Alert:
    """Return the alert about `holds` payments that are frozen for too long; `rows` are the first of them.

    `owners` are the rows of `stuck_owners`, for the payments that only their owner's freeze covers.
    """
    of_owners = [
        f"owner {row['owner']} has been frozen since {_moment(row['frozen_since'])} by {row['opened_by']}"
        f" ({kind_words([row['kind']])}): {counted(row['holds'], 'payment')},"
        f" {format_amount(int(row['left_minor']), places[row['currency']])} {row['currency']}"
        for row in owners[:LINES_MAX]
    ]
    rows_shown = rows[: LINES_MAX - len(of_owners)]
    shown = sum(row["holds"] for row in (*owners[:LINES_MAX], *rows_shown))
    lines = of_owners + [
        f"hold {row['hold_id']}, job {row['job']}, to {row['payee']}, {_amount(row, places)},"
        f"{_shares(row)} frozen since {_moment(row['frozen_since'])}"
        f" ({kind_words(row['kinds']) or NO_FREEZE})"
        for row in rows_shown
    ]
    alone = f" or with {NO_FREEZE}" if any(not row["kinds"] for row in rows) else ""
    return Alert(
        title=f"{counted(holds, 'payment')} frozen for more than {after_hours} hours{alone}: {amounts}",
        body="\n".join(
            [
                *_shortened(lines, holds - shown + len(lines)),
                "",
                "A frozen payment waits for a decision on its backjob, or for somebody to lift its freeze."
                + (_OWNERS if owners else "")
                + (_ALONE if alone else ""),
                "Why one of them is held, and what would release it: buffer-pipeline explain HOLD_ID",
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
    """Return the alert about `holds` payments that are due and not released; `rows` are the first of them."""
    lines = [
        f"hold {row['hold_id']}, job {row['job']}, to {row['payee']}, {_amount(row, places)},"
        f" due since {_moment(row['release_date'])}"
        for row in rows[:LINES_MAX]
    ]
    return Alert(
        title=f"{counted(holds, 'payment')} due for more than an hour and not released: {amounts}",
        body="\n".join(
            [
                f"The oldest has been due since {_moment(oldest)}. Check that the schedule hourly_release is"
                " on, that the Dagster daemon runs, and that the runs succeed.",
                f"Release them now: buffer-pipeline release, or"
                f" {dagster_url}/locations/buffer_pipeline/jobs/release_pending_payments/playground",
                "",
                *_shortened(lines, holds),
            ]
        ),
    )


_STAGES: Final = {
    "UNANSWERED": "sent {since}, no status of {payouts}",
    "UNAPPROVED": "made {since} by {made_by}, not approved: {payouts}",
    "UNSENT": "approved {since}, not sent, so it has no file yet: {payouts}",
}


def payout_batch_line(row: dict[str, Any], places: Places) -> str:
    """Return a row of `stuck_batches` as a line."""
    stage = _STAGES[row["stage"]].format(
        since=_moment(row["since"]), payouts=counted(row["payouts"], "payout"), made_by=row["made_by"]
    )
    amount = format_amount(row["amount_minor"], places[row["currency"]])
    return f"batch {row['payout_batch_id']} {stage}, {amount} {row['currency']}"


def unbatched_payout_line(row: dict[str, Any], places: Places) -> str:
    """Return a row of `unbatched_payouts` as a line."""
    amount = format_amount(row["amount_minor"], places[row["currency"]])
    return (
        f"payout {row['payout_id']} of {row['owner']} requested {_moment(row['since'])}, in no batch,"
        f" {amount} {row['currency']} by {row['method']}: {UNBATCHED[row['why']]}"
    )


def stuck_payouts_text(*, batches: int, payouts: int) -> str:
    """Return how many batches, and payouts without one, wait for too long."""
    parts = [f"{counted(batches, 'batch')} of payouts"] if batches else []
    parts += [f"{counted(payouts, 'payout')} without a batch"] if payouts else []
    return " and ".join(parts)


def stuck_payouts_alert(
    batches: Sequence[dict[str, Any]],
    payouts: Sequence[dict[str, Any]],
    *,
    places: Places,
    amounts: str,
    dagster_url: str,
) -> Alert:
    """Return the alert about `batches` of payouts that wait for too long, and `payouts` that no batch takes.

    They are rows of `stuck_batches` and `unbatched_payouts`.
    """
    advice = []
    if batches:
        advice.append(
            "Ask the bank about a batch without a status, and import its file: buffer-pipeline payout"
            " import-status. Approve and send the others, or cancel them: buffer-pipeline payout batch."
        )
    if payouts:
        advice.append(
            "Make a batch of what is in none: buffer-pipeline payout batch make. If its owner is frozen or"
            " owes a debt, settle that first, or cancel the payout: buffer-pipeline payout cancel."
        )
    first, others = batches[:LINES_MAX], payouts[:LINES_MAX]
    return Alert(
        title=f"{stuck_payouts_text(batches=len(batches), payouts=len(payouts))} stuck: {amounts}",
        body="\n".join(
            [
                *_shortened([payout_batch_line(row, places) for row in first], len(batches)),
                *_shortened([unbatched_payout_line(row, places) for row in others], len(payouts)),
                "",
                *advice,
                f"All of them: buffer-pipeline doctor, or {dagster_url}/assets/payout_batches?view=checks",
            ]
        ),
    )


def failed_runs_alert(first: Sequence[FailedRun], *, runs: int, dagster_url: str) -> Alert:
    """Return the alert about `runs` failed runs; it describes the `first` of them."""
    lines = [f"{run.job}: {run.error}\n{run.link}" for run in first[:LINES_MAX]]
    return Alert(
        title=f"{first[0].job} failed" if runs == 1 else f"{runs} runs failed",
        body="\n".join(_shortened(lines, runs, where=f": {dagster_url}/runs?q=status:FAILURE")),
    )


def failed_checks_alert(first: Sequence[FailedCheck], *, checks: int, dagster_url: str) -> Alert:
    """Return the alert about `checks` failed checks; it describes the `first` of them."""
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
    """Return as text for people whether an alert was sent."""
    if not sent:
        return "not reported: no receiver took the alert; it is sent again at the next tick"
    return "reported" if urls else "reported in this tick's log, as BUFFER_ALERT_URLS is not set"


def _shortened(lines: list[str], of: int, *, where: str = "") -> list[str]:
    return lines if of <= len(lines) else [*lines, f"and {of - len(lines)} more{where}"]


def _shares(row: dict[str, Any]) -> str:
    return "" if row["holds"] == 1 else f" {row['holds']} shares,"


def _amount(row: dict[str, Any], places: Places) -> str:
    return f"{format_amount(int(row['left_minor']), places[row['currency']])} {row['currency']}"


def _moment(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="minutes").replace("+00:00", " UTC")
