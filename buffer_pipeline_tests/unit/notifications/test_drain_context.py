"""Which endpoints of a drain send: a dispatch wakes a waiting one, and the end is final."""

import asyncio

from buffer_pipeline.notifications.drain_context import Activity


def test_a_dispatch_makes_a_waiting_endpoint_send_at_once() -> None:
    """It counts as sending before it wakes, so the drain continues even if the other endpoint ends."""

    async def dispatched() -> tuple[set[str], bool]:
        activity = Activity(["fast", "slow"], is_over=lambda: False)
        fast = asyncio.create_task(activity.wait_for_dispatch("fast", after=0))
        await asyncio.sleep(0)
        activity.note_dispatch()
        activity.sending.discard("slow")
        return set(activity.sending), await fast

    sending, goes_on = asyncio.run(dispatched())

    assert sending == {"fast"}
    assert goes_on


def test_a_dispatch_during_a_round_is_not_missed() -> None:
    """The last sending endpoint does not end if something was dispatched since its round began."""

    async def dispatched() -> bool:
        activity = Activity(["only"], is_over=lambda: False)
        dispatches = activity.dispatches
        activity.note_dispatch()
        return await activity.wait_for_dispatch("only", after=dispatches)

    assert asyncio.run(dispatched())


def test_nothing_begins_again_once_no_endpoint_sends() -> None:
    """Neither a dispatch nor a probe revives a finished drain."""

    async def ended() -> tuple[bool, bool, int]:
        activity = Activity(["idle", "paused"], is_over=lambda: False)
        paused = asyncio.create_task(activity.wait_for_probe("paused", seconds=3600))
        await asyncio.sleep(0)
        idle = await activity.wait_for_dispatch("idle", after=0)
        activity.note_dispatch()
        return idle, await paused, activity.dispatches

    assert asyncio.run(ended()) == (False, False, 0)
