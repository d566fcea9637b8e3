"""The work of the role `buffer_api`: it finds keys, and keeps answers."""

from datetime import UTC, datetime

from sqlalchemy import Engine

from buffer_pipeline.api.keys import KeyRole, find_key, list_keys, make_key, revoke_key
from buffer_pipeline.database import fetch


def requests_are_answered(owner: Engine, api: Engine) -> None:
    """Make a key, find it, record an answer under it, find that, and revoke the key."""
    now = datetime.now(UTC)
    with owner.begin() as connection:
        token = make_key(connection, name="shop", role=KeyRole.READER, now=now)
    with api.begin() as connection:
        key = find_key(connection, token)
        assert key is not None
        named = {"api_key_id": key.api_key_id, "idempotency_key": "k-1"}
        # Only a login of the API is a member of the keys' roles.
        assert fetch(connection, "api/act_as_key", api_key_id=key.api_key_id, database_role="buffer_api")
        assert fetch(connection, "api/try_lock_request", **named)[0]["is_mine"]
        begun = fetch(connection, "api/begin_write", database_role="buffer_api", **named)
        assert begun[0]["status"] is None
        fetch(connection, "api/act_as_api")
        fetch(
            connection,
            "api/record_answer",
            method="POST",
            path="/earnings",
            content_digest=bytes(32),
            status=200,
            answer="{}",
            request_id="r-1",
            **named,
        )
        begun = fetch(connection, "api/begin_write", database_role="buffer_api", **named)
        assert begun[0]["status"] == 200
    with owner.begin() as connection:
        assert revoke_key(connection, name="shop", now=datetime.now(UTC)) >= now
        assert [each.name for each in list_keys(connection)] == ["shop"]
    with api.begin() as connection:
        assert find_key(connection, token) is None
