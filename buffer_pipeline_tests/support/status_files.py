"""Status files of a bank, and the same files as a library writes them."""

import importlib
import io
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any, Final
from xml.sax.saxutils import escape

from xsdata.formats.dataclass.context import XmlContext
from xsdata.formats.dataclass.parsers import XmlParser
from xsdata.formats.dataclass.parsers.config import ParserConfig
from xsdata.formats.dataclass.serializers import XmlSerializer

from buffer_pipeline.payouts.files.status import read_statuses
from buffer_pipeline.payouts.result import PayoutResult

PAIN_002: Final = ("pain.002.001.03", "pain.002.001.10")
CAMT_054: Final = ("camt.054.001.02", "camt.054.001.04", "camt.054.001.08")
NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:"

_AT: Final = "2026-03-05T08:00:00"
_CONTEXT: Final = XmlContext()


def element(tag: str, *content: str) -> str:
    """Return an element with a text or with other elements; nothing if there is no content."""
    inside = "".join(content)
    return f"<{tag}>{inside}</{tag}>" if inside else ""


def reason(code: str | None, *texts: str) -> str:
    """Return the elements of a reason."""
    coded = element("Rsn", element("Cd", code)) if code else ""
    return coded + "".join(element("AddtlInf", escape(text)) for text in texts)


def transaction(
    end_to_end_id: str | None, status: str | None = None, code: str | None = None, *texts: str
) -> str:
    """Return a transaction of a pain.002."""
    return element(
        "TxInfAndSts",
        element("OrgnlEndToEndId", escape(end_to_end_id or "")) or element("OrgnlInstrId", "1"),
        element("TxSts", status or ""),
        element("StsRsnInf", reason(code, *texts)),
    )


def pain_002(
    version: str, *transactions: str, group: str = "", payment: str = "", message: str = "batch-7"
) -> bytes:
    """Return a pain.002 with the elements of a status of the group and of the payment information."""
    document = element(
        "CstmrPmtStsRpt",
        element("GrpHdr", element("MsgId", "status-1"), element("CreDtTm", _AT)),
        element(
            "OrgnlGrpInfAndSts", element("OrgnlMsgId", message), element("OrgnlMsgNmId", "pain.001"), group
        ),
        element("OrgnlPmtInfAndSts", element("OrgnlPmtInfId", message), payment, *transactions)
        if payment or transactions
        else "",
    )
    return _document(version, document)


def detail(version: str, end_to_end_id: str | None, *, direction: str = "", returned: str = "") -> str:
    """Return the details of one payment of an entry; `returned` are the elements of its reason."""
    has_amount = not version.endswith(".02")
    return element(
        "TxDtls",
        element("Refs", element("EndToEndId", escape(end_to_end_id or "")) or element("InstrId", "1")),
        '<Amt Ccy="EUR">10.50</Amt>' + element("CdtDbtInd", direction or "DBIT") if has_amount else "",
        element("RtrInf", returned),
    )


def entry(
    version: str, *details: str, direction: str = "DBIT", status: str = "BOOK", corrects: bool = False
) -> str:
    """Return an entry of a camt.054."""
    return element(
        "Ntry",
        '<Amt Ccy="EUR">10.50</Amt>',
        element("CdtDbtInd", direction),
        element("RvslInd", "true" if corrects else ""),
        element("Sts", element("Cd", status) if version.endswith(".08") else status),
        "<BkTxCd/>",
        element("NtryDtls", *details),
    )


def camt_054(version: str, *entries: str) -> bytes:
    """Return a camt.054 with one notice."""
    account = element("Acct", element("Id", element("IBAN", "DE89370400440532013000")))
    document = element(
        "BkToCstmrDbtCdtNtfctn",
        element("GrpHdr", element("MsgId", "notice-1"), element("CreDtTm", _AT)),
        element("Ntfctn", element("Id", "notice-1"), element("CreDtTm", _AT), account, *entries),
    )
    return _document(version, document)


def by_library(content: bytes) -> bytes:
    """Return a message as xsdata writes it, by classes that were made from the published schema.

    An element that the schema does not have, or a value that it does not allow, is an error.
    """
    version = content.partition(NAMESPACE.encode())[2].partition(b'"')[0].decode()
    config = ParserConfig(fail_on_unknown_properties=True, fail_on_converter_warnings=True)
    document: Any = XmlParser(config=config, context=_CONTEXT).from_bytes(content, _document_class(version))
    return XmlSerializer(context=_CONTEXT).render(document).encode()


def results(
    format_name: str, content: bytes, *, message: str | None = "batch-7"
) -> tuple[list[Any], Counter[str]]:
    """Return the results in a file, and how many statuses were skipped."""
    skipped: Counter[str] = Counter()
    found = list(read_statuses(format_name, io.BytesIO(content), message_id=message, skipped=skipped))
    return found, skipped


def pairs(found: Iterable[PayoutResult]) -> list[tuple[str, str, str | None]]:
    """Return the facts of results."""
    return [(each.end_to_end_id, str(each.outcome), each.reason) for each in found]


@cache
def _document_class(version: str) -> type[Any]:
    kind = version.partition(".")[0]
    module = importlib.import_module(f"pyiso20022.{kind}.{version.replace('.', '_')}")
    found: type[Any] = module.Document
    return found


def _document(version: str, content: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Document xmlns="{NAMESPACE}{version}">\n{content}\n</Document>\n'
    ).encode()
