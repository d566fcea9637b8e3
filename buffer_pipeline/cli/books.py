"""`buffer-pipeline migrate`, `reconcile`, `import-legacy` and `dev`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from buffer_pipeline.audit.reconcile import INVARIANTS, Violation, reconcile
from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import books
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import REVISION, snapshot
from buffer_pipeline.database import migrate as migrate_books
from buffer_pipeline.extras import need
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.money import Places
from buffer_pipeline.settings import load_settings

app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("reconcile")
def reconcile_command(context: typer.Context) -> None:
    """Prove the books: compute every figure again from the transactions. Exit 1 if one differs.

    Example: `buffer-pipeline reconcile --json`
    """
    output: Output = context.obj
    with books() as (engine, _), snapshot(engine) as connection:
        violations, places = reconcile(connection), places_of(connection)
    lines = lines_of(violations, places) or [f"{len(INVARIANTS)} invariants hold."]
    document = {"ok": not violations, "violations": documents_of(violations, places)}
    output.answer(document, text="\n".join(lines))
    if violations:
        raise typer.Exit(1)


def documents_of(violations: Sequence[Violation], places: Places) -> list[dict[str, Any]]:
    """Return violations as values for JSON."""
    return [
        {"invariant": violation.invariant, "rows": present(violation.rows, places)}
        for violation in violations
    ]


def lines_of(violations: Sequence[Violation], places: Places) -> list[str]:
    """Return violations as lines of text: each invariant, and the rows that break it."""
    lines = []
    for violation in documents_of(violations, places):
        lines.append(f"{violation['invariant']}: {len(violation['rows'])} rows")
        lines += [
            "  " + ", ".join(f"{key} {value}" for key, value in row.items()) for row in violation["rows"]
        ]
    return lines


@app.command("migrate")
def migrate(context: typer.Context) -> None:
    """Migrate the books to the schema of this version, or create them. Safe to run again.

    Example: `BUFFER_DATABASE_URL=postgresql://app@db/platform buffer-pipeline migrate`
    """
    output: Output = context.obj
    with books(migrated=False, make=True) as (engine, _):
        migrate_books(engine)
    output.answer({"revision": REVISION}, text=f"The books are at revision {REVISION}.")


@app.command("import-legacy")
def import_legacy_command(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="The folder with the CSV files of the export.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse the whole import if a row is inconsistent.")
    ] = False,
) -> None:
    """Import the waiting payments, open backjobs and balances of the Django application.

    Inconsistent rows are listed and left out. Nobody is notified. Safe to run again. If BUFFER_HOME has no
    books, they are created.

    Example: `buffer-pipeline import-legacy export/ --strict`
    """
    from buffer_pipeline.legacy.files import require_directory
    from buffer_pipeline.legacy.importer import import_legacy

    output: Output = context.obj
    # Check the folder before books are created for it.
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


@app.command("dev")
def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the Dagster UI.")] = 3000,
    sample: Annotated[
        bool,
        typer.Option(
            help="Load a sample if the books are empty. Not for a database that will hold real money: the"
            " sample cannot be removed."
        ),
    ] = True,
    clock: Annotated[
        str | None,
        typer.Option(
            help="Make the new books a sandbox, whose clock begins at this time (ISO 8601) and moves only by"
            " `clock advance`."
        ),
    ] = None,
) -> None:
    """Start everything on this machine: PostgreSQL, the books, and Dagster's UI, schedules and sensors.

    If BUFFER_HOME or the database has no books, they are created.

    Example: `buffer-pipeline dev --port 3001 --no-sample`
    """
    need("dagster", "dagster_webserver")
    from buffer_pipeline.cli.dev import serve

    now = None if clock is None else parse_time("clock", clock)
    serve(load_settings(), port=port, sample=sample, clock=now)
