"""A bank's pain.002, as written by hand and as a library writes it."""

import pytest
from lxml import etree

from buffer_pipeline.payouts.files.status import StatusFileRefused, status_formats
from buffer_pipeline.payouts.result import Outcome, RestOfBatch
from buffer_pipeline_tests.support.payout_batches import payout_line, written
from buffer_pipeline_tests.support.status_files import (
    PAIN_002,
    by_library,
    element,
    pain_002,
    pairs,
    reason,
    results,
    transaction,
)

pytestmark = pytest.mark.parametrize("version", PAIN_002)


def rejected(code: str) -> str:
    """Return the elements of a rejection of the group."""
    return element("GrpSts", "RJCT") + element("StsRsnInf", reason(code))


def test_final_statuses_are_results(version: str) -> None:
    """Settled is paid, rejected is returned with its reason; the others are counted."""
    content = pain_002(
        version,
        transaction("payout-41", "ACSC"),
        transaction("payout-42", "RJCT", "AC04", "closed on 1 March", "ask the holder"),
        transaction("payout-43", "PDNG"),
        transaction("payout-44", "ACSP"),
        transaction("payout-45", "ACSP"),
        transaction("payout-46", "RJCT", None, "no such holder"),
        transaction("payout-47", "RJCT"),
        transaction("payout-48"),
    )

    for each in (content, by_library(content)):
        found, skipped = results("pain.002", each)
        assert pairs(found) == [
            ("payout-41", "PAID", None),
            ("payout-42", "RETURNED", "AC04: account closed (closed on 1 March ask the holder)"),
            ("payout-46", "RETURNED", "no such holder"),
            ("payout-47", "RETURNED", "no reason given"),
        ]
        # What a bank rejects it has never paid.
        assert [result.rejected for result in found] == [False, True, True, True]
        assert skipped == {"PDNG": 1, "ACSP": 2, "without status": 1}


def test_each_payout_of_an_export_is_reported(version: str) -> None:
    """The ids and the message's id are read back as they were written."""
    lines = [payout_line(number) for number in range(1, 50)]
    message = etree.fromstring(written("pain.001", *lines))
    ids = [each.text or "" for each in message.iter("{*}EndToEndId")]
    (answered,) = [each.text or "" for each in message.iter("{*}MsgId")]

    content = pain_002(version, *(transaction(each, "ACSC") for each in ids), message=answered)
    found, _ = results("pain.002", by_library(content), message="batch-7")

    assert [each.end_to_end_id for each in found] == [line.end_to_end_id for line in lines]


def test_a_status_above_is_that_of_payments_without_one(version: str) -> None:
    """Of the payment information, or else of the group; the reason too."""
    by_group = pain_002(
        version, transaction("payout-41"), transaction("payout-42", "ACSC"), group=rejected("FF01")
    )
    by_payment = pain_002(
        version,
        transaction("payout-41"),
        transaction("payout-42", "RJCT", "AC01"),
        payment=element("PmtInfSts", "RJCT") + element("StsRsnInf", reason("DT01")),
    )

    found, _ = results("pain.002", by_library(by_group))
    assert pairs(found[:-1]) == [
        ("payout-41", "RETURNED", "FF01: file format is wrong"),
        ("payout-42", "PAID", None),
    ]
    found, _ = results("pain.002", by_library(by_payment))
    assert pairs(found[:-1]) == [
        ("payout-41", "RETURNED", "DT01: date is wrong"),
        ("payout-42", "RETURNED", "AC01: account number is wrong"),
    ]


def test_a_final_status_above_is_that_of_payments_that_are_not_named(version: str) -> None:
    """Of the group, or of its payment information: what has a status of its own that goes on is left out."""
    named = (transaction("payout-41", "ACSC"), transaction("payout-42", "PDNG"), transaction("payout-43"))
    count = element("OrgnlNbOfTxs", "9")
    by_group = pain_002(version, *named, group=count + rejected("FF01"))
    by_payment = pain_002(
        version, *named, payment=element("PmtInfSts", "RJCT") + element("StsRsnInf", reason("DT01"))
    )
    settled = pain_002(version, group=element("GrpSts", "ACSC"))

    assert results("pain.002", by_library(by_group))[0][-1] == RestOfBatch(
        outcome=Outcome.RETURNED,
        reason="FF01: file format is wrong",
        named=frozenset({"payout-42"}),
        payouts=9,
    )
    assert results("pain.002", by_library(by_payment))[0][-1] == RestOfBatch(
        outcome=Outcome.RETURNED, reason="DT01: date is wrong", named=frozenset({"payout-42"})
    )
    assert results("pain.002", by_library(settled))[0] == [RestOfBatch(outcome=Outcome.PAID)]


def test_a_block_that_goes_on_overrides_its_group(version: str) -> None:
    """Its payments have its status, so nothing is said of those that are not named."""
    content = pain_002(
        version,
        transaction("payout-41", "ACSC"),
        group=rejected("FF01"),
        payment=element("PmtInfSts", "PDNG"),
    )

    found, _ = results("pain.002", by_library(content))

    assert pairs(found) == [("payout-41", "PAID", None)]


