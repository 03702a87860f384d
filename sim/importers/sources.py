"""Files as importers want them: opened, unpacked and decoded, however they were left lying about.

Bytes that are not UTF-8, an archive cut short and a file that is not there are the everyday state of exports; the first
two are counted, only the last is refused.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.importers.imported import Tally
from sim.spec.faults import Fault, ScenarioError


@dataclass(frozen=True, slots=True)
class Source:
    """One file's text under the name that messages use."""

    name: str
    text: str

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number from 1, line without its end); only line feeds end a line, as other control characters are data."""
        for number, line in enumerate(self.text.split("\n"), 1):
            yield number, line.rstrip("\r")

    def place(self, line: int) -> str:
        """``file:line``."""
        return f"{self.name}:{line}"


def refuse(name: str, expected: str, value: object = None) -> ScenarioError:
    """The error for a file that is not of the kind at all."""
    return ScenarioError([Fault(name, "", value, expected)])


def open_sources(paths: Sequence[str | Path], tally: Tally) -> list[Source]:
    """Read files (``.gz`` too).

    Raises:
        ScenarioError: all the files that cannot be read, or hold binary data.
    """
    faults, sources = [], []
    for path in map(Path, paths):
        try:
            raw = path.read_bytes()
        except OSError as fault:
            faults.append(Fault(str(path), "", None, f"cannot be read: {fault.strerror}"))
            continue
        if raw[:2] == b"\x1f\x8b":
            raw = _unpack(raw, path.name, tally)
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            text = raw.decode("utf-16", errors="replace")
        elif b"\0" in raw[:4096]:
            faults.append(Fault(str(path), "", None, "holds binary data: expected text"))
            continue
        else:
            text = _decode(raw, path.name, tally)
        sources.append(Source(path.name, text))
    if faults:
        raise ScenarioError(faults)
    return sources


def _unpack(raw: bytes, name: str, tally: Tally) -> bytes:
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        tally.note("compressed file is cut short or damaged: what could be unpacked was read", name)
        try:
            return zlib.decompressobj(wbits=31).decompress(raw)
        except zlib.error:
            return b""


def _decode(raw: bytes, name: str, tally: Tally) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        for number, line in enumerate(raw.split(b"\n"), 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                tally.note("line with bytes that are not UTF-8: they are shown as \ufffd", f"{name}:{number}")
        return raw.decode("utf-8-sig", errors="replace")


def table(source: Source) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Header and (line number, cells) of a comma-separated file; an empty file has an empty header."""
    reader = csv.reader(source.text.splitlines())
    header = [name.strip() for name in next(reader, [])]

    def rows() -> Iterator[tuple[int, list[str]]]:
        while True:
            try:
                cells = next(reader, None)
            except csv.Error:  # a field beyond the reader's bound
                cells = []
            if cells is None:
                return
            yield reader.line_num, cells

    return header, rows()
