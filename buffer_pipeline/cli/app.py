"""The command line `buffer-pipeline`."""

import io
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer
from typer.exceptions import TyperException

from buffer_pipeline.cli.commands import COMMANDS, CommandList
from buffer_pipeline.cli.interrupt import Stopped
from buffer_pipeline.cli.output import Output, facts_of, times_in, write_json
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
    cls=CommandList,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(context: typer.Context, asked: bool) -> None:
    if asked:
        from importlib.metadata import version

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
            is_eager=True,  # Read before --version, whose output depends on it.
            help="One JSON document on stdout and everything else on stderr. Before or after the command.",
        ),
    ] = False,
    home: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="The folder of the books; default: BUFFER_HOME, else .buffer. Before or after the command.",
        ),
    ] = None,
    tz: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Show times in this zone, such as Asia/Manila; default: UTC. Before or after the command.",
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
    """Set BUFFER_HOME, for this process and for those that it starts.

    Raises:
        SettingError: `home` is empty, or BUFFER_DATABASE_URL names other books.
    """
    if not home:
        raise SettingError("--home: must not be empty")
    if os.environ.get("BUFFER_DATABASE_URL") and command not in _HOME_OF_ITS_OWN:
        raise SettingError(
            f"--home {home}: BUFFER_DATABASE_URL is set and names other books; unset it or leave out --home"
        )
    os.environ["BUFFER_HOME"] = home


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command. Exit codes: 0 done, 1 refused or violated, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    ordered = _global_options_first(given)
    # Leave every context as after Ctrl-C, so that the embedded server is stopped in order.
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGHUP, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A letter that the terminal's encoding does not have is shown as an escape.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            # During loading Ctrl-C may end the process at once. From here on every context is left first.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _require_utf8(given)
        # Not standalone, so that an error about wrong usage can be JSON too.
        code = 0 if _print_help_of_group(ordered) else app(ordered, standalone_mode=False) or 0
        # Flush here, so that a full disk is reported.
        sys.stdout.flush()
        sys.exit(code)
    except TyperException as error:
        # The message is empty if the help was printed instead. "Value error" is a prefix of pydantic.
        said = error.format_message().rstrip(".").replace("Value error, ", "", 1)
        message = f"{said or 'Missing command'}; see --help"
        _fail(error, as_json=as_json, code=EXIT_USAGE, message=message)
    except SettingError as error:
        _fail(error, as_json=as_json, code=EXIT_USAGE)
    except Stopped as error:
        _fail(error, as_json=as_json, code=error.exit_code)
    except PaymentBufferError as error:
        _fail(error, as_json=as_json, code=EXIT_REFUSED)
    except OSError as error:
        _end_without_stdout(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        answer = _of_the_database(error)
        if answer is None:
            raise
        _fail(error, as_json=as_json, code=EXIT_REFUSED, message=answer)


def _print_help_of_group(arguments: list[str]) -> bool:
    """Print the help of a group, if nothing else is asked for. Return True if it was printed.

    Typer would load pydantic first, to convert the options before the group.
    """
    match arguments:
        case [name, "--help"] if name in COMMANDS and COMMANDS[name].commands:
            group = CommandList(name=name, help=COMMANDS[name].help)
            group.main(["--help"], prog_name=f"buffer-pipeline {name}", standalone_mode=False)
            return True
    return False


def _of_the_database(error: Exception) -> str | None:
    """Return the message of an error of the database; None for any other error.

    A command that has loaded no driver has no such error.
    """
    if "sqlalchemy" not in sys.modules:
        return None
    from sqlalchemy.exc import DBAPIError

    from buffer_pipeline.database import first_line

    return f"database: {first_line(error)}" if isinstance(error, DBAPIError) else None


def _global_options_first(given: list[str]) -> list[str]:
    """Return the arguments with the options of all commands first. The user may put them anywhere."""
    first = ["--json"] * ("--json" in given)
    rest: list[str] = []
    arguments = iter(given)
    for argument in arguments:
        if argument == "--":
            rest += [argument, *arguments]
        elif argument in _WITH_VALUE:
            value = next(arguments, "-")
            if value.startswith("-"):
                # Alone, the option is refused because its value is missing. It must not take another word.
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
    """End because the output cannot be written. Print no message if its reader has gone."""
    said = error.strerror or type(error).__name__
    message = f"{error.filename or 'output'}: {said}; what was committed is kept"
    with suppress(OSError):
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"{message}\n")
        _fail_in_json(error, as_json=as_json, message=message)
        sys.stdout.flush()
    with suppress(OSError):
        # Python would try to write the rest again at its end, and fail again.
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
