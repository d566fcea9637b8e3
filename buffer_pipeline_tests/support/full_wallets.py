"""Wallets that are nearly full, and earnings of a few centavos."""

from typing import Final

from sqlalchemy import Connection, text

from buffer_pipeline.database import fetch
from buffer_pipeline.intake import Earning
from buffer_pipeline.money import AMOUNT_MINOR_MAX, WALLET_MINOR_MAX
from buffer_pipeline_tests.support.builders import JOB, NOON, PAYEE, PAYER

LINES: Final = text(
    """
    INSERT INTO buffer.transaction (
      type, from_account, to_account, to_wallet_id, currency, amount_minor, balance_after_minor, reference,
      recorded_at
    )
    SELECT
      'OPENING_BALANCE', 'OPENING', 'BALANCE', wallet_id, currency, amount_minor,
      CAST(sum(amount_minor) OVER (ORDER BY line) AS bigint), owner || '-' || line, CAST(:now AS timestamptz)
    FROM (
      SELECT
        wallet.*, line,
        CASE line WHEN 0 THEN CAST(:rest_minor AS bigint) ELSE CAST(:line_minor AS bigint) END
          AS amount_minor
      FROM buffer.wallet
      CROSS JOIN generate_series(0, CAST(:lines AS bigint)) AS line
      WHERE owner = :owner
    ) AS line
    WHERE amount_minor > 0
    ORDER BY line
    """
)


def fill_wallet(connection: Connection, owner: str, *, capacity_minor: int) -> None:
    """Give an owner without lines a balance that leaves this capacity, line by line."""
    balance_minor = WALLET_MINOR_MAX - capacity_minor
    lines, rest_minor = divmod(balance_minor, AMOUNT_MINOR_MAX)
    fetch(connection, "currencies/add_currencies", currencies=["PHP"], places=[2])
    fetch(connection, "wallet/ensure_wallets", owners=[owner], currencies=["PHP"])
    parameters = {"owner": owner, "lines": lines, "rest_minor": rest_minor, "line_minor": AMOUNT_MINOR_MAX}
    connection.execute(LINES, {**parameters, "now": NOON})
    connection.execute(
        text("UPDATE buffer.wallet SET balance_minor = :balance WHERE owner = :owner"),
        {"owner": owner, "balance": balance_minor},
    )


def earning(reference: str, *, amount: str = "0.60", payee: str = PAYEE) -> Earning:
    """Return an earning of a few centavos."""
    return Earning(reference=reference, job=JOB, payee=payee, payer=PAYER, amount=amount, currency="PHP")
