"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.results.files import write_files


def test_folders_are_made_and_files_replaced(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "a.txt"
    write_files({file: b"one"})
    write_files({file: b"two", file.with_name("b.txt"): b"three"})
    assert [path.read_bytes() for path in sorted(file.parent.iterdir())] == [b"two", b"three"]


def test_nothing_changes_where_one_cannot_be_written(tmp_path: Path) -> None:
    good, blocked = tmp_path / "good", tmp_path / "file" / "below"
    good.write_bytes(b"before")
    (tmp_path / "file").write_bytes(b"in the way")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        write_files({tmp_path / "new" / "a": b"a", good: b"after", blocked: b"never"})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_link_stays_one_and_a_device_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"before")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_files({tmp_path / "link": b"after", Path("/dev/null"): b"nothing"})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"after"
    assert Path("/dev/null").is_char_device()
