"""No object in a search path replaces what a statement means."""

import re
from typing import Final

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.support.databases import ROLES, Books
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.work_of_roles import do_all

SQL: Final = ROOT / "buffer_pipeline" / "sql"


def test_every_function_sets_its_search_path(roles: Books) -> None:
    """Functions of the books look only into PostgreSQL's own schema, whatever the session's search path. A
    function whose body was parsed at creation looks nothing up, nor does an aggregate, which names its
    function.
    """
    functions = text(
        "SELECT proname, prosecdef, (SELECT min(setting) FROM unnest(proconfig) AS setting"
        " WHERE setting LIKE 'search_path=%') FROM pg_proc WHERE pronamespace = 'buffer'::regnamespace"
        " AND prosqlbody IS NULL AND prokind <> 'a'"
    )

    with roles.owner.connect() as connection:
        found = connection.execute(functions).all()

    assert len(found) >= 5
    assert {tuple(row[1:]) for row in found} == {(False, "search_path=pg_catalog, pg_temp")}


TYPES: Final = (
    "bigint",
    "integer",
    "numeric",
    "double precision",
    "boolean",
    "text",
    "timestamptz",
    "interval",
)
OPERATORS: Final = ("=", "<>", "<", ">", "<=", ">=", "+", "-", "*", "%", "||", ">>")

HOSTILE: Final = """
CREATE SCHEMA hostile;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
CREATE FUNCTION hostile.caught() RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'caught in a hostile schema'; END $$;
-- Of each relation's name, one without columns.
DO $$
DECLARE
  name text;
BEGIN
  FOR name IN
    SELECT DISTINCT relname FROM pg_catalog.pg_class
    WHERE relnamespace IN ('buffer'::regnamespace, 'pg_catalog'::regnamespace) AND relkind IN ('r', 'v')
  LOOP
    EXECUTE format('CREATE TABLE hostile.%I ()', name);
  END LOOP;
END
$$;
"""

TRAP: Final = """
CREATE FUNCTION hostile.{name}({arguments}) RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'caught in a hostile schema'; END $$
"""


def build_hostile_schema(owner: Engine) -> None:
    """Create a schema with the names of everything that the statements use, for better-fitting arguments."""
    called = set(re.findall(r"\b([a-z_]+)\(", "".join(path.read_text() for path in SQL.rglob("*.sql"))))
    arrays = [f"{type_}[]" for type_ in TYPES]
    with owner.begin() as connection:
        connection.execute(text(HOSTILE))
        functions = set(
            connection.scalars(
                text("SELECT proname FROM pg_proc WHERE pronamespace IN ('buffer'::regnamespace, 11)")
            )
        )
        for name in sorted(called & functions):
            for arguments in (*TYPES, *arrays, *(f"{type_}, {type_}" for type_ in TYPES)):
                connection.execute(text(TRAP.format(name=name, arguments=arguments)))
        for left in TYPES:
            for right in TYPES:
                connection.execute(text(TRAP.format(name="trap", arguments=f"{left}, {right}")))
                for operator in OPERATORS:
                    connection.execute(
                        text(
                            f"CREATE OPERATOR hostile.{operator}"
                            f" (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = hostile.trap)"
                        )
                    )


def test_hostile_search_path_affects_no_statement(roles: Books, served: EmbeddedServer) -> None:
    """A schema in front with the same table, function and operator names changes nothing."""
    build_hostile_schema(roles.owner)
    admin = make_engine(served.url("postgres", user="postgres"))
    with admin.begin() as connection:
        for role in ROLES:
            database = roles.owner.url.database
            connection.execute(text(f"ALTER ROLE a_{role} IN DATABASE {database} SET search_path = hostile"))
    admin.dispose()

    # A platform sets its own search path. The pipeline's connections set theirs.
    @event.listens_for(roles.platform, "begin")
    def be_hostile(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL search_path = hostile")

    do_all(roles)

    with roles.platform.connect() as connection, pytest.raises(DBAPIError, match="caught"):
        connection.execute(text("SELECT array_agg(1)"))
    with roles.reader.connect() as connection:
        assert connection.scalar(text("SHOW search_path")) == "pg_catalog, pg_temp"
