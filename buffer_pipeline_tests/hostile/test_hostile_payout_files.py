"""Broken and malicious status files, and batches with odd texts."""

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
import sepaxml
from hypothesis import event, given
from hypothesis import strategies as st
from lxml import etree

from buffer_pipeline.payouts.files.export import PayoutFileRefused, export_formats
from buffer_pipeline.payouts.files.iso20022.messages import PART_ELEMENTS_MAX
from buffer_pipeline.payouts.files.reasons import REASON_TEXT_LENGTH_MAX, reason_text
from buffer_pipeline.payouts.files.status import StatusFileRefused, status_formats
from buffer_pipeline.payouts.result import PayoutResult
from buffer_pipeline_tests.support.hostile import cases, texts
from buffer_pipeline_tests.support.hostile_files import broken
from buffer_pipeline_tests.support.payout_batches import ACCOUNT, payout_line, written
from buffer_pipeline_tests.support.status_files import (
    NAMESPACE,
    camt_054,
    detail,
    entry,
    pain_002,
    reason,
    results,
    transaction,
)

WHOLE: Final = {
    "csv": b"end_to_end_id,outcome,reason\npayout-41,PAID,\npayout-42,RETURNED,AC04\n",
    "pain.002": pain_002(
        "pain.002.001.10",
        transaction("payout-41", "ACSC"),
        transaction("payout-42", "RJCT", "AC04", "closed"),
    ),
    "camt.054": camt_054(
        "camt.054.001.08",
        entry("camt.054.001.08", detail("camt.054.001.08", "payout-41")),
        entry(
            "camt.054.001.08",
            detail("camt.054.001.08", "payout-42", direction="CRDT", returned=reason("AC04")),
            direction="CRDT",
        ),
    ),
}
"""A sound file of each format, with two results."""

XML: Final = ("pain.002", "camt.054")
TAGS: Final = (
    *("Document", "CstmrPmtStsRpt", "OrgnlGrpInfAndSts", "OrgnlPmtInfAndSts", "PmtInfSts", "TxInfAndSts"),
    *("TxSts", "GrpSts", "OrgnlMsgId", "OrgnlEndToEndId", "StsRsnInf", "Rsn", "Cd", "AddtlInf"),
    *("BkToCstmrDbtCdtNtfctn", "Ntfctn", "Ntry", "CdtDbtInd", "Sts", "RvslInd", "NtryDtls", "TxDtls"),
    *("Refs", "EndToEndId", "RtrInf", "Prtry"),
)
ROOTS: Final = {"pain.002": "CstmrPmtStsRpt", "camt.054": "BkToCstmrDbtCdtNtfctn"}

ATTACKS: Final = {
    "a doctype alone": "<!DOCTYPE Document>",
    "a doctype elsewhere": '<!DOCTYPE Document SYSTEM "file:///etc/passwd">',
    "a file": '<!DOCTYPE Document [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    "an address": '<!DOCTYPE Document [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]>',
    "a parameter": '<!DOCTYPE Document [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p; <!ENTITY x "">]>',
    "an unparsed entity": (
        '<!DOCTYPE Document [<!NOTATION n SYSTEM "n"><!ENTITY x SYSTEM "file:///etc/passwd" NDATA n>]>'
    ),
    "a billion laughs": "<!DOCTYPE Document [<!ENTITY x0 'ha'>"
    + "".join(f"<!ENTITY x{n} '{f'&x{n - 1};' * 10}'>" for n in range(1, 10))
    + "<!ENTITY x '&x9;'>]>",
    "a quadratic blowup": f"<!DOCTYPE Document [<!ENTITY x '{'ha' * 50_000}'>]>",
    "a loop": "<!DOCTYPE Document [<!ENTITY x '&y;'><!ENTITY y '&x;'>]>",
    "a default of an attribute": "<!DOCTYPE Document [<!ATTLIST TxSts a CDATA 'ha'><!ENTITY x ''>]>",
}


@cases(600)
@given(format_name=st.sampled_from(status_formats()), content=st.binary(max_size=300))
def test_random_bytes_are_refused(format_name: str, content: bytes) -> None:
    """No random file is a status file."""
    with pytest.raises(StatusFileRefused):
        results(format_name, content)


@cases(1_200)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_has_no_other_results(data: st.DataObject) -> None:
    """Bytes are changed, removed, inserted, or in another encoding."""
    format_name = data.draw(st.sampled_from(status_formats()))
    content = data.draw(broken(WHOLE[format_name]))

    try:
        found, _ = results(format_name, content)
    except StatusFileRefused as refusal:
        event("refused")
        assert len(str(refusal)) < 400
        assert str(refusal).isprintable()
        return

    event("read")
    assert len(found) <= 2
    assert all(0 < len(each.end_to_end_id) <= 35 for each in found if isinstance(each, PayoutResult))
    assert all((each.reason is None) == (each.outcome == "PAID") for each in found)


@pytest.mark.parametrize("format_name", XML)
def test_a_message_that_is_cut_off_is_refused(format_name: str) -> None:
    """Wherever it is cut."""
    content = WHOLE[format_name].rstrip()

    for size in range(len(content)):
        with pytest.raises(StatusFileRefused):
            results(format_name, content[:size])


trees: Final = st.recursive(
    st.tuples(
        st.sampled_from(TAGS), st.sampled_from(("", "RJCT", "ACSC", "BOOK", "DBIT", "CRDT", "batch-7", "x"))
    ),
    lambda inner: st.tuples(st.sampled_from(TAGS), st.lists(inner, max_size=5)),
    max_leaves=40,
)


