"""The effect of Ctrl-C and SIGTERM on a command that works batch by batch."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final

from buffer_pipeline.errors import PaymentBufferError

BATCH_GRACE_SECONDS: Final = 15.0
"""How long the current batch may take after SIGTERM. A batch takes a quarter of a second, unless it waits for
a lock or a standby. Kubernetes kills after 30 seconds."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_STDERR: Final = 2


class _Stop(KeyboardInterrupt):
    """Raised by a signal handler. psycopg cancels its current query on a KeyboardInterrupt."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


class Stopped(PaymentBufferError):
    """A command was stopped immediately, and does not know whether its current batch was committed."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(
            "Stopped immediately: the current batch may be committed or not; the batches before it are"
            " committed, and the next run takes the rest"
        )
        self._signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """The exit code of `Interruption`."""
        return 128 + self._signal_number


@dataclass
class Interruption:
    """The signal that has asked the command to end; None if there was none."""

    signal_number: int | None = None

    def asked(self) -> bool:
        """Return True if no further batch should begin."""
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """128 plus the number of the signal, as in a shell: 130 for SIGINT, 143 for SIGTERM."""
        return 0 if self.signal_number is None else 128 + self.signal_number


@contextmanager
def between_batches(
    current: str = "the current batch", *, grace_seconds: float | None = BATCH_GRACE_SECONDS
) -> Iterator[Interruption]:
    """Yield the `Interruption` that a run checks between its batches.

    A second signal stops the run immediately. So does the end of the grace time after SIGTERM, because a
    supervisor may not send a second signal.

    Raises:
        Stopped: the run was stopped immediately.
    """
    interruption = Interruption()
    finishing = f"Interrupted: finishing {current}; another"
    in_time = "" if grace_seconds is None else f", and so do {grace_seconds:g} seconds"
    announced = {
        signal.SIGINT: f"{finishing} Ctrl-C stops immediately.\n".encode(),
        signal.SIGTERM: f"{finishing} SIGTERM or Ctrl-C stops immediately{in_time}.\n".encode(),
    }

    def ask(number: int, _frame: FrameType | None) -> None:
        if interruption.signal_number is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise _Stop(interruption.signal_number if number == signal.SIGALRM else number)
        # Only set an attribute and write bytes: the handler may have interrupted code that holds a lock.
        interruption.signal_number = number
        if number == signal.SIGTERM and grace_seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, grace_seconds)
        with suppress(OSError):  # The reader of stderr has gone.
            os.write(_STDERR, announced[signal.Signals(number)])

    handlers = {
        number: signal.signal(number, ask)
        for number in (*_SIGNALS, signal.SIGALRM)
        # A shell makes background jobs ignore Ctrl-C.
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
