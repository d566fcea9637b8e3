"""A count that is stopped by a signal or an error has written nothing."""

import signal
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, func, select

from buffer_pipeline.hours import HOUR
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.tables import counted_hour


def count_in_a_process(
    url: str, hour: datetime, *, function: str = "none", turn: int = 1, number: int = signal.SIGINT
) -> subprocess.CompletedProcess[str]:
    """Count the hours around `hour` in a process, which ends within a minute or fails the test."""
    hours = ((hour - 2 * HOUR).isoformat(), hour.isoformat())
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "buffer_pipeline_tests.support.counter",
            url,
            *hours,
            function,
            str(turn),
            str(number),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("function", "turn"),
    [
        ("movements", 2),  # The generator is called for its second frame.
        ("_elements", 2),
        ("_summed", 1),
        ("_summed", 2),
        ("factorize", 1),
    ],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_count_at_once(
    engine: Engine, database_url: str, this_hour: datetime, function: str, turn: int, number: int, code: int
) -> None:
    """Also while a frame is counted and the database has more. Nothing is written."""
    earn(engine, this_hour, amount="5.00", holds=400)

    stopped = count_in_a_process(database_url, this_hour, function=function, turn=turn, number=number)
    with engine.connect() as connection:
        written = connection.scalar(select(func.count()).select_from(counted_hour))

    assert stopped.returncode == code, stopped.stderr
    assert written == 0


def test_an_error_while_frames_are_counted_ends_the_count(
    engine: Engine, database_url: str, this_hour: datetime
) -> None:
    """It is raised without waiting for the abandoned COPY."""
    earn(engine, this_hour, amount="9999999999999.99", holds=4_800)

    stopped = count_in_a_process(database_url, this_hour)

    assert stopped.returncode == 1
    assert "their amounts add up to more than 64 bits" in stopped.stderr


def earn(engine: Engine, hour: datetime, *, amount: str, holds: int) -> None:
    """Add earnings of 20 workers in two currencies in the hour before `hour`."""
    with engine.begin() as connection:
        add_many_pending_earnings(
            connection,
            [
                Earning(
                    reference=f"earning-{number}",
                    job=f"job-{number}",
                    payee=f"worker-{number % 20}",
                    payer="client-3",
                    amount=amount,
                    currency="USD" if number == 0 else "PHP",
                )
                for number in range(holds)
            ],
            now=hour - timedelta(minutes=30),
        )
