"""Wallets, statements, deposits and withdrawals."""

from typing import Annotated, Final

from fastapi import Query
from pydantic import ConfigDict

from buffer_pipeline.api.bodies import Amount, Body, Filters, Time
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.documents import InCurrency
from buffer_pipeline.api.endpoint import NOT_FOR_OPERATORS, read, write
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.api.routes.holds import Cursor, Limit
from buffer_pipeline.reads import Page, StatementLine, Wallet
from buffer_pipeline.reads import find_wallet as find_wallet_read
from buffer_pipeline.reads import list_wallets as list_wallets_read
from buffer_pipeline.reads import statement as statement_read
from buffer_pipeline.wallet import Movement
from buffer_pipeline.wallet import deposit as deposit_verb
from buffer_pipeline.wallet import withdraw as withdraw_verb

router: Final = new_router("wallets")


class WalletFilters(Filters):
    """Which wallets to list."""

    owner: str | None = None
    currency: str | None = None
    oldest_first: bool = False
    limit: Limit = 10
    cursor: Cursor = None


class WalletFilter(Filters):
    """Whose wallet."""

    owner: str
    currency: str


class StatementFilters(Filters):
    """Whose transactions, and as of when."""

    owner: str
    currency: str | None = None
    as_of: Time | None = None
    oldest_first: bool = False
    limit: Limit = 10
    cursor: Cursor = None


class MovementBody(Body):
    """Money from outside, or to outside."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"owner": "worker-17", "amount": "50.00", "currency": "PHP", "reference": "movement-1"}
            ]
        }
    )

    owner: str
    amount: Amount
    currency: str
    reference: str
    by: str | None = None
    reason: str | None = None


@read(router, "/wallets", answer=Wallet, page=True)
def list_wallets(call: Call, filters: Annotated[WalletFilters, Query()]) -> Page[Wallet]:
    """List wallets, the newest first."""
    return list_wallets_read(call.connection, **filters.facts())


@read(router, "/wallet", answer=Wallet)
def find_wallet(call: Call, filters: Annotated[WalletFilter, Query()]) -> Wallet:
    """Find an owner's wallet in a currency."""
    return find_wallet_read(call.connection, **filters.facts())


@read(router, "/statement", answer=StatementLine, page=True)
def statement(call: Call, filters: Annotated[StatementFilters, Query()]) -> Page[StatementLine]:
    """List an owner's transactions, the newest first, with the balance after each."""
    return statement_read(call.connection, **filters.facts())


@write(router, "/deposits", answer=Movement, with_currency=True, not_for=NOT_FOR_OPERATORS)
def deposit(call: Call, body: MovementBody) -> InCurrency:
    """Add money from outside to a balance."""
    return InCurrency(deposit_verb(call.connection, **body.facts(), now=call.now), body.currency)


@write(router, "/withdrawals", answer=Movement, with_currency=True, not_for=NOT_FOR_OPERATORS)
def withdraw(call: Call, body: MovementBody) -> InCurrency:
    """Take money out of a balance; pending earnings cannot be withdrawn."""
    return InCurrency(withdraw_verb(call.connection, **body.facts(), now=call.now), body.currency)
