"""A batch as a file."""

import copy
import re
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any, Final

import pytest
import sepaxml
from lxml import etree

from buffer_pipeline.errors import InvalidInput, SettingError
from buffer_pipeline.payouts.files.debtor import Debtor, debtor_of
from buffer_pipeline.payouts.files.export import PayoutFileRefused, export_formats, write_payouts
from buffer_pipeline.payouts.holder_name import plain
from buffer_pipeline.payouts.lines import PayoutLine
from buffer_pipeline.settings import Settings
from buffer_pipeline_tests.support.payout_batches import (
    ACCOUNT,
    DEBTOR,
    header,
    many_header,
    many_lines,
    payout_line,
    written,
)

VERSIONS: Final = {"pain.001": "pain.001.001.09", "pain.001.001.03": "pain.001.001.03"}
"""Format -> version of the message."""

XML: Final = tuple(VERSIONS)


def schema(version: str) -> etree.XMLSchema:
    """Return the published schema of a message, which sepaxml ships."""
    return etree.XMLSchema(file=str(Path(sepaxml.__file__).parent / "schemas" / f"{version}.xsd"))


def test_the_formats() -> None:
    """The entry points name csv and both versions of pain.001."""
    assert export_formats() == ("csv", "pain.001", "pain.001.001.03")


def test_csv_has_a_line_per_payout() -> None:
    """With its own id, the bank's id, the owner, the account and the amount with its currency's places."""
    content = written(
        "csv", payout_line(41), payout_line(42, owner='shop "north", 2', amount=Decimal("0.10"))
    )

    assert content.decode().splitlines() == [
        "payout_id,end_to_end_id,owner,method,account,holder_name,amount,currency",
        f"41,payout-41,worker-41,IBAN,{ACCOUNT},Holder 41,10.50,EUR",
        f'42,payout-42,"shop ""north"", 2",IBAN,{ACCOUNT},Holder 42,0.10,EUR',
    ]


@pytest.mark.parametrize("format_name", XML)
@pytest.mark.parametrize(
    ("currency", "amount"),
    [("EUR", "10.50"), ("JPY", "1500"), ("KWD", "1.250"), ("PHP", "10000000000000.00")],
)
def test_the_message_is_valid(format_name: str, currency: str, amount: str) -> None:
    """Against the published schema, in a currency with two, no or three places."""
    lines = [
        payout_line(number, currency=currency, amount=Decimal(amount), holder_name=name)
        for number, name in enumerate(("worker-17", "Žofie & <Syn>", "株式会社", "x" * 200), 1)
    ]

    message = etree.fromstring(written(format_name, *lines))

    schema(VERSIONS[format_name]).assertValid(message)
    namespace = {"n": etree.QName(message).namespace or ""}
    assert message.xpath("//n:InstdAmt/text()", namespaces=namespace) == [amount] * 4
    assert message.xpath("//n:GrpHdr/n:CtrlSum/text()", namespaces=namespace) == [str(Decimal(amount) * 4)]


@pytest.mark.parametrize("format_name", XML)
def test_the_message_is_what_sepaxml_makes(format_name: str) -> None:
    """Apart from its ids and its time, which sepaxml takes from a random number and the clock."""
    lines = [payout_line(number, amount=Decimal(number) / 100) for number in range(1, 8)]
    transfer = sepaxml.SepaTransfer(
        {
            "name": "shop",
            "IBAN": "DE89370400440532013000",
            "BIC": "COBADEFFXXX",
            "batch": True,
            "currency": "EUR",
        },
        schema=VERSIONS[format_name],
    )
    for line in lines:
        transfer.add_payment(
            {
                "name": line.holder_name,
                "IBAN": line.account,
                "amount": int(line.amount * 100),
                "execution_date": header(line).execution_date,
                "description": f"payout {line.payout_id}",
                "endtoend_id": line.end_to_end_id,
            }
        )

    ours = etree.fromstring(written(format_name, *lines))
    theirs = etree.fromstring(transfer.export(validate=True))

    assert canonical(ours) == canonical(theirs)


