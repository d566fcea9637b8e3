"""Currencies, owners and wallets."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from buffer_pipeline.tables.schema import SCHEMA, metadata

# The decimal places of a currency. All its amounts are in that unit, so the row is written when the currency
# is first used and never changes, even if ISO 4217 does. See
# docs/decisions/0023-a-currencys-places-are-stored.md.
currency = Table(
    "currency",
    metadata,
    Column("currency", Text, primary_key=True, doc="ISO 4217"),
    Column("places", SmallInteger, nullable=False, doc="decimal places of its minor unit"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_is_iso_4217"),
    CheckConstraint("places BETWEEN 0 AND 9", name="currency_places_in_range"),
)

# An owner and their open freeze. The row is locked while a wallet of the owner is made, and while the owner
# is frozen or unfrozen. An owner whose wallets are older than revision 0017 may have no row.
owner = Table(
    "owner",
    metadata,
    Column("owner", Text, primary_key=True),
    Column(
        "owner_freeze_id",
        BigInteger,
        ForeignKey(f"{SCHEMA}.owner_freeze.owner_freeze_id", name="owner_open_freeze_fkey"),
        nullable=True,
    ),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="owner_name_length"),
)

wallet = Table(
    "wallet",
    metadata,
    Column("wallet_id", BigInteger, Identity(always=True), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("currency", Text, ForeignKey(currency.c.currency, name="wallet_currency_fkey"), nullable=False),
    Column("balance_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("pending_earnings_minor", BigInteger, nullable=False, server_default=text("0")),
    # The owner's open freeze. Adding a hold writes this row, and so reads the latest value.
    Column(
        "owner_freeze_id",
        BigInteger,
        ForeignKey(f"{SCHEMA}.owner_freeze.owner_freeze_id", name="wallet_owner_freeze_fkey"),
        nullable=True,
    ),
    # The sum of what is outstanding of the wallet's debts. Written under the wallet's lock, so that a release
    # learns from the row that it credits anyway whether there is something to recover.
    Column("debt_minor", BigInteger, nullable=False, server_default=text("0")),
    UniqueConstraint("owner", "currency", name="wallet_owner_currency_key"),
    # Target of the foreign keys of holds: a hold has the currency of its wallets.
    UniqueConstraint("wallet_id", "currency", name="wallet_id_currency_key"),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="wallet_owner_length"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="wallet_currency_is_iso_4217"),
    CheckConstraint("balance_minor >= 0", name="wallet_balance_not_negative"),
    CheckConstraint("pending_earnings_minor >= 0", name="wallet_pending_earnings_not_negative"),
    CheckConstraint("debt_minor >= 0", name="wallet_debt_not_negative"),
    # The limit is on the sum of both, which a release does not change. So a release never overflows: see
    # docs/decisions/0024.
    CheckConstraint(
        "balance_minor <= 9223372036854775807 - greatest(pending_earnings_minor, 0)",
        name="wallet_fits_a_bigint",
    ),
    # Free space on each page, so that the new version of a row is on the page of the old one (HOT update).
    postgresql_with={"fillfactor": 70},
)
