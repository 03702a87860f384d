"""The example of docs/policies.md runs, and a policy that hangs is stopped."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from pathlib import Path

import pytest

import sim
from sim.cluster.nodes import Pool
from sim.cluster.policy import FunctionPolicy, PolicyError, Start
from sim.cluster.rules import Rules
from sim.cluster.run import simulate
from sim.spec.job import Job
from sim.spec.scheduling import POLICIES

DOC = Path(sim.__file__).parents[1] / "docs" / "policies.md"


def test_the_documents_example_prints_what_it_says(capsys):
    text = DOC.read_text(encoding="utf-8")
    space: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, str(DOC), "exec"), space)
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["small 0.0 600.0", "large 600.0 4200.0"]
    for line in printed:
        assert f"`{line}`" in text
    for name in POLICIES:
        assert f"`{name}`" in text, "a policy of the menu is not in the document"


def test_a_policy_that_loops_without_a_decision_is_stopped_and_named():
    def hangs(view):
        yield Start(view.waiting.first)
        while True:
            with contextlib.suppress(Exception):
                sum(range(100))

    jobs = [Job("first", 0.0, 1, 10.0), Job("second", 0.0, 1, 10.0)]
    with pytest.raises(PolicyError) as told:
        simulate(jobs, [Pool(1, 8)], FunctionPolicy(hangs), rules=Rules(seconds_per_decision=0.2))
    for word in ("hangs", "0.2 s", "Start of job 'first'", "head of the queue: job 'second'"):
        assert word in str(told.value)
    assert not [thread for thread in threading.enumerate() if thread.name == "policy watch"]


def test_a_policy_that_is_slow_within_its_time_is_let_alone():
    def slow(view):
        time.sleep(0.02)
        for state in view.waiting:
            yield Start(state)

    jobs = [Job(str(n), float(n), 1, 10.0) for n in range(20)]
    log = simulate(jobs, [Pool(1, 8)], FunctionPolicy(slow), rules=Rules(seconds_per_decision=0.5))
    assert {r.outcome for r in log.records} == {"completed"}
