"""The command line `buffer-pipeline`."""

import errno
import json
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer
from sqlalchemy.exc import DBAPIError
from typer.exceptions import TyperException

from buffer_pipeline.cli import backjob, books, contact, freeze, hold, notifications, release, report, wallet
from buffer_pipeline.cli.output import Output
from buffer_pipeline.database import first_line
from buffer_pipeline.errors import InvalidInput, PaymentBufferError, SettingError

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143

app = typer.Typer(
    name="buffer-pipeline",
    help="The payment buffer: hold earnings, release them on the hour, freeze and refund on a backjob.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback()
def _root(
    context: typer.Context,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="One JSON document on stdout, all else on stderr. May stand behind the command."
        ),
    ] = False,
) -> None:
    context.obj = Output(as_json=as_json)


app.add_typer(hold.app, name="hold")
app.add_typer(backjob.app, name="backjob")
app.add_typer(wallet.app, name="wallet")
app.add_typer(contact.app, name="contact")
app.add_typer(notifications.app, name="notifications")
release.register(app)
freeze.register(app)
books.register(app)
report.register(app)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command. Exit 0 done, 1 refused or violated, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    # The option belongs to all commands, so it may stand anywhere.
    ordered = ["--json"] * as_json + [argument for argument in given if argument != "--json"]
    # As Ctrl-C does: leave every context, so that the embedded server is stopped in order.
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGHUP, _terminate)
    try:
        _require_utf8(given)
        # Not standalone, so that wrong usage is answered in JSON too where that is asked for.
        code = app(ordered, standalone_mode=False) or 0
        sys.stdout.flush()  # Here, where it can still be said that it failed.
        sys.exit(code)
    except TyperException as error:
        message = f"{error.format_message().rstrip('.')}; see --help"
        _fail(error, as_json=as_json, code=EXIT_USAGE, message=message)
    except SettingError as error:
        _fail(error, as_json=as_json, code=EXIT_USAGE)
    except PaymentBufferError as error:
        _fail(error, as_json=as_json, code=EXIT_REFUSED)
    except DBAPIError as error:
        _fail(error, as_json=as_json, code=EXIT_REFUSED, message=f"database: {first_line(error)}")
    except OSError as error:
        _fail_without_an_answer(error)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_TERMINATED)


def _fail(error: Exception, *, as_json: bool, code: int, message: str = "") -> NoReturn:
    message = " ".join((message or str(error)).split())
    sys.stderr.write(f"{message}\n")
    _fail_in_json(error, as_json=as_json, message=message)
    sys.exit(code)


def _fail_without_an_answer(error: OSError) -> NoReturn:
    """Exit where a file or the answer itself cannot be written, as on a full disk."""
    # What is left of the answer would fail again, and louder, when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:  # Who has read enough of it, as `head` has, needs no word.
        with suppress(OSError):
            sys.stderr.write(f"{error.filename or 'output'}: {error.strerror}; what was committed stands\n")
    sys.exit(EXIT_REFUSED)


def _fail_in_json(error: Exception, *, as_json: bool, message: str) -> None:
    if as_json:
        document = {"error": {"type": type(error).__name__, "message": message}}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")


def _require_utf8(arguments: list[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"argument {argument!a}: not UTF-8") from None
