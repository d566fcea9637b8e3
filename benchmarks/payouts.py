"""How long a batch of payouts takes from its making to the bank's answer, and how much memory.

100,000 owners have each requested a payout. The commands run as processes, one after the other: a batch is
made, approved by somebody else, sent, exported as pain.001, and its status is imported from a pain.002 that
has one payout in ten as returned. Writing the bank's answer is not measured.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg

from benchmarks.figure import Figure
from benchmarks.intake import dsn
from benchmarks.server import BenchmarkServer
from buffer_pipeline.database import database_clock
from buffer_pipeline.payouts import PayoutMethod, request_payout, set_destination
from buffer_pipeline.wallet import deposit

PAYOUTS: Final = 100_000
SECONDS_MAX: Final = 60
MEGABYTES_MAX: Final = 300

_A_COMMIT: Final = 1_000
_RETURNED_EVERY: Final = 10
_IBAN: Final = "FR1420041010050500013M02606"
_DEBTOR: Final = {
    "BUFFER_PAYOUT_DEBTOR_NAME": "shop",
    "BUFFER_PAYOUT_DEBTOR_IBAN": "DE89370400440532013000",
    "BUFFER_PAYOUT_DEBTOR_BIC": "COBADEFFXXX",
}
_NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"


def measure(server: BenchmarkServer, *, payouts: int = PAYOUTS) -> list[Figure]:
    """Measure one batch of `payouts` payouts."""
    with server.books() as database, tempfile.TemporaryDirectory() as folder:
        with psycopg.connect(dsn(server, database)) as connection:
            _request(connection, payouts)
        server.admin("VACUUM (ANALYZE)", database=database)
        environment = {**os.environ, **_DEBTOR, "BUFFER_DATABASE_URL": server.url(database)}
        message, answer = Path(folder) / "pain.001.xml", Path(folder) / "pain.002.xml"
        steps: dict[str, tuple[float, float]] = {}
        made = _run(steps, "made", "batch", "make", "--currency", "EUR", "--by", "admin-1", env=environment)
        batch = str(json.loads(made)["batch_id"])
        _run(steps, "approved", "batch", "approve", batch, "--by", "admin-2", env=environment)
        _run(steps, "sent", "batch", "send", batch, "--by", "admin-1", env=environment)
        export = ("export", batch, "--format", "pain.001", "--out", str(message))
        _run(steps, "exported", *export, env=environment)
        answer.write_text("".join(_answer(message.read_text())))
        status = ("import-status", batch, str(answer), "--format", "pain.002", "--by", "admin-1")
        marked = json.loads(_run(steps, "answered", *status, env=environment))
        assert marked["paid"] + marked["returned"] == payouts, marked
    each = ", ".join(f"{step} {seconds:.1f} s" for step, (seconds, _) in steps.items())
    seconds = sum(seconds for seconds, _ in steps.values())
    memory = max(memory for _, memory in steps.values())
    return [
        _figure(f"{payouts:,} payouts ({each}), in all", seconds, "s", at_most=SECONDS_MAX),
        _figure("largest process", memory, "MB", at_most=MEGABYTES_MAX),
    ]


def _request(connection: psycopg.Connection, payouts: int) -> None:
    """Give `payouts` owners money and a destination, and request all of it."""
    now = database_clock(connection) - timedelta(days=4)
    for number in range(payouts):
        owner = f"worker-{number}"
        deposit(connection, owner=owner, amount="100.00", currency="EUR", reference=owner, now=now)
        set_destination(
            connection,
            owner=owner,
            method=PayoutMethod.IBAN,
            account=_IBAN,
            holder_name="a worker",
            by="admin-1",
            reason="benchmark",
            now=now,
        )
        request_payout(
            connection, owner=owner, currency="EUR", everything=True, by=owner, reference=owner, now=now
        )
        if number % _A_COMMIT == 0:
            connection.commit()
    connection.commit()


def _run(steps: dict[str, tuple[float, float]], step: str, *command: str, env: dict[str, str]) -> str:
    """Run a command of `payout`; add its seconds and megabytes to `steps`, and return what it printed."""
    program = Path(sys.executable).with_name("buffer-pipeline")
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen([program, "--json", "payout", *command], stdout=output, env=env) as process,
    ):
        # Of this process only: the usage of all children is that of the largest so far.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read()
    assert process.returncode == 0, printed
    steps[step] = (time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e6)
    return printed


def _answer(message: str) -> Iterator[str]:
    """Yield a bank's pain.002 for a pain.001: one payout in ten came back."""
    found = re.search("<MsgId>(.*?)</MsgId>", message)
    assert found, message[:1000]
    yield f'<Document xmlns="{_NAMESPACE}"><CstmrPmtStsRpt><GrpHdr><MsgId>status-1</MsgId></GrpHdr>'
    yield f"<OrgnlGrpInfAndSts><OrgnlMsgId>{found[1]}</OrgnlMsgId></OrgnlGrpInfAndSts><OrgnlPmtInfAndSts>"
    for number, line in enumerate(re.finditer("<EndToEndId>(.*?)</EndToEndId>", message)):
        status = "<TxSts>ACSC</TxSts>"
        if number % _RETURNED_EVERY == 0:
            status = "<TxSts>RJCT</TxSts><StsRsnInf><Rsn><Cd>AC04</Cd></Rsn></StsRsnInf>"
        yield f"<TxInfAndSts><OrgnlEndToEndId>{line[1]}</OrgnlEndToEndId>{status}</TxInfAndSts>"
    yield "</OrgnlPmtInfAndSts></CstmrPmtStsRpt></Document>"


def _figure(name: str, value: float, unit: str, *, at_most: float) -> Figure:
    return Figure(
        benchmark="payouts",
        name=name,
        value=value,
        unit=unit,
        yardstick="",
        yardstick_value=None,
        ratio=None,
        goal=f"at most {at_most:g} {unit}",
        met=value <= at_most,
    )
