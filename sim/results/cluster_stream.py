"""A log that goes to disk as it is written, so that a run of any length needs no more memory than its queue.

Like a ship's log kept in a stack of filled volumes: the page in hand is in memory, the rest is on the shelf.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sim.results.cluster_log import JobRecord, Placed, Segment, Sink

PAGE_ROWS = 10_000
"""Rows of a row group: some megabytes in memory."""
_TEXT, _REAL, _WHOLE = pa.string(), pa.float64(), pa.int64()
_SEGMENT = pa.schema(
    [("job", _TEXT), ("number", _WHOLE), ("gpus", _REAL), ("start_s", _REAL), ("end_s", _REAL), ("pool", _WHOLE),
     ("nodes", _TEXT), ("devices", _TEXT), ("why", _TEXT)]
    + [(part, _REAL) for part in Segment._fields[7:]]
)  # fmt: skip
_RECORD = pa.schema(
    [("job", _TEXT), ("number", _WHOLE), ("gpus", _WHOLE), ("submit_s", _REAL), ("start_s", _REAL), ("end_s", _REAL),
     ("wait_s", _REAL), ("preemptions", _WHOLE), ("failures", _WHOLE), ("outcome", _TEXT), ("user", _TEXT),
     ("queue", _TEXT)]
)  # fmt: skip


class _Book:
    """One Parquet file that is filled page by page."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema)
        self._page: list[tuple[Any, ...]] = []

    def add(self, row: tuple[Any, ...]) -> None:
        self._page.append(row)
        if len(self._page) >= PAGE_ROWS:
            self.turn()

    def turn(self) -> None:
        if self._page:
            columns = zip(*self._page, strict=True)
            arrays = [
                pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)
            ]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._page.clear()

    def close(self) -> None:
        self.turn()
        self._writer.close()


class ParquetSink(Sink):
    """Writes ``segments.parquet`` (columns as of ``rackcast run --log``, and ``devices``) and ``jobs.parquet`` into a
    folder; a context manager, for the files are whole only once it is closed.

    ``account(log, sink.read())`` makes the books from the file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.segments = []
        self.records = []
        self._segments = _Book(folder / "segments.parquet", _SEGMENT)
        self._records = _Book(folder / "jobs.parquet", _RECORD)
        self.record = self._records.add

    def segment(self, row: Segment) -> None:
        """A stretch is over."""
        placed = row.placed
        spots = " ".join(f"{node}:{count}" for node, count in placed.spots)
        devices = " ".join(map(str, placed.devices))
        self._segments.add((*row[:5], placed.pool, spots, devices, *row[6:]))

    def __enter__(self) -> ParquetSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._segments.close()
        self._records.close()

    def read(self) -> Iterator[Segment]:
        """Every stretch again, in order, a page at a time; after the sink has been closed."""
        with pq.ParquetFile(self._segments.path) as file:
            for batch in file.iter_batches(PAGE_ROWS):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    spots = tuple(
                        (int(node), int(count)) for node, count in (one.split(":") for one in row[6].split())
                    )
                    placed = Placed(row[5], spots, tuple(map(int, row[7].split())))
                    yield Segment._make((*row[:5], placed, *row[8:]))

    def jobs(self) -> Iterator[JobRecord]:
        """What became of every job, as :meth:`read`."""
        with pq.ParquetFile(self._records.path) as file:
            for batch in file.iter_batches(PAGE_ROWS):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield JobRecord(*row)
