"""The formats `pain.001` and `pain.001.001.03`: a credit transfer initiation for the marketplace's bank.

`pain.001` is version pain.001.001.09, which SEPA has used since 2024.
Version 03 is for banks that still ask for it. lxml writes one payout at a time, so that memory does not grow
with the batch. A test compares the message with what sepaxml makes, and validates it by the published schema.
"""

import re
from collections.abc import Iterator
from typing import IO, Any, ClassVar, Final

from lxml import etree

from buffer_pipeline.errors import SettingError
from buffer_pipeline.inputs import require_time
from buffer_pipeline.payouts.files.debtor import KnownDebtor
from buffer_pipeline.payouts.files.export import BatchHeader, PayoutFileRefused
from buffer_pipeline.payouts.files.status import END_TO_END_ID_LENGTH_MAX
from buffer_pipeline.payouts.holder_name import plain
from buffer_pipeline.payouts.lines import PayoutLine

IBAN: Final = "IBAN"
"""The only method that the message can pay to."""

# The characters that every bank must take: EPC217-08, chapter 2.
_ID: Final = re.compile(r"(?!/)(?!.*//)[A-Za-z0-9/\-?:().,'+]+(?<!/)")
_IBAN: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{1,30}")

Tree = tuple[str, Any]
"""A tag, and its text or the trees below it."""


class Pain001:
    """Writes a batch as one payment information block, which the bank books as a whole."""

    namespace: ClassVar[str]
    bic_tag: ClassVar[str]
    bic: ClassVar[re.Pattern[str]]
    """The BICs that the schema allows."""
    date_has_choice: ClassVar[bool]

    def write(self, header: BatchHeader, lines: Iterator[PayoutLine], file: IO[bytes]) -> None:
        """Write the message, with one payout on each line of the file.

        Raises:
            PayoutFileRefused: a payout does not go to an IBAN, has no holder's name, or an id does not fit.
            SettingError: the debtor's name, IBAN or BIC is missing or wrong.
        """
        debtor = header.debtor.known()
        if not self.bic.fullmatch(debtor.bic):
            version = self.namespace.rpartition(":")[2]
            raise SettingError(f"BUFFER_PAYOUT_DEBTOR_BIC: not a BIC that {version} can have")
        with etree.xmlfile(file, encoding="UTF-8") as message:
            message.write_declaration()
            with (
                message.element(f"{{{self.namespace}}}Document", nsmap={None: self.namespace}),
                # Without a namespace of their own, the elements below are in the one of the document.
                message.element("CstmrCdtTrfInitn"),
            ):
                message.write(_element(self._group_header(header, debtor)))
                with message.element("PmtInf"):
                    for tree in self._payment_information(header, debtor):
                        message.write(_element(tree))
                    for line in lines:
                        message.write("\n")
                        message.write(_element(self._transfer(header, line)))
                    message.write("\n")

    def _group_header(self, header: BatchHeader, debtor: KnownDebtor) -> Tree:
        created_at = require_time("created_at", header.created_at)
        return (
            "GrpHdr",
            [
                ("MsgId", header.message_id),
                ("CreDtTm", f"{created_at:%Y-%m-%dT%H:%M:%SZ}"),
                ("NbOfTxs", str(header.payouts)),
                ("CtrlSum", f"{header.total:f}"),
                ("InitgPty", [("Nm", plain(debtor.name))]),
            ],
        )

    def _payment_information(self, header: BatchHeader, debtor: KnownDebtor) -> list[Tree]:
        in_euro = header.currency == "EUR"
        day = header.execution_date.isoformat()
        # The service level SEPA is for euros only. Elsewhere charges are shared, which is the usual choice.
        service = [("PmtTpInf", [("SvcLvl", [("Cd", "SEPA")])])] if in_euro else []
        return [
            ("PmtInfId", header.message_id),
            ("PmtMtd", "TRF"),
            ("BtchBookg", "true"),
            ("NbOfTxs", str(header.payouts)),
            ("CtrlSum", f"{header.total:f}"),
            *service,
            ("ReqdExctnDt", [("Dt", day)] if self.date_has_choice else day),
            ("Dbtr", [("Nm", plain(debtor.name))]),
            ("DbtrAcct", [("Id", [("IBAN", debtor.iban)])]),
            ("DbtrAgt", [("FinInstnId", [(self.bic_tag, debtor.bic)])]),
            ("ChrgBr", "SLEV" if in_euro else "SHAR"),
        ]

    def _transfer(self, header: BatchHeader, line: PayoutLine) -> Tree:
        fault = None
        if line.method != IBAN:
            fault = f"method {line.method}; pain.001 pays to an IBAN, so export the batch as csv"
        elif not _IBAN.fullmatch(line.account):
            fault = "account is not an IBAN"
        elif not line.holder_name:
            fault = "its destination has no holder name, which a bank compares with the account"
        elif not (len(line.end_to_end_id) <= END_TO_END_ID_LENGTH_MAX and _ID.fullmatch(line.end_to_end_id)):
            fault = (
                f"end-to-end id {line.end_to_end_id[:60]!r}: needs at most {END_TO_END_ID_LENGTH_MAX}"
                " characters that every bank takes"
            )
        if fault:
            raise PayoutFileRefused(
                f"payout {line.payout_id}: {fault}", batch_id=header.batch_id, payout_id=line.payout_id
            )
        return (
            "CdtTrfTxInf",
            [
                ("PmtId", [("EndToEndId", line.end_to_end_id)]),
                ("Amt", [("InstdAmt", (line.currency, f"{line.amount:f}"))]),
                ("Cdtr", [("Nm", plain(line.holder_name or ""))]),
                ("CdtrAcct", [("Id", [("IBAN", line.account)])]),
                ("RmtInf", [("Ustrd", f"payout {line.payout_id}")]),
            ],
        )


class Pain001Version9(Pain001):
    """Version pain.001.001.09."""

    namespace = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
    bic_tag = "BICFI"
    bic = re.compile(r"[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?")
    date_has_choice = True


class Pain001Version3(Pain001):
    """Version pain.001.001.03."""

    namespace = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.03"
    bic_tag = "BIC"
    # Of ISO 9362 before 2014: a bank's code has letters only.
    bic = re.compile(r"[A-Z]{6}[A-Z2-9][A-NP-Z0-9]([A-Z0-9]{3})?")
    date_has_choice = False


def _element(tree: Tree) -> etree._Element:
    """Return the element of a tree. An amount is a pair of its currency and its text."""
    tag, content = tree
    element = etree.Element(tag)
    if isinstance(content, str):
        element.text = content
    elif isinstance(content, tuple):
        element.set("Ccy", content[0])
        element.text = content[1]
    else:
        element.extend(_element(child) for child in content)
    return element
