"""Results in CSV."""

import io

import pytest

from buffer_pipeline.payouts.files.status import StatusFileRefused, detect_status_format
from buffer_pipeline_tests.support.payout_batches import payout_line, written
from buffer_pipeline_tests.support.status_files import camt_054, pain_002, pairs, results


def test_results_are_read_in_order() -> None:
    """A code alone gets its words; what has not ended is counted."""
    content = (
        b"end_to_end_id,outcome,reason\n"
        b"payout-41,PAID,\n"
        b"payout-42,RETURNED,AC04\n"
        b"\n"
        b'payout-43,RETURNED,"account holder moved, ask again"\n'
        b"payout-44,PENDING,\n"
        b"payout-45,RETURNED,\n"
    )

    found, skipped = results("csv", content)

    assert pairs(found) == [
        ("payout-41", "PAID", None),
        ("payout-42", "RETURNED", "AC04: account closed"),
        ("payout-43", "RETURNED", "account holder moved, ask again"),
        ("payout-45", "RETURNED", "no reason given"),
    ]
    assert skipped == {"PENDING": 1}


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_an_export_with_two_columns_more_is_a_status_file(line_end: bytes, mark: bytes) -> None:
    """A provider may fill in the file that it got, with a byte order mark and Windows' line ends."""
    head, *lines = written("csv", payout_line(41), payout_line(42)).splitlines()
    filled = [head + b",outcome,reason", *(line + b",PAID," for line in lines)]

    found, _ = results("csv", mark + line_end.join(filled))

    assert pairs(found) == [("payout-41", "PAID", None), ("payout-42", "PAID", None)]
    assert {(str(each.amount), each.currency) for each in found} == {("10.50", "EUR")}


@pytest.mark.parametrize(
    ("content", "line", "fault"),
    [
        (b"", 1, "is empty"),
        (b"outcome\nPAID\n", 1, "needs the column end_to_end_id once"),
        (b"end_to_end_id\npayout-41\n", 1, "needs the column outcome once"),
        (b"end_to_end_id,outcome,outcome\n", 1, "needs the column outcome once"),
        (b"end_to_end_id,outcome,reason,reason\n", 1, "column 'reason'"),
        (b"end_to_end_id,outcome,reasn\n", 1, "column 'reasn'"),
        (b"end_to_end_id,outcome\npayout-41,PAID\npayout-42\n", 3, "has 1 fields; the header has 2"),
        (b"end_to_end_id,outcome\npayout-41,paid\n", 2, "outcome 'paid': is none of PAID, RETURNED, PENDING"),
        (b"end_to_end_id,outcome,amount\nx,PAID,1.50 EUR\n", 2, "amount '1.50 EUR': not such as"),
        (b"end_to_end_id,outcome,amount\nx,PAID,-1\n", 2, "amount '-1': not such as"),
        (b"end_to_end_id,outcome\n,PAID\n", 2, "has no end-to-end id"),
        (b"end_to_end_id,outcome\n" + b"x" * 36 + b",PAID\n", 2, "needs at most 35"),
        (b"end_to_end_id,outcome\npayout\x0041,PAID\n", 2, ""),
        (b'end_to_end_id,outcome\n"payout-41,PAID\n', 2, "broken line"),
        (b"end_to_end_id,outcome\npayout-\xff,PAID\n", 2, "is not UTF-8 at byte 8"),
        ("end_to_end_id,outcome\n".encode("utf-16"), 1, "is not UTF-8 at byte 1"),
        (b"end_to_end_id,outcome\n" + b"x" * 2_000_000, 2, "is longer than"),
    ],
)
def test_a_broken_file_is_refused(content: bytes, line: int, fault: str) -> None:
    """With the line and what is wrong."""
    with pytest.raises(StatusFileRefused) as refusal:
        results("csv", content)

    assert refusal.value.line == line
    assert fault in refusal.value.fault
    assert str(refusal.value).startswith(f"status file, line {line}")


def test_an_empty_amount_is_none() -> None:
    """A provider may leave the column empty."""
    (found,), _ = results("csv", b"end_to_end_id,outcome,amount,currency\npayout-41,PAID,,\n")

    assert (found.amount, found.currency) == (None, None)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"end_to_end_id,outcome\n", "csv"),
        (b"", "csv"),
        (b"\xef\xbb\xbfend_to_end_id,outcome\n", "csv"),
        (pain_002("pain.002.001.10"), "pain.002"),
        (b"\xef\xbb\xbf\n" + pain_002("pain.002.001.03"), "pain.002"),
        (pain_002("pain.002.001.03").decode().replace("UTF-8", "utf-16").encode("utf-16"), "pain.002"),
        (camt_054("camt.054.001.08"), "camt.054"),
        (camt_054("camt.054.001.99"), "camt.054"),
    ],
)
def test_the_format_is_detected(content: bytes, name: str) -> None:
    """By the namespace of a message, and else it is csv. The file can be read from its beginning."""
    file = io.BytesIO(content)

    assert detect_status_format(file) == name
    assert file.read() == content


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (camt_054("camt.053.001.08"), "is XML and a camt.053; read are csv, camt.054, pain.002"),
        (b"<html></html>", "is XML and not a message of ISO 20022; read are csv"),
    ],
)
def test_another_message_is_not_guessed(content: bytes, fault: str) -> None:
    """The refusal says what it is and what is read."""
    with pytest.raises(StatusFileRefused, match=fault):
        detect_status_format(io.BytesIO(content))
