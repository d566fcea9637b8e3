"""The decimal places of each currency stand in the books, and no longer follow the installed list."""

import sqlalchemy as sa
from alembic import op

from buffer_pipeline.errors import InvalidInput, PaymentBufferError
from buffer_pipeline.money import listed_places

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# By places: ISO 4217's list one of 2026-01-01, and what has left it since 2010, with the places that it
# had there. By these the amounts in the books were read, whatever the installed list has by now.
BY_PLACES = {
    0: ("BIF BYR CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
    2: (
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD "
        "CDF CHE CHF CHW CNY COP COU CRC CUC CUP CVE CZK DKK DOP DZD EEK EGP ERN ETB EUR FJD FKP GBP GEL GHS "
        "GIP GMD GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL "
        "LTL LVL MAD MDL MGA MKD MMK MNT MOP MRO MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB "
        "PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STD STN SVC SYP "
        "SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN USS UYU UZS VED VEF VES WST XAD XCD XCG YER ZAR ZMK "
        "ZMW ZWG ZWL"
    ),
    3: ("BHD IQD JOD KWD LYD OMR TND"),
    4: ("CLF UYW"),
}

# A foreign key locks the row that it refers to in the owner's name, who needs the right to update some column
# of it for that. The trigger refuses the update itself.
_CURRENCY = """
CREATE TRIGGER currency_is_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.currency
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
REVOKE UPDATE, DELETE, TRUNCATE ON buffer.currency FROM CURRENT_USER;
GRANT UPDATE (currency) ON buffer.currency TO CURRENT_USER;
GRANT SELECT ON buffer.currency TO buffer_platform, buffer_releaser, buffer_reader;
GRANT INSERT (currency, places) ON buffer.currency TO buffer_platform;
"""


def upgrade() -> None:
    op.create_table(
        "currency",
        sa.Column("currency", sa.Text, primary_key=True),
        sa.Column("places", sa.SmallInteger, nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_is_iso_4217"),
        sa.CheckConstraint("places BETWEEN 0 AND 9", name="currency_places_in_range"),
        schema="buffer",
    )
    # Locks the wallets, so that no other currency comes in until the table is filled.
    op.execute(
        "ALTER TABLE buffer.wallet ADD CONSTRAINT wallet_currency_fkey"
        " FOREIGN KEY (currency) REFERENCES buffer.currency (currency) NOT VALID"
    )
    _fill()
    op.execute("ALTER TABLE buffer.wallet VALIDATE CONSTRAINT wallet_currency_fkey")
    op.execute(_CURRENCY)


def downgrade() -> None:
    op.drop_constraint("wallet_currency_fkey", "wallet", schema="buffer")
    op.drop_table("currency", schema="buffer")


def _fill() -> None:
    """Store the places of the currencies that the books have."""
    connection = op.get_bind()
    places = {code: number for number, codes in BY_PLACES.items() for code in codes.split()}
    found = list(connection.scalars(sa.text("SELECT DISTINCT currency FROM buffer.wallet ORDER BY currency")))
    for code in found:
        if code not in places:
            # Newer than this file, so it came in by the installed list.
            try:
                places[code] = listed_places(code)
            except InvalidInput:
                raise PaymentBufferError(
                    f"currency {code!r}: is in the books, and neither this version nor the installed list of"
                    " ISO 4217 has its decimal places; nothing was migrated"
                ) from None
    if found:
        connection.execute(
            sa.text("INSERT INTO buffer.currency (currency, places) VALUES (:currency, :places)"),
            [{"currency": code, "places": places[code]} for code in found],
        )
