"""A shop that was restored to a moment in mid-run owes nobody anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.faults.restore import run_drill


@pytest.mark.timeout(300)
def test_a_restored_shop_gives_back_what_its_books_forgot(tmp_path: Path) -> None:
    drill = run_drill(tmp_path / "drill", 5, orders=12, seconds=6)

    assert drill.broken == []
    assert drill.orders_lost >= 12
    assert 0 < drill.ghosts <= drill.orders_lost + 12
    assert 0 < drill.rto_seconds < drill.rpo_seconds + 120
