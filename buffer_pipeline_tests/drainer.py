"""A drainer as a process of its own, that stops at a step and waits to be killed.

python -m buffer_pipeline_tests.drainer STEP DATABASE_URL WEBHOOK_URL
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import buffer_pipeline.delivery.drain as room
from buffer_pipeline.database import make_engine
from buffer_pipeline.messages import Messages
from buffer_pipeline_tests.test_drain_notifications import webhook


def stop_here(*_arguments: object, **_named: object) -> Any:
    """Say that the step is reached, and stay."""
    print("here", flush=True)
    time.sleep(120)


class Wordless:
    """Never gets as far as a message: what was claimed is committed, and nothing sent."""

    render: Callable[..., Any] = staticmethod(stop_here)


if __name__ == "__main__":
    step, database_url, url = sys.argv[1:]
    messages: room.Renderer = Wordless() if step == "after the claim" else Messages()
    if step == "in the claim":
        # The claim's own transaction is not committed yet.
        vars(room)["find_contacts"] = stop_here
    if step == "before the mark":
        # In the settling transaction, with every answer received.
        vars(room)["settle"] = stop_here
    room.drain(make_engine(database_url), [webhook(url)], messages)
