"""Broken files."""

import csv
import io

from hypothesis import strategies as st


def written(rows: list[list[str]]) -> bytes:
    """Return rows as CSV, without characters that UTF-8 cannot encode."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "ignore")


def broken(content: bytes) -> st.SearchStrategy[bytes]:
    """Return the content unchanged, or with bytes changed, removed, or in another encoding."""
    place = st.integers(0, max(len(content) - 1, 0))
    piece = st.sampled_from(
        (b'"', b"\n", b"\r", b",", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xc3", b'""', b";", b"\t")
    )
    inserted = st.builds(lambda at, what: content[:at] + what + content[at:], place, piece)
    return st.one_of(
        st.just(content),
        st.just(content),
        inserted,
        st.builds(lambda at: content[:at], place),
        st.builds(lambda at, size: content[:at] + content[at + size :], place, st.integers(1, 20)),
        st.sampled_from(
            (
                b"\xef\xbb\xbf" + content,
                content.replace(b"\r\n", b"\n"),
                content.replace(b",", b";"),
                content * 2,
            )
        ),
        st.sampled_from(("utf-16", "utf-32", "cp1252")).map(
            lambda encoding: content.decode("utf-8", "replace").encode(encoding, "replace")
        ),
        st.binary(max_size=200),
    )
