"""Faults of a node, and their repair."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from buffer_pipeline_tests.failover.configuration import NODES
from buffer_pipeline_tests.failover.rig import Rig

ALONE_SECONDS: Final = 6.0


@dataclass(frozen=True)
class Fault:
    """A fault of a cluster. `strike` returns its repair. The repair runs once releases work again, or after
    `seconds` if they cannot work before.
    """

    name: str
    strike: Callable[[Rig], Callable[[], None]]
    seconds: float | None = None
    moves: bool = False
    """Another node becomes the primary. The old one may still release for a while."""


def _nothing() -> None:
    """Do nothing: Patroni repairs it."""


def _kill_node(rig: Rig) -> Callable[[], None]:
    return _kill(rig, rig.primary())


def _kill_synchronous_standby(rig: Rig) -> Callable[[], None]:
    return _kill(rig, next(replica.node for replica in rig.replicas() if replica.synchronous))


def _kill(rig: Rig, node: str) -> Callable[[], None]:
    rig.signal(node, signal.SIGKILL)
    return lambda: rig.start_node(node)


def _kill_server(rig: Rig) -> Callable[[], None]:
    rig.kill_server(rig.primary())
    return _nothing


def _freeze(rig: Rig) -> Callable[[], None]:
    node = rig.primary()
    rig.signal(node, signal.SIGSTOP)

    def thaw() -> None:
        rig.signal(node, signal.SIGCONT)

    return thaw


def _isolate(rig: Rig) -> Callable[[], None]:
    node = rig.primary()
    rig.cut(node, off=True)
    return lambda: rig.cut(node, off=False)


def _split(rig: Rig) -> Callable[[], None]:
    node = rig.primary()
    rig.split_from_store(node, off=True)
    return lambda: rig.split_from_store(node, off=False)


def _cut_standbys(rig: Rig) -> Callable[[], None]:
    primary = rig.primary()
    standbys = [node for node in NODES if node != primary]
    for node in standbys:
        rig.cut(node, off=True)

    def connect() -> None:
        for node in standbys:
            rig.cut(node, off=False)

    return connect


def _switch_over(rig: Rig) -> Callable[[], None]:
    rig.switch_over(next(replica.node for replica in rig.replicas() if replica.synchronous))
    return _nothing


def _leave_standbys_behind(rig: Rig) -> Callable[[], None]:
    primary = rig.primary()
    connect = _cut_standbys(rig)
    time.sleep(ALONE_SECONDS)
    put_right = _kill(rig, primary)
    connect()
    return put_right


FAULTS: Final = (
    Fault("node killed", _kill_node, moves=True),
    Fault("frozen", _freeze, moves=True),
    Fault("standbys cut off", _cut_standbys, seconds=8),
    Fault("server killed", _kill_server),
    Fault("isolated", _isolate, moves=True),
    Fault("split from the consensus store", _split, moves=True),
    Fault("synchronous standby killed", _kill_synchronous_standby),
    Fault("switchover", _switch_over, moves=True),
)

LOSES: Final = (Fault("standbys left behind, then node killed", _leave_standbys_behind, moves=True),)
"""The fault that an asynchronous cluster does not survive. A strictly synchronous one stops instead."""
