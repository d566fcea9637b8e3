"""`buffer-pipeline doctor`."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import typer
from sqlalchemy import Engine

from buffer_pipeline.cli.dev_databases import beside_the_books, dagster_url
from buffer_pipeline.cli.output import Output
from buffer_pipeline.database import make_engine, psycopg_url
from buffer_pipeline.embedded import embedded_server
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.monitoring import doctor as books
from buffer_pipeline.monitoring.doctor import Answer, Finding, look
from buffer_pipeline.monitoring.payout_doctor import payouts
from buffer_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    import dagster as dg

DOCTOR_CONNECT_SECONDS_MAX: Final = 10

Opened = TypeVar("Opened")


app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("doctor")
def doctor(context: typer.Context) -> None:
    """Report what is wrong with this installation and what to do, one line per check. Only reads.

    Exit 1 if a check fails. A check that cannot be made counts as failed.

    Example: `buffer-pipeline doctor --json`
    """
    output: Output = context.obj
    found = examine(load_settings())
    ok = all(finding.ok for finding in found)
    output.answer(
        {
            "ok": ok,
            "checks": [
                {"check": each.check, "ok": each.ok, "fact": each.fact, "advice": each.advice}
                for each in found
            ],
        },
        text="\n".join(_line(finding) for finding in found),
    )
    if not ok:
        raise typer.Exit(1)


def _line(finding: Finding) -> str:
    advice = "" if finding.advice is None else f" -> {finding.advice}"
    return f"{'ok' if finding.ok else 'WRONG':5} {finding.check:12} {' '.join(finding.fact.split())}{advice}"


@dataclass(frozen=True)
class _Place:
    """The books. On the embedded server also the URL of Dagster's storage and the folder of the data."""

    engine: Engine
    storage_url: str | None = None
    folder: Path | None = None


def examine(settings: Settings) -> list[Finding]:
    """Make every check, in the order in which to read the results."""
    with warnings.catch_warnings():
        # Dagster warns about beta features in the definitions. The user of `doctor` cannot change them.
        warnings.simplefilter("ignore")
        from buffer_pipeline.orchestration import health

    with ExitStack() as stack:
        place = _opened(stack, _place(settings))
        instance = _opened(stack, _instance(settings, place))

        def of_books(ask: Callable[[Engine], Answer]) -> Callable[[], Answer]:
            return lambda: ask(_there(place, "the database does not answer").engine)

        def of_dagster(ask: Callable[["dg.DagsterInstance"], Answer]) -> Callable[[], Answer]:
            return lambda: ask(_there(instance))

        def proof(engine: Engine) -> Answer:
            if books.small_books(engine):
                return books.books(engine)
            return health.proof(_there(instance), now=_now())

        def disk() -> Answer:
            found = _there(place, "the database does not answer")
            return books.remote_disk(found.engine) if found.folder is None else books.local_disk(found.folder)

        return [
            look("database", lambda: books.database(_there(place).engine)),
            look("migration", of_books(books.migration)),
            look("roles", of_books(books.roles)),
            look("clock", of_books(lambda engine: books.clock(engine, read=_now))),
            look("currencies", of_books(books.currencies)),
            look("schedules", of_dagster(health.schedules)),
            look("daemon", of_dagster(lambda found: health.daemon(found, now=_now()))),
            look("runs", of_dagster(health.runs)),
            look("last release", of_dagster(lambda found: health.last_release(found, now=_now()))),
            look("overdue", of_books(books.overdue)),
            look("frozen", of_books(books.frozen)),
            look("payouts", of_books(lambda engine: payouts(engine, policy=settings.payout_policy))),
            look("outbox", of_books(books.outbox)),
            look("books", of_books(proof)),
            look("disk", disk),
        ]


def _opened(stack: ExitStack, manager: AbstractContextManager[Opened]) -> Opened | Exception:
    """Return what a context manager opens, or its error, which each check that needs it reports."""
    try:
        return stack.enter_context(manager)
    except Exception as error:  # noqa: BLE001 - `doctor` reports every error
        return error


def _there(found: Opened | Exception, said: str | None = None) -> Opened:
    if isinstance(found, Exception):
        # The line of one check has the reason. The other checks only name what is missing.
        raise found if said is None else PaymentBufferError(said) from None
    return found


@contextmanager
def _place(settings: Settings) -> Iterator[_Place]:
    """Open the books without migrating them."""
    with ExitStack() as stack:
        if settings.database_url is None:
            folder = settings.home.resolve() / "postgres"
            server = stack.enter_context(embedded_server(settings.home, make=False))
            storage_url = dagster_url(server.dagster_url).render_as_string(hide_password=False)
            place = _Place(make_engine(server.books_url), storage_url, folder)
        else:
            url = psycopg_url(settings.database_url)
            if "connect_timeout" not in url.query:
                url = url.update_query_dict({"connect_timeout": str(DOCTOR_CONNECT_SECONDS_MAX)})
            place = _Place(make_engine(url))
        stack.callback(place.engine.dispose)
        # Connect once, so that not every check waits for a server that does not answer.
        place.engine.connect().close()
        yield place


@contextmanager
def _instance(settings: Settings, place: _Place | Exception) -> Iterator["dg.DagsterInstance"]:
    """Open the instance of DAGSTER_HOME; without it, the one that `dev` has created in BUFFER_HOME."""
    from buffer_pipeline.orchestration.health import open_instance

    given = os.environ.get("DAGSTER_HOME")
    home = Path(given) if given else settings.home.resolve() / "dagster"
    if not given and not (home / "dagster.yaml").is_file():
        raise PaymentBufferError(
            f"DAGSTER_HOME is not set, and {settings.home.resolve()} has no Dagster:"
            " set it, or start `buffer-pipeline dev`"
        )
    with open_instance(home, storage_url=_storage_url(settings, place)) as instance:
        yield instance


def _storage_url(settings: Settings, place: _Place | Exception) -> str | None:
    """Return the URL of Dagster's storage, by the same rule as `dev`."""
    if settings.dagster_database_url is not None:
        return dagster_url(settings.dagster_database_url).render_as_string(hide_password=False)
    if settings.database_url is not None:
        return beside_the_books(psycopg_url(settings.database_url)).render_as_string(hide_password=False)
    return _there(place).storage_url


def _now() -> datetime:
    return datetime.now(UTC)
