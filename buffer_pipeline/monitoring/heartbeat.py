"""The heartbeat: a GET after each successful release. A monitor that misses it raises an alarm."""

import asyncio
import logging
from typing import Final

HEARTBEAT_SECONDS_MAX: Final = 5.0

logger: Final = logging.getLogger("buffer_pipeline.heartbeat")


def beat(url: str | None) -> bool:
    """GET the URL of BUFFER_HEARTBEAT_URL; return whether it answered 2xx. Nothing is sent without one.

    Call it outside any transaction. It takes at most HEARTBEAT_SECONDS_MAX and raises nothing. An error is
    logged without the URL, which may be secret.
    """
    if url is None:
        return False
    import aiohttp  # noqa: PLC0415 - takes 0.2 s, needed only with a URL

    try:
        status = asyncio.run(_get(url))
    except TimeoutError:
        logger.warning("heartbeat: no answer within %g seconds", HEARTBEAT_SECONDS_MAX)
        return False
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Not the error's own text, which contains the URL.
        logger.warning("heartbeat: %s", type(error).__name__)
        return False
    if status // 100 != 2:  # noqa: PLR2004 - RFC 9110, 15.3
        logger.warning("heartbeat: HTTP %d", status)
        return False
    return True


async def _get(url: str) -> int:
    import aiohttp  # noqa: PLC0415

    timeout = aiohttp.ClientTimeout(total=HEARTBEAT_SECONDS_MAX)
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
        session.get(url, headers={"user-agent": "buffer-pipeline"}) as response,
    ):
        return response.status
