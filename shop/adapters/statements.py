"""Typed SQL: a query is a named constant with the type of its rows.

::

    class Total(Row):
        currency: str
        total_minor: int


    TOTALS = Query(Total, "select currency, total_minor from … where user_id = %(user_id)s")
    rows = tx.fetch_all(TOTALS(user_id=7))  # list[Total]

A row is a tuple whose columns are also attributes.  ``typing.NamedTuple`` is not used because each
class adds 0.1 ms or more to the import, and this package has dozens of them.

No driver is imported here: modules that only define statements stay cheap to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, LiteralString, TypeVar

if TYPE_CHECKING:
    from enum import StrEnum

    E = TypeVar("E", bound=StrEnum)


class Row(tuple[Any, ...]):
    """A row of a query's result; a subclass annotates the columns in the order of the select list.

    ``Row`` itself is the type of rows whose columns are not read, only whether there is a row.
    """

    columns: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        inherited = cls.columns
        own = tuple(cls.__annotations__)
        cls.columns = inherited + own
        for place, name in enumerate(own, len(inherited)):
            parse = cls.__dict__.get(name)
            getter = itemgetter(place) if parse is None else _parsing_getter(place, parse)
            setattr(cls, name, property(getter))


def enum_column(enum: type[E]) -> E:
    """The default of a text column that is read as a member of ``enum``."""
    column: Any = enum  # replaced by a property when the row class is made
    return column


def _parsing_getter(place: int, parse: Callable[[str], object]) -> Callable[[Row], object]:
    return lambda row: parse(row[place])


R_co = TypeVar("R_co", bound=Row, covariant=True)


class Statement(Generic[R_co]):
    """A query with its parameters, ready to be sent."""

    __slots__ = ("parameters", "row_type", "sql")
    sql: LiteralString

    def __init__(
        self, sql: LiteralString, row_type: type[R_co], parameters: Mapping[str, object]
    ) -> None:
        self.sql = sql
        self.row_type = row_type
        self.parameters = parameters

    def __repr__(self) -> str:
        return f"Statement({self.sql!r}, {self.parameters!r})"


class Query(Generic[R_co]):
    """A static SQL text and the type of its rows; calling it binds the parameters by name."""

    __slots__ = ("row_type", "sql")
    sql: LiteralString

    def __init__(self, row_type: type[R_co], sql: LiteralString) -> None:
        self.row_type = row_type
        self.sql = sql

    def __call__(self, **parameters: object) -> Statement[R_co]:
        """The statement that runs this query with ``parameters``."""
        return Statement(self.sql, self.row_type, parameters)


class Command(Query[Row]):
    """A static SQL text that returns no rows."""

    __slots__ = ()

    def __init__(self, sql: LiteralString) -> None:
        super().__init__(Row, sql)
