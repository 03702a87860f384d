"""The census of constants: each one has a unit, a kind, a source and a meaning."""

from __future__ import annotations

import ast
import importlib
import itertools
import pkgutil
from collections import Counter
from pathlib import Path

import pytest

import sim.cost
import sim.training
from sim.cost.parameters import Parameter
from sim.spec.profile import KINDS, Fit
from sim.spec.profiles import shipped

MODULES = [
    importlib.import_module(found.name)
    for package in (sim.cost, sim.training)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


def parameters() -> list[tuple[str, Parameter]]:
    """Every Parameter in a module-level tuple of sim.cost and sim.training."""
    return [
        (f"{module.__name__}.{name}", entry)
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, tuple) and name.isupper()
        for entry in value
        if isinstance(entry, Parameter)
    ]


def fits() -> list[tuple[str, Fit]]:
    return [
        (f"{profile.name}: {fit.op} {dict(fit.key)}", fit) for profile in shipped() for fit in profile.fits
    ]


def test_there_are_cost_parameters_and_shipped_fits() -> None:
    assert len(parameters()) > 30
    assert len(fits()) > 20


def test_every_parameter_of_a_cost_function_is_documented_and_within_its_bounds() -> None:
    for where, parameter in parameters():
        assert parameter.unit, where
        assert parameter.source, where
        assert len(parameter.meaning) > 5, where
        assert 0 <= parameter.low <= parameter.start <= parameter.high, f"{where}: {parameter.name}"


def test_every_constant_of_a_shipped_profile_has_unit_kind_source_and_a_sound_interval() -> None:
    for where, fit in fits():
        for name, constant in fit.parameters.items():
            assert constant.kind in KINDS, f"{where}.{name}"
            assert constant.unit, f"{where}.{name}"
            assert constant.source, f"{where}.{name}"
            if constant.low is not None and constant.high is not None:
                assert constant.low <= constant.value <= constant.high, f"{where}.{name}"


def test_every_fitted_entry_tells_its_held_out_error() -> None:
    silent = [
        where
        for where, fit in fits()
        if fit.error is None and any(constant.kind == "fitted" for constant in fit.parameters.values())
    ]
    assert silent == []


def test_a_residual_grid_has_at_most_300_numbers() -> None:
    for where, fit in fits():
        if fit.grid is not None:
            assert len(fit.grid.values) <= 300, where


def test_a_profile_is_a_few_parameters() -> None:
    for where, fit in fits():
        assert len(fit.parameters) <= 20, where


def test_no_two_entries_answer_the_same_question() -> None:
    counts = Counter((fit.op, tuple(sorted(fit.key.items()))) for _, fit in fits())
    assert [key for key, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("profile", shipped(), ids=lambda profile: profile.name)
def test_a_profile_says_which_command_made_it(profile) -> None:
    assert profile.provenance["command"]


def bare_constants(path: Path) -> list[str]:
    """Upper-case module constants with numbers and no docstring below (a Parameter documents itself)."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = []
    for node, after in itertools.pairwise([*body, None]):
        if (
            not isinstance(node, ast.Assign | ast.AnnAssign)
            or node.value is None
            or "Parameter(" in ast.unparse(node)
        ):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        numbers = any(
            isinstance(item, ast.Constant) and type(item.value) in (int, float)
            for item in ast.walk(node.value)
        )
        told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        grouped = isinstance(after, ast.Assign | ast.AnnAssign)  # a run of constants shares one docstring
        if numbers and any(name.isupper() for name in names) and not told and not grouped:
            found.append(f"{path.name}: {', '.join(names)}")
    return found


@pytest.mark.parametrize("path", sorted(Path(sim.cost.__path__[0]).rglob("*.py")), ids=lambda path: path.stem)
def test_every_number_written_into_a_cost_function_says_where_it_comes_from(path: Path) -> None:
    assert bare_constants(path) == []
