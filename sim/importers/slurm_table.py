"""Tables that Slurm's commands print: a header, a delimiter, and whatever job names do to both.

Delimiters seen in the field are ``|``, ``|#``, control characters and padding to fixed width; a comment with a line
feed breaks a record over lines, a cut file leaves half of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sim.importers.imported import Tally
from sim.importers.sources import Source, refuse

_DELIMITERS = ("|#", "|", "\x1f", "\t")


@dataclass(frozen=True, slots=True)
class Row:
    """One record: cells by upper-case column name."""

    place: str
    cells: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.cells.get(name, "")

    def first(self, *names: str) -> str:
        """The first cell of these columns that says something."""
        return next((value for name in names if (value := self.cells.get(name, "")) not in _EMPTY), "")


_EMPTY = frozenset(("", "N/A", "(null)", "None", "Unknown", "NONE", "n/a", "INVALID"))


def rows(source: Source, tally: Tally, known: Sequence[str], columns: Sequence[str] = ()) -> Iterator[Row]:
    """Records of a table. ``known``: columns that tell the header; ``columns``: the header where the file has none.

    Raises:
        ScenarioError: no header among the first lines, and none given.
    """
    written = [(number, line) for number, line in source.lines() if line.strip()]
    lines = [(number, line) for number, line in written if not _rule(line)]
    if not lines:
        raise refuse(source.name, "is empty: expected a table with a header")
    first = lines[0][1].strip(" \x1e")
    cut = next((sign for sign in _DELIMITERS if sign in first), None)
    if cut is None and "," in first and " " not in first:  # sacct --delimiter=,
        cut = ","
    header = [_column(name) for name in columns]
    wanted = {name.upper() for name in known}
    if not header:
        header = [_column(name) for name in (first.split() if cut is None else first.split(cut))]
        if not wanted & set(header):
            raise refuse(
                source.name,
                f"has no header with any of {', '.join(known)}: give the columns with --columns, "
                "or print the table with its header (without -n, --noheader)",
                first[:60],
            )
        lines = lines[1:]
    while header and not header[-1]:  # -p ends each line with a delimiter
        header.pop()
    split = _splitter([line for _, line in written[:2]], cut, len(header))
    names = {name: position for position, name in reversed(list(enumerate(header)))}
    for number, cells in _whole(lines, split, len(header), source, tally):
        place = source.place(number)
        if _column(cells[0]) == header[0] and [_column(cell) for cell in cells] == header:
            tally.skip("the header again", place)
            continue
        yield Row(place, {name: cells[position].strip() for name, position in names.items()})


def objects(source: Source, tally: Tally, names: Mapping[str, str]) -> Iterator[Row]:
    """Records of one JSON object a line; ``names``: column for each of its keys."""
    for number, line in source.lines():
        if not line.strip() or line.startswith("#"):
            continue
        tally.records += 1
        try:
            item = json.loads(line)
        except json.JSONDecodeError:
            item = None
        if isinstance(item, Mapping):
            cells = {names.get(str(key), str(key).upper()): str(value) for key, value in item.items()}
            yield Row(source.place(number), cells)
        else:
            tally.skip("line is no JSON object", source.place(number))


def _splitter(top: Sequence[str], cut: str | None, width: int) -> Callable[[str], list[str]]:
    """How a line of the table falls into cells; ``top``: its first two lines."""
    rule = top[1] if cut is None and len(top) > 1 and _rule(top[1]) else ""
    spans = [found.span() for found in re.finditer("-+", rule)]
    if spans and len(spans) == width:  # columns of fixed width below dashes, as sacct prints without -P
        return lambda line: [line[start:end] for start, end in spans]
    if cut is None:  # the last cell may hold blanks: squeue's reasons
        return lambda line: line.split(None, width - 1)
    if cut == "\x1f":
        return lambda line: line.lstrip("\x1e").split(cut)
    return lambda line: line.split(cut)


def _column(name: str) -> str:
    return name.strip().partition("%")[0].upper()  # sacct's JobName%20 is a width


def _rule(line: str) -> bool:
    """The line of dashes below a header."""
    return not line.strip("-|+ ")


def _whole(
    lines: Sequence[tuple[int, str]],
    split: Callable[[str], list[str]],
    width: int,
    source: Source,
    tally: Tally,
) -> Iterator[tuple[int, list[str]]]:
    """Records with all their cells: broken ones joined, halves told and left out."""
    held: list[str] = []
    since = 0
    for number, line in lines:
        cells = split(line)
        if len(cells) == width + 1 and not cells[-1].strip():
            cells = cells[:-1]
        if held and len(held) + len(cells) - 1 <= width and len(cells) < width:
            held = [*held[:-1], f"{held[-1]} {cells[0]}", *cells[1:]]
        else:
            if held:
                tally.records += 1
                tally.skip("record is cut short", source.place(since))
            held, since = cells, number
        if len(held) == width + 1 and not held[-1].strip():
            held = held[:-1]
        if len(held) == width:
            tally.records += 1
            yield since, held
            held = []
        elif len(held) > width:
            tally.records += 1
            tally.skip(
                "record has more cells than the header (a delimiter inside a cell?)", source.place(since)
            )
            held = []
    if held:
        tally.records += 1
        tally.skip("record is cut short", source.place(since))