def canonical(message: Any) -> str:
    """Return a message without its ids, its time and the blanks between its elements."""
    bare = copy.deepcopy(message)
    for each in bare.iter():
        each.tail = None
        named = etree.QName(each).localname
        if named in {"MsgId", "PmtInfId", "CreDtTm"} or not (each.text or "").strip():
            each.text = None
    etree.cleanup_namespaces(bare)
    return etree.tostring(bare, method="c14n2").decode()


@pytest.mark.parametrize("format_name", export_formats())
def test_the_same_batch_gives_the_same_bytes(format_name: str) -> None:
    """Whatever the caller's decimal context is; and another batch gives others."""
    lines = [payout_line(number) for number in range(1, 4)]

    first = written(format_name, *lines)
    with localcontext() as context:
        context.prec = 2
        again = written(format_name, *lines, total=Decimal("31.50"))

    assert again == first
    assert written(format_name, *lines[:2]) != first


@pytest.mark.parametrize("format_name", XML)
@pytest.mark.parametrize("missing", ["name", "iban", "bic"])
def test_a_missing_setting_of_the_debtor_is_named(format_name: str, missing: str) -> None:
    """A file for a bank says who pays."""
    facts = {"name": DEBTOR.name, "iban": DEBTOR.iban, "bic": DEBTOR.bic, missing: None}

    with pytest.raises(SettingError, match=f"^BUFFER_PAYOUT_DEBTOR_{missing.upper()}: not set"):
        written(format_name, payout_line(), debtor=Debtor(**facts))


@pytest.mark.parametrize(("name", "value"), [("iban", "DE89370400440532013001"), ("bic", "COBA")])
def test_a_wrong_setting_of_the_debtor_is_named(name: str, value: str) -> None:
    """The message does not repeat the value."""
    facts = {"name": DEBTOR.name, "iban": DEBTOR.iban, "bic": DEBTOR.bic, name: value}

    with pytest.raises(SettingError) as refusal:
        written("pain.001", payout_line(), debtor=Debtor(**facts))

    assert str(refusal.value).startswith(f"BUFFER_PAYOUT_DEBTOR_{name.upper()}: not a")
    assert value not in str(refusal.value)


def test_a_bic_with_digits_in_the_banks_code_needs_version_9() -> None:
    """ISO 9362 allows it since 2014, and the schema of version 03 is older."""
    debtor = Debtor(name=DEBTOR.name, iban=DEBTOR.iban, bic="C0BADEFFXXX")

    message = written("pain.001", payout_line(), debtor=debtor)

    schema("pain.001.001.09").assertValid(etree.fromstring(message))
    with pytest.raises(SettingError, match=r"^BUFFER_PAYOUT_DEBTOR_BIC: .* pain\.001\.001\.03"):
        written("pain.001.001.03", payout_line(), debtor=debtor)


@pytest.mark.parametrize("format_name", export_formats())
def test_a_full_disk_is_an_error(format_name: str) -> None:
    """A file that was not written whole is not taken for one that was."""
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb") as file:
        write_payouts(format_name, many_header(3_000), many_lines(3_000), file)


def test_the_debtor_is_read_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """From three variables; the IBAN is not shown with the other settings."""
    for name, value in (("NAME", "shop"), ("IBAN", ACCOUNT), ("BIC", "COBADEFFXXX")):
        monkeypatch.setenv(f"BUFFER_PAYOUT_DEBTOR_{name}", value)

    settings = Settings()

    assert debtor_of(settings) == Debtor(name="shop", iban=ACCOUNT, bic="COBADEFFXXX")
    assert ACCOUNT not in repr(settings)


def test_csv_needs_no_debtor() -> None:
    """A provider knows who pays."""
    assert written("csv", payout_line(), debtor=Debtor())


