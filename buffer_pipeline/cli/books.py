"""`buffer-pipeline migrate`, `reconcile`, `import-legacy` and `dev`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import books
from buffer_pipeline.currencies import Places, places_of
from buffer_pipeline.database import REVISION, one_moment
from buffer_pipeline.database import migrate as migrate_books
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.reconcile import INVARIANTS, Violation, reconcile
from buffer_pipeline.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("reconcile")(reconcile_command)
    app.command("migrate")(migrate)
    app.command("import-legacy")(import_legacy_command)
    app.command("dev")(dev)


def reconcile_command(context: typer.Context) -> None:
    """Prove the books: derive every figure from the transactions. Exit 1 when one differs.

    Example: `buffer-pipeline reconcile --json`
    """
    output: Output = context.obj
    with books() as (engine, _), one_moment(engine) as connection:
        violations, places = reconcile(connection), places_of(connection)
    lines = lines_of(violations, places) or [f"{len(INVARIANTS)} invariants hold."]
    document = {"ok": not violations, "violations": documents_of(violations, places)}
    output.answer(document, text="\n".join(lines))
    if violations:
        raise typer.Exit(1)


def documents_of(violations: Sequence[Violation], places: Places) -> list[dict[str, Any]]:
    """Return violations as JSON has them."""
    return [
        {"invariant": violation.invariant, "rows": present(violation.rows, places)}
        for violation in violations
    ]


def lines_of(violations: Sequence[Violation], places: Places) -> list[str]:
    """Return violations for people: each invariant, and the rows that break it."""
    lines = []
    for violation in documents_of(violations, places):
        lines.append(f"{violation['invariant']}: {len(violation['rows'])} rows")
        lines += [
            "  " + ", ".join(f"{key} {value}" for key, value in row.items()) for row in violation["rows"]
        ]
    return lines


def migrate(context: typer.Context) -> None:
    """Bring the books to this version's schema, or make them where there are none. Safe to run again.

    Example: `BUFFER_DATABASE_URL=postgresql://app@db/platform buffer-pipeline migrate`
    """
    output: Output = context.obj
    with books(migrated=False, make=True) as (engine, _):
        migrate_books(engine)
    output.answer({"revision": REVISION}, text=f"The books are at revision {REVISION}.")


def import_legacy_command(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="The folder with the export's CSV files.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="One inconsistent row refuses the whole import.")
    ] = False,
) -> None:
    """Bring over the Django application's waiting payments, open backjobs and balances.

    What is inconsistent is listed and left out. Nobody is notified. Safe to run again. Where BUFFER_HOME
    has no books, it makes them.

    Example: `buffer-pipeline import-legacy export/ --strict`
    """
    from buffer_pipeline.legacy import import_legacy
    from buffer_pipeline.legacy_files import require_directory

    output: Output = context.obj
    # Before books are made for it.
    require_directory(directory)
    with (
        books(make=True) as (engine, _),
        output.progress("import-legacy", total=None),
        engine.begin() as connection,
    ):
        done = import_legacy(connection, directory, now=clock_of_a_writer(connection), strict=strict)
    quarantined = [{"row": item.row, "reason": item.reason} for item in done.quarantined]
    text = (
        f"{done.wallets} wallets, {done.holds} holds, {done.frozen} of them frozen"
        f" ({done.wallets_added}, {done.holds_added} and {done.frozen_added} of these are new)."
    )
    text += "".join(f"\nquarantined {item['row']}: {item['reason']}" for item in quarantined)
    output.answer(
        {
            "wallets": done.wallets,
            "holds": done.holds,
            "frozen": done.frozen,
            "quarantined": quarantined,
        },
        text=text,
    )


def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the Dagster UI.")] = 3000,
    sample: Annotated[
        bool,
        typer.Option(
            help="Load a sample when the books are empty. Not for a database that will hold real money:"
            " what is written stays."
        ),
    ] = True,
) -> None:
    """Start everything on this machine: PostgreSQL, the books, Dagster's UI, schedule and sensors.

    Where BUFFER_HOME or the database has no books, it makes them.

    Example: `buffer-pipeline dev --port 3001 --no-sample`
    """
    from buffer_pipeline.cli.dev import serve

    serve(load_settings(), port=port, sample=sample)
