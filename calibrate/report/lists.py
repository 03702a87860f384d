"""The two lists a scheduler takes: nodes that pass, and nodes that do not with the reason beside the name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrate.measurements import write_text


def write_lists(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """passing_nodes.txt (a name a line, as ``srun --nodelist`` reads a file), failing_nodes.txt (name # reason)."""
    passing = [row["node"] for row in document["nodes"] if row["passes"]]
    failing = [
        f"{row['node']}  # {'; '.join(row['reasons'])}" for row in document["nodes"] if not row["passes"]
    ]
    paths = []
    for name, lines in (("passing_nodes.txt", passing), ("failing_nodes.txt", failing)):
        path = folder / name
        write_text(path, "".join(f"{line}\n" for line in lines))
        paths.append(path)
    return paths
