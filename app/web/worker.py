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

VERBS = ("cluster", "plan", "search")


def stages(request: dict[str, Any]) -> answers.Stages:
    """The answers of a request, first the quick ones.

    Raises:
        ScenarioError: the scenario is refused.
    """
    changes = tuple((path, value) for path, value in request["changes"])
    case = Case(request["name"], request["text"], changes, request["uploaded"])
    scenario = resolve(case)
    if request["verb"] == "cluster":
        return answers.cluster(scenario, str(files("scenarios")))
    if request["verb"] == "plan":
        return answers.plan(scenario, request.get("worlds", answers.WORLDS))
    return answers.search(scenario)


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
