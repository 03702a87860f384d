"""Whole layers on real ranks, taken up where an earlier sitting left them."""

from __future__ import annotations

import pytest

from calibrate.environment import Machine
from calibrate.microbenchmarks import layer
from calibrate.microbenchmarks.common import Earlier

CPU = Machine("Example CPU", "cpu", "cpu", 1, 4e9, 3e7, 1, "torch")


@pytest.mark.torch
def test_a_later_sitting_measures_only_what_an_earlier_one_left():
    """Of both tables, alone and together; by the time for all ranks that the first sitting found."""
    pytest.importorskip("torch", reason="layers need torch (extra: calibrate)")
    rates: dict[str, float] = {}
    first = list(layer.measure(CPU, 2.0, 0, lambda text: None, processes=2, earlier=Earlier((), rates)))
    assert rates["seconds of all ranks"] >= 1.0

    def points(rows):
        return {(table, *(row.get(name) for name in ("ranks", "hidden", "channels"))) for table, row in rows}

    assert {table for table, _ in first} == {"layer", "optimizer"}
    assert {row["ranks"] for _, row in first} == {1, 2}
    kept = first[::2]
    found = Earlier([row for _, row in kept], dict(rates))
    later = list(layer.measure(CPU, 2.0, 0, lambda text: None, processes=2, earlier=found))
    assert len(points(later)) == len(later) > 0
    assert not points(later) & points(kept)
