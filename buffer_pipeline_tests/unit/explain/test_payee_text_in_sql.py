"""The constraints of the text for payees, which raw SQL cannot pass either."""

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline_tests.support.builders import ADMIN, JOB, NOON, PAYER, place_hold

_FREEZE = """
INSERT INTO buffer.hold_freeze (hold_id, kind, backjob_id, opened_by, reason, opened_at, payee_text)
VALUES (:hold_id, :kind, :backjob_id, 'admin-1', 'a look', :now, :payee_text)
"""
_OWNER = """
INSERT INTO buffer.owner_freeze (owner, kind, opened_by, reason, opened_at, holds_frozen, payee_text)
VALUES ('worker-9', 'RISK', 'admin-1', 'a look', :now, 0, :payee_text)
"""


@pytest.mark.parametrize(
    ("payee_text", "constraint"),
    [
        ("", "payee_text_length"),
        ("x" * 501, "payee_text_length"),
        ("two\nlines", "payee_text_is_one_line"),
        (" spaced", "payee_text_is_one_line"),
    ],
)
def test_a_wrong_text_is_refused(connection: Connection, payee_text: str, constraint: str) -> None:
    """Its length, and that it is one line without spaces around it."""
    hold_id = place_hold(connection)
    freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.ADMIN, by=ADMIN, reason="a look", now=NOON)
    values = {"hold_id": hold_id, "kind": "RISK", "backjob_id": None, "now": NOON, "payee_text": payee_text}

    for statement, table in ((_FREEZE, "hold_freeze"), (_OWNER, "owner_freeze")):
        with pytest.raises(IntegrityError, match=f"{table}_{constraint}"), connection.begin_nested():
            connection.execute(text(statement), values)


def test_a_backjobs_freeze_has_no_text(connection: Connection) -> None:
    """The payee is told of the backjob."""
    hold_id = place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="drips", now=NOON)
    values = {"hold_id": hold_id, "kind": "BACKJOB", "backjob_id": backjob.backjob_id, "now": NOON}

    with pytest.raises(IntegrityError, match="hold_freeze_payee_text_only_of_its_own"):
        connection.execute(text(_FREEZE), {**values, "payee_text": "Call us."})
