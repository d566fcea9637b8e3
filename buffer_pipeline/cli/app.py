"""The command line `buffer-pipeline`."""

import io
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer
from sqlalchemy.exc import DBAPIError
from typer.exceptions import TyperException

from buffer_pipeline.cli import (
    backjob,
    books,
    contact,
    doctor,
    freeze,
    hold,
    metrics,
    notifications,
    release,
    report,
    shadow,
    simulate,
    verify,
    wallet,
)
from buffer_pipeline.cli.interrupt import Stopped
from buffer_pipeline.cli.output import Output, facts_of, times_in, write_json
from buffer_pipeline.database import first_line
from buffer_pipeline.errors import InvalidInput, PaymentBufferError, SettingError

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143

_WITH_VALUE: Final = ("--home", "--tz")
"""Options of all commands that take a value."""

_HOME_OF_ITS_OWN: Final = {"dev", "doctor"}
"""Commands that use BUFFER_HOME beside a BUFFER_DATABASE_URL too: Dagster's home is in it."""

app = typer.Typer(
    name="buffer-pipeline",
    help="The payment buffer: hold earnings, release them on the hour, freeze and refund on a backjob.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(context: typer.Context, asked: bool) -> None:
    if asked:
        this = version("buffer-pipeline")
        if context.params.get("as_json"):
            write_json({"version": this})
        else:
            sys.stdout.write(f"{this}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            is_eager=True,  # Read before --version, which answers by it.
            help="One JSON document on stdout, all else on stderr. Before or after the command.",
        ),
    ] = False,
    home: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the books are: BUFFER_HOME without it, else .buffer. Before or after the command.",
        ),
    ] = None,
    tz: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Show times in this zone, such as Asia/Manila, not in UTC. Before or after the command.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    if home is not None:
        _choose_home(home, command=context.invoked_subcommand)
    if tz is not None:
        context.with_resource(times_in(tz))
    context.obj = Output(as_json=as_json)


def _choose_home(home: str, *, command: str | None) -> None:
    """Let whatever reads the settings find this one, also in processes that are started.

    Raises:
        SettingError: it is empty, which would be no choice, or the books are elsewhere, in a database.
    """
    if not home:
        raise SettingError("--home: must not be empty")
    if os.environ.get("BUFFER_DATABASE_URL") and command not in _HOME_OF_ITS_OWN:
        raise SettingError(
            f"--home {home}: BUFFER_DATABASE_URL is set and names other books; unset it or leave out --home"
        )
    os.environ["BUFFER_HOME"] = home


app.add_typer(hold.app, name="hold")
app.add_typer(backjob.app, name="backjob")
app.add_typer(wallet.app, name="wallet")
app.add_typer(contact.app, name="contact")
app.add_typer(notifications.app, name="notifications")
release.register(app)
freeze.register(app)
books.register(app)
report.register(app)
simulate.register(app)
shadow.register(app)
verify.register(app)
doctor.register(app)
metrics.register(app)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command. Exit 0 done, 1 refused or violated, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    ordered = _global_options_first(given)
    # As Ctrl-C does: leave every context, so that the embedded server is stopped in order.
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGHUP, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without the letters of somebody's name shows the rest.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            # Whatever ended the process while this was loaded: from here on contexts are left.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _require_utf8(given)
        # Not standalone, so that wrong usage is answered in JSON too where that is asked for.
        code = app(ordered, standalone_mode=False) or 0
        # Here, so that a disk that is full is noticed in time.
        sys.stdout.flush()
        sys.exit(code)
    except TyperException as error:
        # Empty where the help was printed in place of a message.
        # "Value error" is what pydantic puts before the words of Typer's own types.
        said = error.format_message().rstrip(".").replace("Value error, ", "", 1)
        message = f"{said or 'Missing command'}; see --help"
        _fail(error, as_json=as_json, code=EXIT_USAGE, message=message)
    except SettingError as error:
        _fail(error, as_json=as_json, code=EXIT_USAGE)
    except Stopped as error:
        _fail(error, as_json=as_json, code=error.exit_code)
    except PaymentBufferError as error:
        _fail(error, as_json=as_json, code=EXIT_REFUSED)
    except DBAPIError as error:
        _fail(error, as_json=as_json, code=EXIT_REFUSED, message=f"database: {first_line(error)}")
    except OSError as error:
        _end_without_stdout(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)


def _global_options_first(given: list[str]) -> list[str]:
    """Return the arguments, those options first that belong to all commands: they may stand anywhere."""
    first = ["--json"] * ("--json" in given)
    rest: list[str] = []
    arguments = iter(given)
    for argument in arguments:
        if argument == "--":
            rest += [argument, *arguments]
        elif argument in _WITH_VALUE:
            value = next(arguments, "-")
            if value.startswith("-"):
                # Alone it is refused for want of a value, and takes no other word for it.
                return [argument]
            first += [argument, value]
        elif argument.partition("=")[0] in _WITH_VALUE:
            first.append(argument)
        else:
            rest.append(argument)
    return first + [argument for argument in rest if argument != "--json"]


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_TERMINATED)


def _fail(error: Exception, *, as_json: bool, code: int, message: str = "") -> NoReturn:
    message = " ".join((message or str(error)).split())
    sys.stderr.write(f"{message}\n")
    _fail_in_json(error, as_json=as_json, message=message)
    sys.exit(code)


def _end_without_stdout(error: OSError, *, as_json: bool) -> NoReturn:
    """End for want of a disk, or of a reader: that one has left and needs no word."""
    said = error.strerror or type(error).__name__
    message = f"{error.filename or 'output'}: {said}; what was committed stands"
    with suppress(OSError):
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"{message}\n")
        _fail_in_json(error, as_json=as_json, message=message)
        sys.stdout.flush()
    with suppress(OSError):
        # What could not be written would be tried again, and fail again, while Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(EXIT_REFUSED)


def _fail_in_json(error: Exception, *, as_json: bool, message: str) -> None:
    if as_json:
        facts = facts_of(error) if isinstance(error, PaymentBufferError) else {}
        write_json({"error": {"type": type(error).__name__, "message": message} | facts})


def _require_utf8(arguments: list[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"argument {argument!a}: not UTF-8") from None
