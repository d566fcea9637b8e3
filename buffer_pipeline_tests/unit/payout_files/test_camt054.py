"""A bank's camt.054, as written by hand and as a library writes it."""

import pytest

from buffer_pipeline.payouts.files.status import StatusFileRefused
from buffer_pipeline_tests.support.status_files import (
    CAMT_054,
    by_library,
    camt_054,
    detail,
    element,
    entry,
    pairs,
    reason,
    results,
)

pytestmark = pytest.mark.parametrize("version", CAMT_054)


def test_booked_debits_are_paid_and_returns_are_returned(version: str) -> None:
    """Whether each has an entry of its own or all have one together."""
    content = camt_054(
        version,
        entry(version, detail(version, "payout-41"), detail(version, "payout-42")),
        entry(
            version,
            detail(version, "payout-43", direction="CRDT", returned=reason("AC04", "closed")),
            direction="CRDT",
        ),
        entry(version, detail(version, "payout-44")),
    )

    for each in (content, by_library(content)):
        found, skipped = results("camt.054", each)
        assert pairs(found) == [
            ("payout-41", "PAID", None),
            ("payout-42", "PAID", None),
            ("payout-43", "RETURNED", "AC04: account closed (closed)"),
            ("payout-44", "PAID", None),
        ]
        assert not skipped


def test_what_is_not_final_or_not_a_payout_is_counted(version: str) -> None:
    """Nothing of it is a result."""
    credit = detail(version, "order-1", direction="CRDT")
    content = camt_054(
        version,
        entry(version, detail(version, "payout-41"), status="PDNG"),
        entry(version, credit, direction="CRDT"),
        entry(version, detail(version, "payout-42"), corrects=True),
        entry(version, credit, direction="CRDT", corrects=True),
        entry(version, detail(version, "order-2", returned=reason("MD06"))),
        entry(version, detail(version, None)),
        entry(version),
    )

    found, skipped = results("camt.054", by_library(content))

    assert found == []
    assert skipped == {
        "not booked": 1,
        "other credit": 1,
        "correction": 2,
        "return of a credit": 1,
        "without end-to-end id": 1,
        "without details": 1,
    }


def test_a_detail_may_have_its_own_direction(version: str) -> None:
    """From version 04 on, a return may be among the debits of one entry."""
    content = camt_054(
        version,
        entry(
            version,
            detail(version, "payout-41"),
            detail(version, "payout-42", direction="CRDT", returned=reason("AC06")),
        ),
    )

    found, skipped = results("camt.054", by_library(content))

    if version.endswith(".02"):
        assert pairs(found) == [("payout-41", "PAID", None)]
        assert skipped == {"return of a credit": 1}
    else:
        assert pairs(found)[1:] == [("payout-42", "RETURNED", "AC06: account blocked")]


def test_the_amount_is_the_details_or_that_of_the_only_one(version: str) -> None:
    """Of a payment what was ordered, of a return what was booked: a bank may have kept its charges."""
    details = element(
        "AmtDtls",
        element("InstdAmt", '<Amt Ccy="EUR">12.00</Amt>'),
        element("TxAmt", '<Amt Ccy="USD">11.00</Amt>'),
    )

    def with_details(written: str) -> str:
        place = "</CdtDbtInd>" if "</CdtDbtInd>" in written else "</Refs>"
        return written.replace(place, place + details)

    content = camt_054(
        version,
        entry(version, detail(version, "payout-41")),
        entry(version, with_details(detail(version, "payout-42"))),
        entry(
            version,
            with_details(detail(version, "payout-43", direction="CRDT", returned=reason("AC04"))),
            direction="CRDT",
        ),
        entry(version, detail(version, "payout-44"), detail(version, "payout-45")),
    )

    found, _ = results("camt.054", by_library(content))

    own = ("10.50", "EUR")
    paid, returned = {
        "camt.054.001.02": (("12.00", "EUR"), ("11.00", "USD")),
        "camt.054.001.04": (("12.00", "EUR"), own),
        "camt.054.001.08": (("12.00", "EUR"), own),
    }[version]
    unknown = (None, None) if version.endswith(".02") else own
    assert [(each.amount and str(each.amount), each.currency) for each in found] == [
        own,
        paid,
        returned,
        unknown,
        unknown,
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ((b"<CdtDbtInd>DBIT</CdtDbtInd>", b""), "entry has details before CdtDbtInd and Sts"),
        ((b"<CdtDbtInd>DBIT", b"<CdtDbtInd>debit"), "CdtDbtInd 'debit': unknown"),
        ((b"payout-41", b"payout-\x0741"), "not XML: "),
        ((b"payout-41", b"x" * 36), "needs at most 35 printable characters"),
        ((b"BkToCstmrDbtCdtNtfctn", b"BkToCstmrStmt"), "has BkToCstmrStmt where camt.054 has one"),
        ((b"xsd:camt.054.001.", b"xsd:camt.053.001."), "not camt.054: its root is"),
        ((b"xsd:camt.054.001.0", b"xsd:camt.054.001.1"), "is camt.054.001.1"),
    ],
)
def test_a_broken_message_is_refused(version: str, change: tuple[bytes, bytes], fault: str) -> None:
    """What is wrong is said."""
    content = camt_054(version, entry(version, detail(version, "payout-41"))).replace(*change)

    with pytest.raises(StatusFileRefused) as refusal:
        results("camt.054", content)

    assert fault in refusal.value.fault
