"""`buffer-pipeline simulate`: the days of a marketplace on empty books, with the real verbs."""

from collections import Counter
from datetime import timedelta
from typing import Annotated, Any, Final

import typer

from buffer_pipeline.audit.reconcile import INVARIANTS
from buffer_pipeline.cli.books import documents_of, lines_of
from buffer_pipeline.cli.output import Output, amounts_by_currency, iso, money
from buffer_pipeline.cli.session import books
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import database_clock
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hours import hour_of
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.money import Places
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.reports.rows import Rows
from buffer_pipeline.reports.totals import Totals, totals
from buffer_pipeline.simulation.simulate import Simulation, require_full_hour, simulate

SIMULATION_DAYS_MAX: Final = 3660


app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("simulate")
def simulate_command(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=1, max=SIMULATION_DAYS_MAX, help="The number of days.")] = 365,
    seed: Annotated[int, typer.Option(help="The same seed and start give the same books.")] = 7,
    start: Annotated[
        str | None,
        typer.Option(
            help="The full hour to begin with (ISO 8601); by default it ends with the hour before now."
        ),
    ] = None,
) -> None:
    """Simulate a marketplace on empty books, hour by hour, and prove the books each day.

    There are earnings of single workers and teams, early releases, backjobs and their decisions, freezes,
    deposits, withdrawals, chargebacks, debts, payouts, and outages of the hourly job, all with the real verbs
    and a simulated clock.
    Nobody is notified. Books that are not empty are refused. If BUFFER_HOME has no books, they are created.
    Exit 1 if an invariant breaks, with its rows.

    Example: `buffer-pipeline simulate --home year --days 365 --seed 7`
    """
    output: Output = context.obj
    length = timedelta(days=days)
    # Check the start before books are created for it.
    begin = None if start is None else require_full_hour("start", parse_time("start", start))
    with books(make=True) as (engine, settings):
        with engine.connect() as connection:
            clock = database_clock(connection)
        begin = begin or hour_of(clock) - length
        if begin > clock - length:
            raise InvalidInput(
                f"start {start}: {counted(days, 'day')} from it end after the database's clock, {iso(clock)}"
            )
        with output.progress("simulate", total=days * 24, unit="hours") as advance:
            done = simulate(
                engine,
                start=begin,
                days=days,
                seed=seed,
                policy=settings.policy,
                after_tick=lambda: advance(1),
            )
        with engine.connect() as connection:
            found, places = totals(connection), places_of(connection)
    output.answer(_document(done, found, places), text="\n".join(_lines(done, found, places)))
    if done.violations:
        raise typer.Exit(1)


_LINES: Final[dict[str, dict[str, Any]]] = {
    "held": {"type": "PENDING_EARNING"},
    "released": {"type": "EARNING"},
    "released_early": {"type": "EARNING", "early": True},
    "parts_released_early": {"type": "EARNING_PART"},
    "refunded": {"type": "REFUND"},
    "deposited": {"type": "DEPOSIT"},
    "withdrawn": {"type": "WITHDRAWAL"},
    "taken_back": {"type": "CLAWBACK"},
    "debts_recovered": {"type": "RECOVERY"},
    "debts_forgiven": {"type": "WRITE_OFF"},
    "payouts_requested": {"type": "PAYOUT"},
    "payouts_paid": {"type": "PAYOUT_PAID"},
    "payouts_returned": {"type": "PAYOUT_RETURNED"},
}
"""Name of a sum -> the transactions that it counts."""


def _sum(rows: Rows, conditions: dict[str, Any]) -> tuple[int, Counter[str]]:
    """Return how many transactions meet the conditions, and their amounts in minor units by currency."""
    lines, amounts_minor = 0, Counter[str]()
    for row in rows:
        if conditions.items() <= row.items():
            lines += row["lines"]
            amounts_minor[row["currency"]] += row["amount_minor"]
    return lines, amounts_minor


def _document(done: Simulation, found: Totals, places: Places) -> dict[str, Any]:
    sums = {name: _sum(found.transactions, conditions) for name, conditions in _LINES.items()}
    return {
        "start": iso(done.start),
        "end": iso(done.now),
        "seed": done.seed,
        "ticks": done.ticks,
        "release_runs": done.releases,
        "outages": done.outages,
        "hours_missed": done.hours_missed,
        **{
            name: {"transactions": lines, "amounts": amounts_by_currency(amounts_minor, places)}
            for name, (lines, amounts_minor) in sums.items()
        },
        "backjobs": found.backjobs,
        "refunded_in_part": done.counts.refunded_in_part,
        "freezes": found.freezes,
        "repeated": done.counts.repeated,
        "refused": dict(sorted(done.counts.refused.items())),
        "checks": done.checks,
        "violations": documents_of(done.violations, places),
    }


def _lines(done: Simulation, found: Totals, places: Places) -> list[str]:
    lines = [
        f"Simulated {counted(done.ticks, 'hour')} with seed {done.seed}:"
        f" {iso(done.start)} to {iso(done.now)}."
    ]
    for name, conditions in _LINES.items():
        number, amounts_minor = _sum(found.transactions, conditions)
        lines.append(
            f"{name.replace('_', ' ')}: {number:,}" + (f", {money(amounts_minor, places)}" if number else "")
        )
    lines += [
        f"backjobs: {_counts(found.backjobs)}; refunded in part: {done.counts.refunded_in_part:,}",
        f"freezes: {_counts(found.freezes)}",
        f"repeated earnings: {done.counts.repeated:,}",
        f"refused: {_counts(dict(sorted(done.counts.refused.items())))}",
        f"release runs: {done.releases:,}; {counted(done.outages, 'outage')} of the hourly job,"
        f" {counted(done.hours_missed, 'hour')} missed",
    ]
    if done.violations:
        return [*lines, f"Stopped at {iso(done.now)}, in the books:", *lines_of(done.violations, places)]
    return [
        *lines,
        f"{counted(done.checks, 'check')} of the books: {len(INVARIANTS)} invariants held each day.",
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items()) or "none"
