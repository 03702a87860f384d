"""Where answers are kept: one SQLite file, one row for each point that has been worked out.

Like a ledger in ink: a row is written once, when its point is finished, and is there or not there whatever happens to
the writer. Only the process that started the work writes; the workers hand their answers to it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

APPLICATION_ID = 0x7261636B
"""Marks the file as ours in SQLite's header ("rack")."""
SCHEMA_VERSION = 1
BUSY_S = 30.0
"""How long to wait for another writer of the same file."""
_BATCH = 500
"""Keys of one query; SQLite allows 999 variables in its oldest builds."""


class StoreError(RuntimeError):
    """The store cannot be read or written: file and reason."""


class Store:
    """Finished points by key. Keys say what was asked, of which code: an equal key has an equal answer."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it with its folders.

        Raises:
            StoreError: no such place, no right to write, or a file that is something else.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        except (OSError, sqlite3.Error) as fault:
            raise StoreError(
                f"{path}: cannot be opened: {getattr(fault, 'strerror', None) or fault}"
            ) from None
        try:
            self._prepare()
        except sqlite3.Error as fault:
            self._connection.close()
            raise StoreError(f"{path}: cannot be used as a store: {fault}") from None

    def _prepare(self) -> None:
        ask = self._connection.execute
        version, mark = ask("pragma user_version").fetchone()[0], ask("pragma application_id").fetchone()[0]
        tables = ask("select count(*) from sqlite_master").fetchone()[0]
        if (tables or version) and (mark, version) != (APPLICATION_ID, SCHEMA_VERSION):
            raise sqlite3.DatabaseError("it is another program's database, or of another version")
        ask("pragma journal_mode = wal")
        ask("pragma synchronous = full")  # a finished point outlives a power cut too
        if not tables:
            ask("begin immediate")  # two sweeps may start at once
            ask(
                "create table if not exists points (key text primary key, function text not null,"
                " payload text not null, result text not null) without rowid"
            )
            ask(f"pragma application_id = {APPLICATION_ID}")
            ask(f"pragma user_version = {SCHEMA_VERSION}")
            ask("commit")

    def results(self, keys: Iterable[str]) -> dict[str, str]:
        """What is there of ``keys``: key -> result (JSON text).

        Raises:
            StoreError: the file cannot be read.
        """
        wanted, found = list(dict.fromkeys(keys)), dict[str, str]()
        try:
            for start in range(0, len(wanted), _BATCH):
                part = wanted[start : start + _BATCH]
                marks = ",".join("?" * len(part))
                found.update(
                    self._connection.execute(f"select key, result from points where key in ({marks})", part)
                )
        except sqlite3.Error as fault:
            raise StoreError(f"{self.path}: cannot be read: {fault}") from None
        return found

    def add(self, key: str, function: str, payload: str, result: str) -> bool:
        """Keep one finished point; False where it was there already (the first answer stays).

        Raises:
            StoreError: the disk is full, or the file cannot be written; what was there stays whole.
        """
        try:
            cursor = self._connection.execute(
                "insert or ignore into points values (?, ?, ?, ?)", (key, function, payload, result)
            )
        except sqlite3.Error as fault:
            raise StoreError(
                f"{self.path}: cannot be written: {fault}; the points finished before are kept"
            ) from None
        return cursor.rowcount == 1

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
