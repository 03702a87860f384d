"""A simulation in a process of its own: a question on standard input, answers line by line on standard output.

Like a kitchen behind a hatch: the order goes in, a first taste comes out, then the dish; if the guest leaves, the
stove is switched off without anybody in the dining room noticing.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from typing import Any

from app import answers
from app.web.state import Case, resolve
from sim.spec.faults import ScenarioError


def stages(request: dict[str, Any]) -> answers.Stages:
    """The answers of a request, first the quick ones.

    Raises:
        ScenarioError: the scenario is refused.
    """
    folder = str(files("scenarios"))
    scenario = resolve(_case(request))
    if request["verb"] in ("compare clusters", "compare plans"):
        scenarios = [scenario, *(resolve(_case(other)) for other in request["others"])]
        clusters = request["verb"] == "compare clusters"
        return (answers.clusters_side_by_side if clusters else answers.plans_side_by_side)(scenarios, folder)
    if request["verb"] == "cluster":
        return answers.cluster(scenario, folder)
    if request["verb"] == "plan":
        return answers.plan(scenario, request.get("worlds", answers.WORLDS))
    return answers.search(scenario)


def _case(asked: dict[str, Any]) -> Case:
    changes = tuple((path, value) for path, value in asked["changes"])
    return Case(asked["name"], asked["text"], changes, asked["uploaded"])


def main() -> int:
    """One line for each stage: ``{"share": ..., "document": ...}``, or ``{"refused": [...]}``."""
    request = json.loads(sys.stdin.readline())
    try:
        for share, document in stages(request):
            _say({"share": share, "document": document})
    except ScenarioError as error:
        _say({"refused": [str(fault) for fault in error.faults]})
    except Exception as error:  # the process boundary: whoever asked is told, whatever it was
        _say({"refused": [f"the simulation broke off: {type(error).__name__}: {error}"]})
    return 0


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message, allow_nan=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
