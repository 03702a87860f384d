"""The one-file bundle and the bare package on a node that has Python, torch and numpy and nothing else of ours."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from calibrate.bundle import bundle
from calibrate.measurements import load

ROOT = Path(__file__).resolve().parents[2]
BARE = """
import sys

ABSENT = {"scipy", "pandas", "pydantic", "simpy", "typer", "rich", "plotly", "streamlit", "app", "scenarios"}


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocker())
sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in getattr(one, "__module__", "") + repr(one)]
sys.path[:] = [entry for entry in sys.path if not __import__("os").path.exists(f"{entry}/pyproject.toml")]
"""


def bare(folder: Path, *words: object, package: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python in an empty folder with a clean environment in which only torch, numpy and their like import."""
    (folder / "sitecustomize.py").write_text(BARE)
    empty = folder / "empty"
    empty.mkdir()
    path = os.pathsep.join(map(str, [folder, *([package] if package else [])]))
    clean = {"PATH": os.defpath, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HOME": str(empty)}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(
        command, cwd=empty, env=clean, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.torch
def test_the_bundle_measures_in_an_empty_folder(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="measuring needs torch (extra: calibrate)")
    bundle(tmp_path / "rackcast-calibrate.pyz")
    words = ["run", "--budget", "1s", "--only", "collective", "--out", "node.json"]
    done = bare(tmp_path, tmp_path / "rackcast-calibrate.pyz", *words)
    assert done.returncode == 0, done.stderr
    measured = load(tmp_path / "empty" / "node.json")
    assert measured.complete
    assert measured.tables["collectives"], "spawned ranks find the bundle too"
    assert "no profile was fitted" in done.stderr, "scipy is absent there"
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["node.json"]


@pytest.mark.torch
def test_the_package_measures_with_torch_and_numpy_alone(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="measuring needs torch (extra: calibrate)")
    package = tmp_path / "package"
    bundle(tmp_path / "b.pyz")
    with zipfile.ZipFile(tmp_path / "b.pyz") as archive:
        archive.extractall(package)
    done = bare(tmp_path, "-m", "calibrate", "run", "--budget", "1s", "--only", "launch", package=package)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "empty" / "measurements.json").tables["launch"]


def test_the_bundle_is_small_whole_and_the_same_bytes_twice(tmp_path: Path) -> None:
    modules = bundle(tmp_path / "a.pyz")
    bundle(tmp_path / "b.pyz")
    assert (tmp_path / "a.pyz").read_bytes() == (tmp_path / "b.pyz").read_bytes()
    assert (tmp_path / "a.pyz").stat().st_size < 500_000
    assert {"calibrate/run.py", "calibrate/screen.py", "sim/units.py", "sim/spec/profile.py"} <= set(modules)
    allowed = ("calibrate/", "sim/cost/", "sim/spec/", "sim/units.py", "sim/__init__.py")
    assert all(name.startswith(allowed) for name in modules)
    assert "sim/spec/loader.py" not in modules


NEWER = {
    "tomllib", "ExceptionGroup", "BaseExceptionGroup", "Self", "LiteralString", "Never", "NotRequired", "Required",
    "Unpack", "TypeVarTuple", "assert_never", "assert_type", "reveal_type", "override", "StrEnum", "ReprEnum", "UTC",
    "chdir", "batched", "file_digest", "TaskGroup", "Runner", "add_note", "exception", "cbrt", "exp2", "getencoding",
    "TypeAliasType", "itertools.batched", "walk_up", "sumprod",
}  # fmt: skip
"""Modules and names that Python gained in 3.11 and 3.12. Source: What's New In Python 3.11 and 3.12."""


def names_in(tree: ast.Module) -> set[str]:
    """Names that a module imports or looks up; those that only type checkers see do not count."""
    nodes: list[ast.AST] = [tree]
    found: set[str] = set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_everything_in_the_bundle_is_python_3_10(tmp_path: Path) -> None:
    bundle(tmp_path / "b.pyz")
    with zipfile.ZipFile(tmp_path / "b.pyz") as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist()}
    assert len(sources) > 50
    for name, text in sources.items():
        tree = ast.parse(text, name, feature_version=(3, 10))
        assert names_in(tree) & NEWER == set(), name
    stray = ast.parse("import tomllib\nfrom typing import Self")
    assert names_in(stray) & NEWER == {"tomllib", "Self"}, "the scan finds what it looks for"


LOAD_ALL = """
import importlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
for path in sorted((root / "calibrate").rglob("*.py")):
    name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    if not name.startswith(("calibrate.fit", "calibrate.networks")):  # these need scipy or torch to load
        importlib.import_module(name)
ours = [m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in ("sim", "calibrate")]
print("\\n".join(str(pathlib.Path(file).relative_to(root)) for file in ours if file))
"""


def test_every_module_loads_from_the_bundle_alone(tmp_path: Path) -> None:
    modules, package = bundle(tmp_path / "b.pyz"), tmp_path / "package"
    with zipfile.ZipFile(tmp_path / "b.pyz") as archive:
        archive.extractall(package)
    (tmp_path / "load.py").write_text(LOAD_ALL)
    done = bare(tmp_path, tmp_path / "load.py", package, package=package)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert loaded <= set(modules), "nothing came from elsewhere"
    new = {"calibrate/tables.py", "calibrate/conditions.py", "calibrate/microbenchmarks/layer.py"}
    assert new <= loaded
    assert {"calibrate/networks.py", "sim/cost/kernels/processor.py"} <= set(modules)


def test_help_of_the_bundle_needs_nothing(tmp_path: Path) -> None:
    bundle(tmp_path / "a.pyz")
    done = bare(tmp_path, "-S", tmp_path / "a.pyz", "--help")
    assert done.returncode == 0, done.stderr
    assert "screen" in done.stdout


def test_the_verb_writes_it_and_refuses_where_it_cannot(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["calibrate", "bundle", "--out", str(tmp_path / "x" / "r.pyz")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "x" / "r.pyz").exists()
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["calibrate", "bundle", "--out", str(tmp_path / "file" / "r.pyz")])
    assert done.exit_code == 2
    assert "cannot write" in done.stderr
