"""The roles of the books, which a migration creates if they are missing."""

from typing import Final

import sqlalchemy as sa
from alembic import op

from buffer_pipeline.errors import PaymentBufferError

ROLES: Final = ("buffer_platform", "buffer_releaser", "buffer_reader", "buffer_payouts", "buffer_api")

# A role belongs to the whole server: another database's migration may be making the same one.
_CREATE: Final = """
DO $$
BEGIN
  CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL;
END
$$
"""


def require_roles() -> None:
    """Create the roles that are missing.

    Raises:
        PaymentBufferError: the login may not create roles; the message has the statements to run.
    """
    connection = op.get_bind()
    found = set(connection.scalars(sa.text("SELECT rolname FROM pg_roles WHERE rolname LIKE 'buffer\\_%'")))
    missing = [role for role in ROLES if role not in found]
    may_create, user = connection.execute(
        sa.text("SELECT rolcreaterole OR rolsuper, rolname FROM pg_roles WHERE rolname = current_user")
    ).one()
    if missing and not may_create:
        statements = " ".join(f"CREATE ROLE {role};" for role in missing)
        raise PaymentBufferError(
            f"roles: {', '.join(missing)} missing, and {user} may not create them; have somebody who may"
            f" run `{statements}` and migrate again"
        )
    for role in missing:
        connection.execute(sa.text(_CREATE.format(role=role)))
