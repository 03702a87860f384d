"""The import contracts hold, and break when a forbidden import is planted."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import app
import calibrate
import sim

ROOT = Path(__file__).resolve().parents[1]
LINT = [
    sys.executable,
    "-c",
    "from importlinter.cli import lint_imports_command; lint_imports_command()",
    "--no-cache",
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(LINT, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("sim", "calibrate", "app"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("sim/units.py", "import torch", "the library knows no face, no torch, no calibrate BROKEN"),
        ("sim/cost/optimizer.py", "import scipy", "cost functions need numpy alone BROKEN"),
        ("sim/results/timeline.py", "import pydantic", "only the loader imports pydantic BROKEN"),
        ("sim/spec/model.py", "from app.report import figures", "nothing imports the faces BROKEN"),
        (
            "sim/cost/links.py",
            "import sim.training.step",
            "inside the library imports only point down BROKEN",
        ),
        ("app/web/state.py", "import sim.cost.money", "the app's pages ask app.answers"),
        ("calibrate/measure.py", "import sim.spec.scenario", "calibrate needs only numpy"),
    ],
)
def test_a_planted_import_is_caught(copy: Path, module: str, line: str, broken: str) -> None:
    path = copy / module
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("import annotations\n", f"import annotations\n{line}\n", 1))
    done = lint(copy)
    assert done.returncode == 1
    assert broken in " ".join(done.stdout.split())


def test_the_packages_are_ours_and_no_face_hides_a_package() -> None:
    for package in (sim, calibrate, app):
        assert package.__file__ is not None
        assert Path(package.__file__).resolve().is_relative_to(ROOT)
    hidden = {path.stem for path in (ROOT / "app" / "web").glob("*.py")} & {
        "sim",
        "app",
        "calibrate",
        "scenarios",
    }
    assert hidden == set()
    assert not hidden & set(sys.stdlib_module_names)


BARE = [*(ROOT / "calibrate").rglob("*.py"), *(ROOT / "sim" / "cost").rglob("*.py")]
BARE += [ROOT / "sim" / name for name in ("__init__.py", "units.py", "spec/profile.py", "spec/device.py")]
NEWER = ("tomllib", "StrEnum", "ExceptionGroup", "assert_never", "TaskGroup")


@pytest.mark.parametrize("path", BARE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_goes_to_a_bare_node_keeps_to_python_3_10(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not names & {*NEWER, "UTC", "Self"}
