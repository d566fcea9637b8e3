"""What Ctrl-C and SIGTERM do to a command that works batch by batch."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_STDERR: Final = 2
_ANNOUNCED: Final = b"Interrupted: finishing the batch in hand; Ctrl-C stops at once.\n"


@dataclass
class Interruption:
    """The signal that has asked for an end, once one has."""

    signal_number: int | None = None

    def asked(self) -> bool:
        """Whether no further batch should begin."""
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as a shell has it: 130 for SIGINT, 143 for SIGTERM."""
        return 0 if self.signal_number is None else 128 + self.signal_number


@contextmanager
def between_batches() -> Iterator[Interruption]:
    """Yield what a run should look at between its batches; Ctrl-C behind a first signal raises."""
    interruption = Interruption()

    def ask(number: int, _frame: FrameType | None) -> None:
        if interruption.asked() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not interruption.asked():
            # An attribute and a bare write: a handler can interrupt whatever takes a lock.
            interruption.signal_number = number
            with suppress(OSError):  # Nobody reads it any more.
                os.write(_STDERR, _ANNOUNCED)

    handlers = {
        number: signal.signal(number, ask)
        for number in _SIGNALS
        # A shell lets what it starts in the background ignore Ctrl-C.
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield interruption
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
