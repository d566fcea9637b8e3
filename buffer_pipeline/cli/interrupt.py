"""What Ctrl-C and SIGTERM do to a command that works batch by batch."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final

from buffer_pipeline.errors import PaymentBufferError

GRACE_SECONDS: Final = 15.0
"""How long the batch in hand may go on after SIGTERM: a batch takes a quarter of a second unless it waits for
a lock or a standby, and Kubernetes kills after 30."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_STDERR: Final = 2


class _Stop(KeyboardInterrupt):
    """Raised by a signal's handler. psycopg cancels on a KeyboardInterrupt what it waits for."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


class Stopped(PaymentBufferError):
    """A command was ended at once, and cannot tell whether what it had in hand was committed."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(
            "Stopped at once: what was in hand may stand or not; what was committed before it stands,"
            " and the next run takes the rest"
        )
        self._signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """That of `Interruption`."""
        return 128 + self._signal_number


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
def between_batches(
    in_hand: str = "the batch in hand", *, grace_seconds: float | None = GRACE_SECONDS
) -> Iterator[Interruption]:
    """Yield what a run should look at between its batches.

    A second signal stops at once, and so does the end of the grace time after SIGTERM: a
    supervisor may not send a second one.

    Raises:
        Stopped: it was stopped so.
    """
    interruption = Interruption()
    finishing = f"Interrupted: finishing {in_hand}; another"
    in_time = "" if grace_seconds is None else f", and so do {grace_seconds:g} seconds"
    announced = {
        signal.SIGINT: f"{finishing} Ctrl-C stops at once.\n".encode(),
        signal.SIGTERM: f"{finishing} SIGTERM or Ctrl-C stops at once{in_time}.\n".encode(),
    }

    def ask(number: int, _frame: FrameType | None) -> None:
        if interruption.signal_number is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise _Stop(interruption.signal_number if number == signal.SIGALRM else number)
        # An attribute and a bare write: a handler can interrupt whatever takes a lock.
        interruption.signal_number = number
        if number == signal.SIGTERM and grace_seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, grace_seconds)
        with suppress(OSError):  # Nobody reads it any more.
            os.write(_STDERR, announced[signal.Signals(number)])

    handlers = {
        number: signal.signal(number, ask)
        for number in (*_SIGNALS, signal.SIGALRM)
        # A shell lets what it starts in the background ignore Ctrl-C.
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield interruption
    except _Stop as stop:
        raise Stopped(stop.signal_number) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
