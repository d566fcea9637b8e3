"""The heartbeat: a URL that is asked for after each successful release, so that its absence is noticed."""

import asyncio
import logging
from typing import Final

import aiohttp

SECONDS_MAX: Final = 5.0

logger: Final = logging.getLogger("buffer_pipeline.heartbeat")


def beat(url: str | None) -> bool:
    """GET the URL of BUFFER_HEARTBEAT_URL; return whether it answered 2xx. Nothing is sent without one.

    Belongs outside of any transaction. Takes SECONDS_MAX at most and raises nothing: what went wrong is
    logged, without the URL, which may be secret.
    """
    if url is None:
        return False
    try:
        status = asyncio.run(_get(url))
    except TimeoutError:
        logger.warning("heartbeat: no answer within %g seconds", SECONDS_MAX)
        return False
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Never as it is worded, which repeats the URL.
        logger.warning("heartbeat: %s", type(error).__name__)
        return False
    if status // 100 != 2:  # noqa: PLR2004 - RFC 9110, 15.3
        logger.warning("heartbeat: HTTP %d", status)
        return False
    return True


async def _get(url: str) -> int:
    timeout = aiohttp.ClientTimeout(total=SECONDS_MAX)
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
        session.get(url, headers={"user-agent": "buffer-pipeline"}) as response,
    ):
        return response.status
