"""Where tables are written: a terminal in its own width, a file or a pipe in one wide enough to read."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

from rich.console import Console
from rich.table import Table

PIPED_COLUMNS = 120
"""Width where nobody's terminal says otherwise."""


def screen(columns: int = PIPED_COLUMNS, aside: bool = False) -> Console:
    """Standard output; where it is not a terminal ``columns`` wide, or as wide as COLUMNS says if that is more.

    ``aside`` writes on standard error instead: for tables beside a text that is meant for a file.
    """
    said = os.environ.get("COLUMNS", "")
    wide = max(columns, int(said) if said.isdigit() else 0)
    stream = sys.stderr if aside else sys.stdout
    return Console(highlight=False, width=None if stream.isatty() else wide, stderr=aside)


def plain_table(*columns: str, text: Collection[str] = (), title: str = "") -> Table:
    """A plain table: the first column and those in ``text`` are words, the others figures, aligned on the right."""
    made = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
        title_justify="left",
        title=title or None,
    )
    for place, name in enumerate(columns):
        words = place == 0 or name in text
        made.add_column(name, justify="left" if words else "right", overflow="fold")
    made.show_header = any(columns)
    return made
