"""Counts hours in a separate process, which is interrupted at a moment given by its arguments.

    python -m buffer_pipeline_tests.support.counter URL FIRST_HOUR END FUNCTION TURN SIGNAL

The signal is raised at the TURN-th call of FUNCTION, as Ctrl-C or a kill would at that moment. If there are
fewer
calls, no signal is raised.
"""

import signal
import sys
from datetime import datetime
from types import FrameType

from buffer_pipeline.database import make_engine
from buffer_pipeline.reports.hourly_counts import count_hours


def main(url: str, start: str, end: str, function: str, turn: str, number: str) -> None:
    """Count until the signal."""
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
