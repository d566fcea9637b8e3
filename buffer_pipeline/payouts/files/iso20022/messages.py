"""Reads a message of ISO 20022 part by part, without keeping what was read.

Refused are a DOCTYPE, and with it every entity and every reference to another file; a message of another kind
or version; XML that is broken or cut off; and a part that is too large. libxml2's own limits apply to the
rest: a text of 10 million characters, 256 levels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, BinaryIO, Final

from lxml import etree

from buffer_pipeline.payouts.files.status import StatusFileRefused, amount_of

PART_ELEMENTS_MAX: Final = 10_000
"""Elements of one part. A transaction with every element that the schemas know once has some hundreds."""

_MESSAGE_DEPTH: Final = 2
"""Document is at depth 1, and the message's element below it."""

_NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A kind of message: its versions, and the parts of it to read.

    `parts` are paths below the message's element. The elements of a part are read together. The end of an
    element in `ends` is told, but its elements are not kept.
    """

    name: str
    versions: tuple[str, ...]
    element: str
    parts: frozenset[str]
    ends: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part that has been read to its end."""

    path: str
    element: etree._Element

    @property
    def line(self) -> int:
        """The line on which the part begins."""
        return int(self.element.sourceline or 0)

    def text(self, path: str) -> str | None:
        """Return the text of the first element on a path below the part, or of the part itself for "."."""
        return next(iter(self.texts(path)), None)

    def texts(self, path: str) -> list[str]:
        """Return the texts of all elements on a path below the part."""
        found = [self.element] if path == "." else self.element.findall(_qualified(self.element, path))
        return [each.text.strip() for each in found if each.text and each.text.strip()]

    def amount(self, path: str, *, record: int) -> tuple[Decimal, str | None] | None:
        """Return the first amount on a path below the part and its currency, or None if there is none.

        Raises:
            StatusFileRefused: it is not an amount.
        """
        element = self.element if path == "." else self.element.find(_qualified(self.element, path))
        text = "" if element is None else (element.text or "").strip()
        amount = amount_of(text, line=self.line, record=record)
        return None if element is None or amount is None else (amount, element.get("Ccy"))

    def has(self, path: str) -> bool:
        """Return True if there is an element on a path below the part."""
        return self.element.find(_qualified(self.element, path)) is not None


def read_parts(file: BinaryIO, message: Message) -> Iterator[Part]:
    """Yield the parts of a message in the file's order. A part is emptied when the next one is asked for.

    Raises:
        StatusFileRefused: the file is not this message.
    """
    try:
        yield from _parts(file, message)
    except etree.XMLSyntaxError as error:
        raise StatusFileRefused(f"not XML: {error.msg}", line=error.lineno or None) from None


def _parts(file: BinaryIO, message: Message) -> Iterator[Part]:
    # What is open: Document, the message's element, and what is below it.
    names: list[str] = []
    prefix, begun, part_depth, elements = "", False, 0, 0
    for event, element in _events(file):
        depth = len(names)
        if event == "end":
            if not part_depth or depth == part_depth:
                path = "/".join(names[2:])
                if depth >= _MESSAGE_DEPTH and (part_depth or path in message.ends):
                    yield Part(path=path, element=element)
                part_depth = 0
                _forget(element)
            names.pop()
            continue
        if not names:
            prefix = _require_document(element, message)
        # Inside a part nobody asks for the path.
        names.append("" if part_depth else str(element.tag).removeprefix(prefix))
        if depth + 1 == _MESSAGE_DEPTH:
            _require_element(names[-1], element, message, begun=begun)
            begun = True
        if part_depth:
            elements += 1
            if elements > PART_ELEMENTS_MAX:
                raise StatusFileRefused(
                    f"{names[part_depth - 1]} has more than {PART_ELEMENTS_MAX} elements",
                    line=element.sourceline,
                )
        elif "/".join(names[2:]) in message.parts:
            part_depth, elements = depth + 1, 0
    if not begun:
        raise StatusFileRefused(f"has no {message.element}", line=1)


def _events(file: BinaryIO) -> Iterator[tuple[str, etree._Element]]:
    events: Any = etree.iterparse(
        file,
        events=("start", "end"),
        load_dtd=False,
        no_network=True,
        resolve_entities=False,
        remove_comments=True,
        remove_pis=True,
        huge_tree=False,
        collect_ids=False,
    )
    return iter(events)


def _require_document(root: etree._Element, message: Message) -> str:
    """Return the namespace in braces, as each tag of the message begins.

    Raises:
        StatusFileRefused: a DOCTYPE, or another message.
    """
    if root.getroottree().docinfo.internalDTD is not None:
        raise StatusFileRefused("has a DOCTYPE, which no bank's message has", line=1)
    read = " and ".join(message.versions)
    name = etree.QName(root)
    version = (name.namespace or "").removeprefix(_NAMESPACE)
    if name.localname != "Document" or not version.startswith(f"{message.name}."):
        raise StatusFileRefused(
            f"not {message.name}: its root is {str(root.tag)[:100]}; read are {read}", line=root.sourceline
        )
    if version not in message.versions:
        raise StatusFileRefused(f"is {version[:100]}; read are {read}", line=root.sourceline)
    return f"{{{name.namespace}}}"


def _require_element(name: str, element: etree._Element, message: Message, *, begun: bool) -> None:
    if name != message.element or begun:
        raise StatusFileRefused(
            f"has {name[:100]} where {message.name} has one {message.element}", line=element.sourceline
        )


def _forget(element: etree._Element) -> None:
    """Free an element that has ended, and what stands before it."""
    element.clear()
    parent = element.getparent()
    if parent is not None:
        while element.getprevious() is not None:
            del parent[0]


def _qualified(element: etree._Element, path: str) -> str:
    """Return a path with the namespace of the part."""
    namespace = etree.QName(element).namespace
    return "/".join(f"{{{namespace}}}{name}" for name in path.split("/"))