@pytest.mark.parametrize("code", ["AM05", "DUPL", "DU01", "DU02"])
def test_a_rejection_as_a_duplicate_is_no_return(version: str, code: str) -> None:
    """A file that was uploaded twice: the bank pays the first one, so nothing of it is back."""
    contents = [
        pain_002(version, group=rejected(code)),
        pain_002(version, payment=element("PmtInfSts", "RJCT") + element("StsRsnInf", reason(code))),
        pain_002(version, transaction("payout-41", "RJCT", code)),
        pain_002(version, transaction("payout-41"), group=rejected(code)),
    ]

    for content in contents:
        found, skipped = results("pain.002", by_library(content))
        assert found == []
        assert skipped["rejected as a duplicate"]


def test_an_amount_of_a_payment_is_read(version: str) -> None:
    """If the bank repeats it."""
    amount = element("OrgnlTxRef", element("Amt", '<InstdAmt Ccy="EUR">10.50</InstdAmt>'))
    content = pain_002(
        version, transaction("payout-41", "ACSC").replace("</TxInfAndSts>", f"{amount}</TxInfAndSts>")
    )

    (found,), _ = results("pain.002", by_library(content))

    assert (str(found.amount), found.currency) == ("10.50", "EUR")
    with pytest.raises(StatusFileRefused, match=r"amount '10,50': not such as 1250\.50"):
        results("pain.002", content.replace(b">10.50<", b">10,50<"))


def test_a_final_status_of_unknown_payments_is_refused(version: str) -> None:
    """Of a block of another file, or if the caller does not know the batch. It has the bank's reason."""
    of_another = pain_002(
        version, payment=element("PmtInfSts", "RJCT") + element("StsRsnInf", reason("FF01"))
    ).replace(b"<OrgnlPmtInfId>batch-7", b"<OrgnlPmtInfId>batch-8")

    with pytest.raises(StatusFileRefused, match=r"says RJCT \(FF01: file format is wrong\) of all"):
        results("pain.002", by_library(of_another))
    with pytest.raises(StatusFileRefused, match=r"says RJCT \(FF01: file format is wrong\) of all"):
        results("pain.002", by_library(pain_002(version, group=rejected("FF01"))), message=None)


def test_a_status_that_is_not_final_may_name_no_payment(version: str) -> None:
    """The bank took the file and will report later."""
    found, skipped = results("pain.002", by_library(pain_002(version, group=element("GrpSts", "ACCP"))))

    assert found == []
    assert not skipped


def test_an_answer_to_another_batch_is_refused(version: str) -> None:
    """Before any result. A caller that does not know the batch may leave it open."""
    content = pain_002(version, transaction("payout-41", "ACSC"), message="batch-8")

    with pytest.raises(StatusFileRefused, match="answers message 'batch-8', not 'batch-7'"):
        results("pain.002", content)
    assert len(results("pain.002", content, message=None)[0]) == 1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ((b"<OrgnlEndToEndId>payout-42</OrgnlEndToEndId>", b""), "has no end-to-end id"),
        ((b"payout-42", b"x" * 36), "needs at most 35 printable characters"),
        ((b"<TxSts>RJCT", b"<TxSts>rejected"), "status 'rejected': not a code"),
        ((b"CstmrPmtStsRpt", b"CstmrCdtTrfInitn"), "has CstmrCdtTrfInitn where pain.002 has one"),
        ((b"OrgnlGrpInfAndSts", b"Other"), "has no OrgnlGrpInfAndSts"),
        ((b"xsd:pain.002.001.", b"xsd:pain.002.002."), "is pain.002.002."),
        ((b"xsd:pain.002.001.", b"xsd:pain.001.001."), "not pain.002: its root is"),
        ((b"Document", b"Dokument"), "not pain.002: its root is"),
        ((b"</Document>", b""), "not XML: "),
        ((b"payout-42", b"payout&-42"), "not XML: "),
        ((b"payout-42", b"payout-\xff"), "not XML: "),
        ((b'encoding="UTF-8"', b'encoding="EBCDIC-X"'), "not XML: "),
    ],
)
def test_a_broken_message_is_refused(version: str, change: tuple[bytes, bytes], fault: str) -> None:
    """What is wrong is said."""
    content = pain_002(version, transaction("payout-41", "ACSC"), transaction("payout-42", "RJCT"))
    assert change[0] in content

    with pytest.raises(StatusFileRefused) as refusal:
        results("pain.002", content.replace(*change))

    assert fault in refusal.value.fault


def test_the_place_of_a_fault_is_named(version: str) -> None:
    """By line, and by the number of the transaction."""
    content = pain_002(version, transaction("payout-41", "ACSC"), "\n\n", transaction(None, "RJCT"))

    with pytest.raises(StatusFileRefused) as refusal:
        results("pain.002", content)

    assert (refusal.value.line, refusal.value.record) == (5, 2)
    assert str(refusal.value) == "status file, line 5, record 2: has no end-to-end id"


def test_other_encodings_are_read(version: str) -> None:
    """If the file's first line names them."""
    text = pain_002(version, transaction("payout-41", "RJCT", None, "ungültig")).decode()

    for encoding in ("utf-16", "iso-8859-1", "windows-1252"):
        content = text.replace("UTF-8", encoding).encode(encoding)
        assert results("pain.002", content)[0][0].reason == "ungültig"


def test_the_format_is_installed(version: str) -> None:
    """By its entry point."""
    assert version.rpartition(".001.")[0] in status_formats()
