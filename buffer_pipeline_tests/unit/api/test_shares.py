"""Earnings with shares: each amount is in the currency of its earning."""

from typing import Any, Final

import pytest

from buffer_pipeline_tests.support.api import Api

SHARES: Final = [{"kind": "PAYEE"}, {"kind": "FEE", "owner": "fees", "percent": "12"}]


def earning(name: str, **changes: Any) -> dict[str, Any]:
    """Return an earning that is divided between its payee and a fee."""
    stated = {"reference": name, "job": name, "payee": "worker-17", "payer": "client-3", "amount": "1000"}
    return {**stated, "currency": "PHP", "shares": SHARES, **changes}


def amounts_of(hold: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Return the currency of an added hold, and its shares' kinds and amounts."""
    return hold["currency"], [(share["kind"], share["amount"]) for share in hold["shares"]]


@pytest.mark.parametrize(
    ("currency", "amounts"),
    [("PHP", ("880.00", "120.00")), ("JPY", ("880", "120")), ("KWD", ("880.000", "120.000"))],
)
def test_shares_of_an_earning_are_in_its_currency(api: Api, currency: str, amounts: tuple[str, str]) -> None:
    """With the places of the currency."""
    body = earning(f"one-{currency}", currency=currency)

    added = api.platform.post("/earnings", body).json()

    assert amounts_of(added) == (currency, list(zip(("PAYEE", "FEE"), amounts, strict=True)))


def test_shares_of_many_earnings_are_each_in_their_currency(api: Api) -> None:
    """Also beside one that is refused."""
    earnings = [
        earning("many-1"),
        earning("many-2", amount="-1"),
        earning("many-3", currency="JPY"),
        earning("many-4", shares=[]),
    ]

    answer = api.platform.post("/earnings/many", {"earnings": earnings})

    first, refused, second, plain = answer.json()["outcomes"]
    assert amounts_of(first["hold"]) == ("PHP", [("PAYEE", "880.00"), ("FEE", "120.00")])
    assert refused["hold"] is None
    assert amounts_of(second["hold"]) == ("JPY", [("PAYEE", "880"), ("FEE", "120")])
    assert amounts_of(plain["hold"]) == ("PHP", [])
