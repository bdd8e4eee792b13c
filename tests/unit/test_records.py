"""Records behave as frozen dataclasses and cost a fraction at import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, astuple, field, fields, replace

import pytest

from events.records import frozen


@frozen
class Point:
    """A record with defaults and an uncompared field."""

    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list, compare=False)


@frozen(kw_only=True)
class Named:
    """A record whose name must not be empty."""

    name: str
    secret: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a name")


def test_fields_are_set_by_position_and_by_name_and_have_defaults() -> None:
    assert (Point(1).x, Point(1).y, Point(1, 2).y, Point(x=3).x, Point(1, y=4).y) == (1, 0, 2, 3, 4)
    assert Point(1).tags is not Point(1).tags


def make(record: Callable[..., object], *values: object, **named: object) -> object:
    """Constructs a record with values that its type does not allow."""
    return record(*values, **named)


@pytest.mark.parametrize(
    "construct",
    [
        lambda: make(Point),
        lambda: make(Point, 1, 2, [], 4),
        lambda: make(Point, 1, x=2),
        lambda: make(Point, 1, z=2),
        lambda: make(Named, "by position"),
        lambda: make(Named),
    ],
)
def test_wrong_fields_raise_type_error(construct: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        construct()


def test_record_is_immutable() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError):
        setattr(point, "x", 2)  # noqa: B010, a type checker rejects the assignment
    with pytest.raises(FrozenInstanceError):
        delattr(point, "x")
    assert point.x == 1


def test_records_are_equal_by_value_and_class() -> None:
    assert Point(1, 2, ["a"]) == Point(1, 2, ["b"])
    assert hash(Point(1, 2)) == hash(Point(1, 2))
    assert Point(1, 2) != Point(2, 1)
    assert Named(name="a") != Point(1)


def test_functions_of_dataclasses_accept_records() -> None:
    assert [f.name for f in fields(Point)] == ["x", "y", "tags"]
    assert replace(Point(1, 2), y=3) == Point(1, 3)
    assert astuple(Point(1, 2)) == (1, 2, [])
    assert Point.__match_args__ == ("x", "y", "tags")


def test_post_init_is_called_and_fields_without_repr_are_not_shown() -> None:
    with pytest.raises(ValueError, match="a name"):
        Named(name="")
    assert repr(Named(name="n", secret="s")) == "Named(name='n')"


def test_record_inherits_fields() -> None:
    @frozen
    class Point3(Point):
        z: int = 7

    assert Point3(1).z == 7
    assert Point3(1, 2) != Point(1, 2)
