"""CSV: RFC 4180, and no text that a spreadsheet executes."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.primitives import csv_text
from shop.primitives.csv_text import Value


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))


def test_records_end_with_crlf_and_special_characters_are_quoted() -> None:
    records = [("id", "name", "amount"), (1, 'the "large", red one\r\nof two lines', None)]

    data = csv_text.encode(records)

    assert data == b'id,name,amount\r\n1,"the ""large"", red one\r\nof two lines",\r\n'


@pytest.mark.parametrize("start", "=+-@＝＋－＠")
@pytest.mark.parametrize("before", ["", "a;", "a\t", "a\n", "\t", "\r"])
def test_text_that_begins_a_cell_with_a_formula_gets_an_apostrophe(start: str, before: str) -> None:
    ((field,),) = read(csv_text.encode([(f"{before}{start}1+1",)]))

    assert field == f"{before}'{start}1+1"


def test_negative_number_is_a_number() -> None:
    assert csv_text.encode([(-5, 0, 7)]) == b"-5,0,7\r\n"


def test_minus_inside_a_word_is_kept() -> None:
    assert csv_text.encode([("2026-11-29", "a=b", "kim@example.kr")]) == (
        b"2026-11-29,a=b,kim@example.kr\r\n"
    )


HARMLESS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="=+-@＝＋－＠\0"))


@given(st.lists(st.tuples(HARMLESS, st.integers(), HARMLESS), min_size=1))
def test_reader_finds_the_values_that_were_written(records: list[tuple[Value, ...]]) -> None:
    found = read(csv_text.encode(records))

    assert found == [[str(value) for value in record] for record in records]
