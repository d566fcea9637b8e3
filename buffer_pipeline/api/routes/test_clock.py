"""The clock of a sandbox: show it, and advance it. Real books refuse both."""

from typing import Final

from pydantic import ConfigDict

from buffer_pipeline.api.bodies import Body, Time
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.endpoint import read, write
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.api.keys import KeyRole
from buffer_pipeline.extras import need
from buffer_pipeline.sandbox.clock import (
    Advanced,
    SandboxClock,
    parse_duration,
    require_clock,
    target_of,
)

router: Final = new_router("clock of a sandbox")

_ONLY_FOR_PLATFORMS: Final = frozenset({KeyRole.PAYOUTS, KeyRole.READER})


class AdvanceBody(Body):
    """A duration in days, hours or minutes, or a time; neither goes on with what was cut short."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"duration": "7d"}]})

    duration: str | None = None
    to: Time | None = None


@read(router, "/test_clock", answer=SandboxClock)
def show_clock(call: Call) -> SandboxClock:
    """Show the clock of a sandbox."""
    return require_clock(call.connection)


@write(router, "/test_clock/advance", answer=Advanced, not_for=_ONLY_FOR_PLATFORMS)
def advance_clock(call: Call, body: AdvanceBody) -> Advanced:
    """Move the clock of a sandbox, and do what would have happened meanwhile, hour by hour.

    Releases, payouts by schedule and messages, each in transactions of their own. If the server ends
    meanwhile, the same request goes on where it was, and ends at the same time. For a request that is safe to
    repeat whenever the server ends, give a time.
    """
    duration = None if body.duration is None else parse_duration(body.duration)
    # Refused before any other role is taken.
    target_of(require_clock(call.connection), duration=duration, to=body.to)
    need("notifications", "jinja2")
    from buffer_pipeline.notifications.channels.channel import configured_endpoints  # noqa: PLC0415 - an extra
    from buffer_pipeline.notifications.messages import Messages  # noqa: PLC0415
    from buffer_pipeline.sandbox.advance import Sandbox, advance  # noqa: PLC0415

    settings = call.settings
    return advance(
        Sandbox(
            releaser=call.engine_of("buffer_releaser"),
            payouts=call.engine_of("buffer_payouts"),
            endpoints=configured_endpoints(settings.endpoints),
            messages=Messages(
                templates=settings.templates, locale=settings.locale, time_zone=settings.time_zone
            ),
            payout_policy=settings.payout_policy,
        ),
        duration=duration,
        to=body.to,
    )
