"""Where the command `buffer-pipeline` begins: it loads only what handles Ctrl-C while the rest is loaded."""

import os
import signal
from types import FrameType
from typing import NoReturn

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line. Until it has loaded, Ctrl-C ends the process at once: nothing has begun."""
    # A shell lets what it starts in the background ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)

    from buffer_pipeline.cli import main as run  # noqa: PLC0415 - it takes a second

    run()


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    os._exit(EXIT_INTERRUPTED)
