"""The shared state of a round's threads, and where they pause."""

from dataclasses import dataclass, field
from enum import StrEnum
from threading import Condition, Thread
from typing import Final, Protocol

from sqlalchemy import Engine

from buffer_pipeline.audit.seals import Anchor
from buffer_pipeline_tests.stress.findings import Findings
from buffer_pipeline_tests.stress.market import Market
from buffer_pipeline_tests.stress.tally import Tally
from buffer_pipeline_tests.stress.transactions import Ground

PARK_SECONDS_MAX: Final = 60


class Mode(StrEnum):
    """The kind of transactions in a round."""

    ALONE = "each verb in a READ COMMITTED transaction of its own"
    MIXED = "several verbs a transaction, savepoints, all isolation levels"


class Gate:
    """All threads of a round pause here while the books are compared."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._open = True
        self._inside = 0
        self.stopped = False

    def enter(self) -> bool:
        """Wait until the gate is open and enter; return False if the round is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._open or self.stopped)
            self._inside += not self.stopped
            return not self.stopped

    def leave(self) -> None:
        """Leave."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> bool:
        """Admit nobody and wait until all have left; return False if one does not leave."""
        with self._changed:
            self._open = False
            return self._changed.wait_for(lambda: self._inside == 0, timeout=PARK_SECONDS_MAX)

    def open(self) -> None:
        """Admit threads again."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def stop(self) -> None:
        """End the round."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()


class Worker(Protocol):
    """The repeated work of a thread in a round."""

    name: str

    def work(self) -> None:
        """Do it once."""


@dataclass(kw_only=True)
class Round:
    """The shared state of a round's threads."""

    seed: str
    mode: Mode
    platform: Engine
    releaser: Engine
    superuser: Engine
    market: Market
    ground: Ground
    gate: Gate
    findings: Findings
    tally: Tally
    servers_fail: bool = False
    """Any session may be lost at any time, and sometimes none can be opened."""
    anchors: list[Anchor] = field(default_factory=list)
    """Anchors of the seals, to be checked at the end."""

    def thread(self, worker: Worker) -> Thread:
        """Return a thread that works repeatedly while the gate is open. Its exceptions are findings."""
        name = worker.name

        def run() -> None:
            while self.gate.enter():
                try:
                    worker.work()
                except Exception as error:  # noqa: BLE001 - whatever it is, it is found
                    self.findings.add(
                        "unexpected error", f"{name}: {type(error).__name__}: {error}", who=name
                    )
                    self.tally.count("unexpected error")
                finally:
                    self.gate.leave()

        return Thread(target=run, name=name, daemon=True)
