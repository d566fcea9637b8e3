"""Counts hours as a process of its own, and is interrupted at a moment that its arguments name.

    python -m buffer_pipeline_tests.counter URL FIRST_HOUR END FUNCTION TURN SIGNAL

The signal is raised when FUNCTION is called for the TURN-th time, as Ctrl-C or a kill would at that moment;
without one where it is never called so often.
"""

import signal
import sys
from datetime import datetime
from types import FrameType

from buffer_pipeline.counts import count_hours
from buffer_pipeline.database import make_engine


def main(url: str, start: str, end: str, function: str, turn: str, number: str) -> None:
    """Count, until the signal comes."""
    turns = int(turn)

    def interrupt(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal turns
        if event == "call" and frame.f_code.co_name == function:
            turns -= 1
            if turns == 0:
                sys.setprofile(None)
                signal.raise_signal(int(number))

    def terminate(_number: int, _frame: FrameType | None) -> None:
        sys.exit(143)

    signal.signal(signal.SIGTERM, terminate)
    sys.setprofile(interrupt)
    try:
        count_hours(
            make_engine(url),
            start=datetime.fromisoformat(start),
            end=datetime.fromisoformat(end),
            counted_by="a test",
        )
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