def markup(tree: object) -> str:
    """Return a drawn tree as XML."""
    assert isinstance(tree, tuple)
    tag, content = tree
    return f"<{tag}>{content if isinstance(content, str) else ''.join(map(markup, content))}</{tag}>"


@cases(1_200)
@given(format_name=st.sampled_from(XML), inside=st.lists(trees, max_size=6))
def test_any_tree_is_read_or_refused(format_name: str, inside: list[object]) -> None:
    """Known elements in places where the schema does not have them."""
    version = {"pain.002": "pain.002.001.03", "camt.054": "camt.054.001.02"}[format_name]
    root = ROOTS[format_name]
    content = (
        f'<Document xmlns="{NAMESPACE}{version}"><{root}>{"".join(map(markup, inside))}</{root}></Document>'
    )

    try:
        found, _ = results(format_name, content.encode())
    except StatusFileRefused:
        event("refused")
        return

    event("read")
    assert all(each.end_to_end_id for each in found if isinstance(each, PayoutResult))


@pytest.mark.parametrize("format_name", XML)
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("used", ["", "&x;"])
def test_a_doctype_is_refused(format_name: str, attack: str, used: str) -> None:
    """So no entity is expanded, and no other file or address is opened, whether the entity is used or not."""
    beginning, content = WHOLE[format_name].split(b"\n", 1)
    content = content.replace(b"payout-41", b"payout-41" + used.encode())

    with pytest.raises(StatusFileRefused) as refusal:
        results(format_name, b"\n".join((beginning, ATTACKS[attack].encode(), content)))

    assert "root:" not in str(refusal.value)


@pytest.mark.parametrize("format_name", XML)
def test_an_entity_in_an_attribute_of_the_root_is_refused(format_name: str) -> None:
    """It is expanded while the root is read, within the limits of libxml2."""
    content = WHOLE[format_name].split(b"\n", 1)[1].replace(b"<Document", b'<Document a="&x;"', 1)

    with pytest.raises(StatusFileRefused):
        results(format_name, ATTACKS["a billion laughs"].encode() + content)


@pytest.mark.parametrize("format_name", XML)
def test_what_is_too_large_is_refused(format_name: str) -> None:
    """A text, the depth of the elements, and the number of elements of one payment."""
    content = WHOLE[format_name]
    huge = {
        "text": content.replace(b"payout-41", b"x" * 11_000_000),
        "attribute": content.replace(b"<Document", b'<Document a="' + b"x" * 11_000_000 + b'"', 1),
        "comment": content.replace(b"<Document", b"<!--" + b"x" * 11_000_000 + b"--><Document", 1),
        "depth": content.replace(b"payout-41", b"<a>" * 300 + b"</a>" * 300),
        "elements": content.replace(b"payout-41", b"payout-41" + b"<a/>" * (PART_ELEMENTS_MAX + 1)),
    }

    for what, each in huge.items():
        with pytest.raises(StatusFileRefused) as refusal:
            results(format_name, each)
        assert refusal.value.fault, what


def test_comments_and_foreign_elements_are_passed_over() -> None:
    """A comment does not cut an id, and an element of another namespace is not taken for a status."""
    content = (
        WHOLE["pain.002"]
        .replace(b"payout-41", b"payout<!-- a bank's note -->-41")
        .replace(b"<TxSts>RJCT", b'<TxSts xmlns="urn:other">ACSC</TxSts><?note?><TxSts>RJCT')
    )

    found, _ = results("pain.002", content)

    assert [(each.end_to_end_id, each.outcome) for each in found] == [
        ("payout-41", "PAID"),
        ("payout-42", "RETURNED"),
    ]


@cases(400)
@given(code=st.one_of(st.none(), texts, st.just("AC04")), said=st.lists(texts, max_size=3))
def test_a_reason_is_one_short_line(code: str | None, said: list[str]) -> None:
    """Whatever the bank wrote."""
    reason_shown = reason_text(code, said)

    assert 0 < len(reason_shown) <= REASON_TEXT_LENGTH_MAX
    assert reason_shown.isprintable()


SCHEMA: Final = etree.XMLSchema(file=str(Path(sepaxml.__file__).parent / "schemas" / "pain.001.001.09.xsd"))


@cases(600)
@given(
    format_name=st.sampled_from(export_formats()),
    owner=texts,
    end_to_end_id=st.one_of(texts, st.just("payout-41")),
    account=st.one_of(texts, st.just(ACCOUNT)),
    holder_name=st.one_of(texts, st.none()),
    amount=st.decimals(allow_nan=True, allow_infinity=True),
)
def test_odd_payouts_are_refused_or_written_validly(
    format_name: str,
    owner: str,
    end_to_end_id: str,
    account: str,
    holder_name: str | None,
    amount: Decimal,
) -> None:
    """The message is valid, and CSV is read back as it was."""
    line = payout_line(
        41,
        owner=owner,
        end_to_end_id=end_to_end_id,
        account=account,
        holder_name=holder_name,
        amount=amount,
    )

    try:
        content = written(format_name, line, total=amount)
    except PayoutFileRefused as refusal:
        event("refused")
        assert refusal.payout_id in {41, None}
        return

    event("written")
    if format_name == "pain.001":
        SCHEMA.assertValid(etree.fromstring(content))
    assert amount.is_finite()


def test_skipped_statuses_are_few_names() -> None:
    """A file cannot fill the counter with long names: a status is a code of four characters."""
    skipped: Counter[str] = results("pain.002", pain_002("pain.002.001.10", transaction("x", "ABCD")))[1]

    assert skipped == {"ABCD": 1}
    with pytest.raises(StatusFileRefused, match="not a code"):
        results("pain.002", pain_002("pain.002.001.10", transaction("x", "ABCDE")))
