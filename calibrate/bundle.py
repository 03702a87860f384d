"""One file to carry to a bare node: calibrate and the little of sim that it reads, packed as a zipapp.

Like a surveyor's kit in one box: ``python rackcast-calibrate.pyz run`` works wherever there are Python 3.10, torch
and numpy. The archive is the same bytes for the same sources (entries in order, one date).
"""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

START = """\
import sys

from calibrate.__main__ import main

if __name__ == "__main__":  # spawned children import this file too
    sys.exit(main())
"""
SHEBANG = b"#!/usr/bin/env python3\n"
DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest date a zip entry can have: a build date would make every bundle different."""


def bundle(out: Path) -> list[str]:
    """Write the archive in one step; names of the modules in it.

    Raises:
        OSError: the sources cannot be read or ``out`` cannot be written.
    """
    sources = dict(sorted(_sources()))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {"__main__.py": START, **sources}.items():
            entry = zipfile.ZipInfo(name, DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.draft")
    draft.write_bytes(SHEBANG + packed.getvalue())
    draft.chmod(0o755)
    draft.replace(out)
    return list(sources)


def _sources() -> Iterator[tuple[str, str]]:
    """Every module of calibrate, and of sim those that these import, directly or through one another."""
    here = Path(__file__).resolve().parent
    if not here.is_dir():
        raise OSError("a bundle cannot make bundles: start from an installed rackcast or its sources")
    waiting = [f"calibrate/{path.relative_to(here).as_posix()}" for path in here.rglob("*.py")]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        text = (here.parent / name).read_text(encoding="utf-8")
        yield name, text
        found = _imported(ast.parse(text), here.parent, inside=name.startswith("calibrate/"))
        waiting += [one for one in found if one.startswith("sim/")]


def _imported(tree: ast.Module, root: Path, *, inside: bool) -> Iterator[str]:
    """Files of the modules a source imports, and of the packages above them; not what only type checkers read.

    ``inside``: imports within functions count too. In sim they lead to engines, which nothing here calls.
    """
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if inside:
            nodes += ast.iter_child_nodes(node)
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                stem = "/".join(parts[:depth])
                for candidate in (f"{stem}.py", f"{stem}/__init__.py"):
                    if (root / candidate).is_file():
                        yield candidate
