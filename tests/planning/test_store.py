"""The store: written once, whole after any trouble, and refused where it is something else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from sim.planning.store import Store, StoreError


def test_a_point_is_kept_once_and_the_first_answer_stays(tmp_path: Path) -> None:
    with Store(tmp_path / "deep" / "points.sqlite") as store:
        assert store.add("a", "f", "{}", "1")
        assert not store.add("a", "f", "{}", "2")
        assert store.results(["a", "b"]) == {"a": "1"}
    with Store(tmp_path / "deep" / "points.sqlite") as again:
        assert again.results(["a"]) == {"a": "1"}


def test_two_writers_share_a_file(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as one, Store(tmp_path / "s") as other:
        for number in range(50):
            (one if number % 2 else other).add(str(number), "f", "{}", str(number))
        keys = [str(number) for number in range(1500)]  # more than one query's worth
        assert one.results(keys) == other.results(keys) == {str(n): str(n) for n in range(50)}


def test_a_full_disk_is_told_and_leaves_the_store_whole(tmp_path: Path) -> None:
    file = tmp_path / "s"
    with Store(file) as store:
        store.add("first", "f", "{}", "1")
        store._connection.execute("pragma max_page_count = 6")  # SQLite's own "disk is full"
        with pytest.raises(StoreError, match=r"cannot be written: database or disk is full; .* are kept"):
            store.add("large", "f", "{}", "x" * 100_000)
    with Store(file) as again:
        assert again.results(["first"]) == {"first": "1"}
    assert sqlite3.connect(file).execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("content", [b"not a database, just text of some length " * 40, None])
def test_what_is_no_store_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "s"
    if content is None:
        other = sqlite3.connect(file)
        other.execute("create table points (key text)")
        other.commit()
        other.close()
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(StoreError, match="cannot be used as a store"):
        Store(file)
    assert file.read_bytes() == before


def test_a_folder_in_the_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "file" / "below" / "points.sqlite")