@pytest.mark.parametrize("format_name", export_formats())
def test_lines_that_do_not_fit_their_batch_are_refused(format_name: str) -> None:
    """Another number of payouts, another sum, another currency, an amount that is not above zero."""
    one, two = payout_line(41), payout_line(42)
    refused: list[tuple[list[PayoutLine], dict[str, Any], int | None]] = [
        ([one, two], {"payouts": 1}, None),
        ([one, two], {"payouts": 3}, None),
        ([one, two], {"total": Decimal("21.01")}, None),
        ([], {}, None),
        ([one], {"total": Decimal("1e18")}, None),
        ([one], {"total": Decimal("NaN")}, None),
        ([one, payout_line(42, currency="PHP")], {}, 42),
        ([payout_line(41, amount=Decimal("-1.00"))], {"total": Decimal(1)}, 41),
        ([payout_line(41, amount=Decimal("0.00"))], {"total": Decimal(1)}, 41),
        ([payout_line(41, amount=Decimal("NaN"))], {"total": Decimal(1)}, 41),
    ]

    for lines, changes, payout_id in refused:
        with pytest.raises(PayoutFileRefused) as refusal:
            written(format_name, *lines, **changes)
        assert refusal.value.batch_id == 7
        assert refusal.value.payout_id == payout_id


@pytest.mark.parametrize("format_name", XML)
@pytest.mark.parametrize(
    "changes",
    [
        {"method": "TOKEN", "account": "tok_1"},
        {"account": "DE89 3704"},
        {"account": "tok_1"},
        {"account": f"{ACCOUNT}\n"},
        {"end_to_end_id": "x" * 36},
        {"end_to_end_id": ""},
        {"end_to_end_id": "payout 41"},
        {"end_to_end_id": "/payout-41"},
        {"end_to_end_id": "payout//41"},
        {"end_to_end_id": "payout-41/"},
        {"end_to_end_id": "payout-41\n"},
        {"end_to_end_id": "payoüt"},
        {"holder_name": None},
        {"amount": Decimal("0.000001")},
        {"amount": Decimal("1e18")},
    ],
)
def test_what_a_bank_would_not_take_is_refused(format_name: str, changes: dict[str, Any]) -> None:
    """The payout is named, and its account is not shown."""
    line = payout_line(42, **changes)

    with pytest.raises(PayoutFileRefused) as refusal:
        written(format_name, line, total=line.amount)

    assert refusal.value.batch_id == 7
    assert line.account not in str(refusal.value)


def test_csv_takes_a_token_and_refuses_control_characters() -> None:
    """A token is the account at a provider. A refused account is not shown."""
    assert b"42,payout-42,worker-42,TOKEN,tok_1,,10.50,EUR" in written(
        "csv", payout_line(42, method="TOKEN", account="tok_1", holder_name=None)
    )
    for changes in ({"account": "tok\n1"}, {"owner": "worker\x0017"}, {"end_to_end_id": "\ud800"}):
        with pytest.raises(PayoutFileRefused, match=r"^payout 42: ") as refusal:
            written("csv", payout_line(42, **changes))
        assert "tok" not in str(refusal.value)


def test_an_unknown_format_is_refused() -> None:
    """The message lists those that there are."""
    with pytest.raises(InvalidInput, match=re.escape("'mt101': cannot be written; there are csv, pain.001")):
        written("mt101", payout_line())


def test_names_in_the_characters_that_every_bank_takes() -> None:
    """Accents are dropped, and some letters are spelled out. What has no plain form becomes a dot. At most 70
    characters are kept.
    """
    assert plain("Žofie Nováková") == "Zofie Novakova"
    assert plain("Søn & Łuk’s Größe") == "Son + Luk's Grosse"
    assert plain("a*b <c>") == "a.b .c."
    assert plain("株式") == ".."
    assert plain(" \n ") == "."
    assert plain("x" * 71) == "x" * 70
