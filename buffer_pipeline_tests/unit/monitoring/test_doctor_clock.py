"""`doctor` compares this machine's clock with the database's."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from buffer_pipeline.monitoring import doctor as looks


@pytest.mark.parametrize("seconds", [-90, 90])
def test_a_clock_that_is_wrong(engine: Engine, seconds: int) -> None:
    """A machine whose clock is 90 seconds off gets the amount and direction."""
    finding = looks.look(
        "clock",
        lambda: looks.clock(engine, read=lambda: datetime.now(UTC) + timedelta(seconds=seconds)),
    )

    assert not finding.ok
    assert f"{'ahead of' if seconds > 0 else 'behind'} the database's" in finding.fact
    assert "90.0 s" in finding.fact or "89.9 s" in finding.fact
