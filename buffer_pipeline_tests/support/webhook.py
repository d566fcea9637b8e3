"""A webhook endpoint with a receiver on this machine."""

import asyncio
from typing import Any

from sqlalchemy import Engine

from buffer_pipeline.notifications.channels.channel import Endpoint, make_endpoint
from buffer_pipeline.notifications.messages import Message, Messages, samples
from buffer_pipeline.settings import EndpointSetting

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def webhook(url: str, name: str = "backend", **options: Any) -> Endpoint:
    """Return a webhook endpoint to a local receiver."""
    return make_endpoint(
        EndpointSetting(
            **{
                "name": name,
                "channel": "webhook",
                "url": url,
                "secrets": [SECRET],
                "allow_private": True,
                **options,
            }
        )
    )


NEW_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
MESSAGE: Message = Messages().render(next(samples("PAYMENT_RELEASED")), None)


def options(url: str, **others: Any) -> EndpointSetting:
    """Return the setting of an endpoint."""
    return EndpointSetting(
        **{"name": "backend", "channel": "webhook", "url": url, "secrets": [SECRET], **others}
    )


def send(engine: Engine, url: str, *, times: int = 1, message: Message = MESSAGE, **others: Any) -> None:
    """Send a message in turn over one open channel."""
    made = make_endpoint(options(url, **{"allow_private": True, **others}))

    async def sending() -> None:
        async with made.channel.open(engine=engine) as sender:
            for _ in range(times):
                await sender.send(message)

    asyncio.run(sending())
