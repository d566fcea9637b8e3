"""Raw SQL of a login: random statements, and the statements of a verb with random changes."""

from dataclasses import dataclass
from typing import Any, Final

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline_tests.support.choices import TABLES, Choices
from buffer_pipeline_tests.support.verb_statements import STATEMENTS_OF_VERBS, Statement

_PRIVILEGES: Final = text(
    """
    SELECT privilege_type, table_name, column_name
    FROM information_schema.column_privileges
    WHERE table_schema = 'buffer' AND grantee = :role AND privilege_type IN ('INSERT', 'UPDATE')
    UNION ALL
    SELECT privilege_type, table_name, ''
    FROM information_schema.table_privileges
    WHERE table_schema = 'buffer' AND grantee = :role AND privilege_type = 'DELETE'
    ORDER BY 1, 2, 3
    """
)


@dataclass(frozen=True)
class Rights:
    """What a role may insert, update and delete in TABLES: columns by table."""

    adds: dict[str, list[str]]
    changes: dict[str, list[str]]
    deletes: list[str]


def rights_of(connection: Connection, role: str) -> Rights:
    """Return the rights of a role, according to the database."""
    rows = connection.execute(_PRIVILEGES, {"role": f"buffer_{role}"}).all()

    def columns(privilege: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for kind, table, column in rows:
            if kind == privilege and table in TABLES:
                found.setdefault(table, []).append(column)
        return found

    return Rights(columns("INSERT"), columns("UPDATE"), [*columns("DELETE")])


@dataclass(frozen=True, kw_only=True)
class Attempt(Choices):
    """The statements of one transaction."""

    rights: Rights

    def statements(self) -> list[Statement]:
        """Return mostly the statements of a verb with something changed, otherwise random ones."""
        strays = [self._stray() for _ in range(self.random.choice((1, 1, 2, 3)))]
        if self.random.random() < 0.3:
            return strays
        statements = self.random.choice(STATEMENTS_OF_VERBS)(self)
        while not all(map(self._may, statements)) and self.random.random() < 0.95:
            statements = self.random.choice(STATEMENTS_OF_VERBS)(self)
        for _ in range(self.random.choice((0, 1, 1, 1, 2))):
            self._bend(statements)
        return statements + (strays if self.random.random() < 0.1 else [])

    def _stray(self) -> Statement:
        kind = self.random.choice(
            [name for name in ("adds", "changes", "changes", "deletes") if getattr(self.rights, name)]
        )
        if kind == "adds":
            table = self.random.choice([*self.rights.adds])
            named = [name for name in self.rights.adds[table] if self.random.random() < 0.9]
            values = {name: self.value(name) for name in named}
            places = ", ".join(f":{name}" for name in named)
            return f"INSERT INTO buffer.{table} ({', '.join(named)}) VALUES ({places})", values
        if kind == "deletes":
            table = self.random.choice(self.rights.deletes)
            return f"DELETE FROM buffer.{table}" + self._where(table), {}
        table = self.random.choice([*self.rights.changes])
        columns = self.rights.changes[table]
        named = self.random.sample(columns, self.random.randint(1, len(columns)))
        values = {name: self.value(name) for name in named}
        sets = ", ".join(f"{name} = :{name}" for name in named)
        return f"UPDATE buffer.{table} SET {sets}" + self._where(table), values

    def _where(self, table: str) -> str:
        key = "hold_id" if table == "unsettled_hold" else f"{table.removeprefix('hold_')}_id"
        if self.random.random() < 0.1:
            return ""
        if table == "job":
            key = "job"
        row = self.random.choice([*getattr(self.books, table)])
        return f" WHERE {key} = '{row}'"

    def _may(self, statement: Statement) -> bool:
        # Try only some of the statements that privileges refuse anyway.
        verb, _, rest = statement[0].partition(" buffer.")
        known = {"INSERT INTO": self.rights.adds, "UPDATE": self.rights.changes}
        return rest.split()[0] in known.get(verb, self.rights.deletes)

    def _bend(self, statements: list[Statement]) -> None:
        if not statements:
            return
        place = self.random.randrange(len(statements))
        _, values = statements[place]
        if not values or self.random.random() < 0.25:
            del statements[place]
            return
        name = self.random.choice([*values])
        other = self.value(name)
        # A value may occur in several statements of a verb: change all occurrences, or only this one.
        together = self.random.random() < 0.5
        for number, (text_there, values_there) in enumerate(statements):
            if number == place or (together and values_there.get(name) == values[name]):
                statements[number] = (
                    text_there,
                    {**values_there, name: other} if name in values_there else values_there,
                )


def refusal_of(connection: Connection, statement: str) -> tuple[str, str]:
    """Return the SQLSTATE and message with which the database refuses a statement."""
    with pytest.raises(DBAPIError) as refusal, connection.begin_nested():
        connection.execute(text(statement))
    error: Any = refusal.value.orig
    return str(error.sqlstate), str(error)
