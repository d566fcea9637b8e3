"""The command line `buffer-pipeline`."""

import json
import signal
import sys
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.cli import backjob, books, freeze, hold, release, wallet
from buffer_pipeline.cli.output import Output
from buffer_pipeline.errors import PaymentBufferError, SettingError

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
release.register(app)
freeze.register(app)
books.register(app)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command. Exit 0 done, 1 refused or violated, 2 wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    # The option belongs to all commands, so it may stand anywhere.
    ordered = ["--json"] * as_json + [argument for argument in given if argument != "--json"]
    # As Ctrl-C does: leave every context, so that the embedded server is stopped in order.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(ordered)
    except SettingError as error:
        _fail(error, as_json=as_json, code=EXIT_USAGE)
    except PaymentBufferError as error:
        _fail(error, as_json=as_json, code=EXIT_REFUSED)
    except DBAPIError as error:
        _fail(error, as_json=as_json, code=EXIT_REFUSED, message=f"database: {_first_line(error)}")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_TERMINATED)


def _first_line(error: DBAPIError) -> str:
    return (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]


def _fail(error: Exception, *, as_json: bool, code: int, message: str = "") -> NoReturn:
    message = " ".join((message or str(error)).split())
    sys.stderr.write(f"{message}\n")
    if as_json:
        document = {"error": {"type": type(error).__name__, "message": message}}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.exit(code)
