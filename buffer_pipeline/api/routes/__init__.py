"""The endpoints, one file for each subject."""

from typing import Final

from fastapi import APIRouter

from buffer_pipeline.api.routes import (
    backjobs,
    debts,
    earnings,
    freezes,
    holds,
    owners,
    payout_batches,
    payouts,
    rules,
    test_clock,
    wallets,
)

ROUTERS: Final[tuple[APIRouter, ...]] = (
    earnings.router,
    holds.router,
    freezes.router,
    backjobs.router,
    wallets.router,
    owners.router,
    debts.router,
    payouts.router,
    payout_batches.router,
    rules.router,
    test_clock.router,
)
