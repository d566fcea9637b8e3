"""Entry point of the command `buffer-pipeline`. It handles Ctrl-C while the rest is still being imported."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line. Until it is imported, Ctrl-C ends the process at once: nothing has begun."""
    # A shell makes its background processes ignore Ctrl-C, and they should keep doing so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)

    from buffer_pipeline.extras import MissingExtra  # noqa: PLC0415

    try:
        from buffer_pipeline.cli.app import main as run  # noqa: PLC0415 - slow to import
    except MissingExtra as error:
        sys.exit(f"buffer-pipeline: {error}")
    run()


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    os._exit(EXIT_INTERRUPTED)
