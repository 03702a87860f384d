"""Between the address bar and a scenario: a short link holds the scenario's name and the changes made to it.

Whatever the address says is checked like a file, by the loader; what is refused is shown, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from sim.spec.faults import Fault, ScenarioError
from sim.spec.loader import loads
from sim.spec.scenario import Scenario

DEFAULT = "gpt3-175b-1024-a100"


def worked_examples() -> list[str]:
    """Names of the scenarios that ship, without their ending."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in files("scenarios").iterdir()
        if entry.name.endswith(".toml")
    )


def scenario_text(name: str) -> str:
    """The TOML of a shipped scenario.

    Raises:
        ScenarioError: no such scenario.
    """
    if name not in worked_examples():
        raise ScenarioError(
            [Fault("address", "scenario", name, f"expected one of {', '.join(worked_examples())}")]
        )
    return (files("scenarios") / f"{name}.toml").read_text(encoding="utf-8")


def resolve(name: str, changes: Mapping[str, object]) -> Scenario:
    """The named scenario with changes applied; see :func:`sim.spec.loader.loads`."""
    overrides = [f"{path}={toml_value(value)}" for path, value in changes.items()]
    return loads(scenario_text(name), f"{name}.toml", overrides)


def command(name: str, changes: Mapping[str, object]) -> str:
    """The command line that gives the same answer."""
    words = [
        f"rackcast run scenarios/{name}.toml",
        *(f"--set {path}={toml_value(value)}" for path, value in changes.items()),
    ]
    return " ".join(words)


def toml_value(value: object) -> str:
    """A widget's value as TOML writes it; text that is no TOML is taken as text by the loader."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
