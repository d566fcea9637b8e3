"""How much slower a release is if one owner in a hundred owes something, which it then recovers."""

from datetime import timedelta
from decimal import Decimal
from statistics import median
from typing import Final

from sqlalchemy import Engine, text

from benchmarks.drain import Contender, rate_of, release
from benchmarks.figure import Figure
from benchmarks.fill import Shape, fill
from benchmarks.server import BenchmarkServer
from buffer_pipeline.database import database_clock
from buffer_pipeline.debts import ClawbackTo, claw_back
from buffer_pipeline.wallet import withdraw

HOLDS: Final = 1_000_000
WALLETS: Final = 100_000
TURNS: Final = 5
ONE_IN: Final = 100

# One released hold of every hundredth wallet, with the wallet's balance.
_DEBTORS: Final = """
SELECT hold.hold_id, wallet.owner, wallet.balance_minor, hold.amount_minor
FROM buffer.wallet
INNER JOIN LATERAL (
  SELECT hold_id, amount_minor FROM buffer.hold
  WHERE payee_wallet_id = wallet.wallet_id AND hold_id <= :settled
  ORDER BY hold_id LIMIT 1
) AS hold ON TRUE
WHERE wallet.wallet_id % :one_in = 0 AND wallet.balance_minor > 0
"""


def measure(server: BenchmarkServer, *, holds: int = HOLDS, wallets: int = WALLETS) -> list[Figure]:
    """Drain the same books without debts and with debts of one wallet in a hundred, in turns."""
    with server.books() as without, server.books() as indebted:
        for books in (without, indebted):
            fill(server, books, Shape(due=holds, wallets=wallets, settled=wallets))
        engine = server.engine(indebted)
        debts = _take_back(engine, settled=wallets)
        engine.dispose()
        server.admin("VACUUM (ANALYZE)", database=indebted)
        rates: dict[str, list[float]] = {without: [], indebted: []}
        contender: Contender = release
        for _ in range(TURNS):
            for books, taken in rates.items():
                taken.append(rate_of(server, books, contender)[0])
        rate, yardstick = median(rates[indebted]), median(rates[without])
    return [
        Figure(
            benchmark="debts",
            name=f"{holds:,} holds, {debts:,} of {wallets:,} wallets owe something",
            value=rate,
            unit="holds/s",
            yardstick="without debts",
            yardstick_value=yardstick,
            ratio=rate / yardstick,
            goal="at least 0.85 times",
            met=rate / yardstick >= 0.85,
        )
    ]


def _take_back(engine: Engine, *, settled: int) -> int:
    """Let every hundredth payee spend their balance, and take back what they earned; return how many."""
    with engine.begin() as connection:
        now = database_clock(connection) - timedelta(seconds=1)
        rows = connection.execute(text(_DEBTORS), {"settled": settled, "one_in": ONE_IN}).all()
        for row in rows:
            withdraw(
                connection,
                owner=row.owner,
                amount=Decimal(row.balance_minor) / 100,
                currency="PHP",
                reference=f"spent-{row.owner}",
                now=now,
            )
            claw_back(
                connection,
                hold_id=row.hold_id,
                amount=Decimal(row.amount_minor) / 100,
                to=ClawbackTo.PAYER,
                by="admin-1",
                reason="a chargeback",
                reference=f"taken-{row.hold_id}",
                now=now,
            )
    return len(rows)
