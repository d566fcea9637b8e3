"""A drainer in a separate process, which stops at a step and waits to be killed.

python -m buffer_pipeline_tests.support.drainer STEP DATABASE_URL WEBHOOK_URL
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from buffer_pipeline.database import make_engine
from buffer_pipeline.notifications import endpoint_drain
from buffer_pipeline.notifications.drain import drain
from buffer_pipeline.notifications.drain_context import Renderer
from buffer_pipeline.notifications.messages import Messages
from buffer_pipeline_tests.support.webhook import webhook


def stop_here(*_arguments: object, **_named: object) -> Any:
    """Report that the step is reached, and wait."""
    print("here", flush=True)
    time.sleep(120)


class Wordless:
    """Never renders a message: the claim is committed, and nothing is sent."""

    render: Callable[..., Any] = staticmethod(stop_here)


if __name__ == "__main__":
    step, database_url, url = sys.argv[1:]
    messages: Renderer = Wordless() if step == "after the claim" else Messages()
    if step == "in the claim":
        # The claim's transaction is not committed yet.
        vars(endpoint_drain)["find_contacts"] = stop_here
    if step == "before the mark":
        # In the settling transaction, after all answers.
        vars(endpoint_drain)["settle"] = stop_here
    drain(make_engine(database_url), [webhook(url)], messages)
