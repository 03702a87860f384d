"""``python -m benchmarks.peers``: other schedulers and ours on the same trace, one beside the other.

Like two runners on one track: each run is a child process, ours and theirs take turns, and what counts is the ratio of
their processor seconds in one session. The schedules are compared job by job first, so that both are known to have
done the same work. Ours runs on SimPy with its whole log and its books; theirs is timed without reading and writing
files (see ``benchmarks.peer_runs``). Jobs a second are of this machine; ratios and targets are what is judged.

``--lucid`` and ``--pyss`` are checkouts of S-Lab-System-Group/Lucid and dinesh121991/pyss. pyss is Python 2.7, which
``--pyss-python`` names; a copy converted with 2to3 runs under Python 3 as well. Traces: ``--traces``, a folder as
``rackcast validate scheduling`` reads it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sim.cluster.nodes import Pool
from sim.cluster.policy import Policy
from sim.cluster.rules import Rules
from sim.cluster.run import simulate
from sim.results.cluster_log import account
from sim.spec.job import Job
from sim.validation.scheduling import OWN, Case, as_the_peer, jobs_of, read_cases
from sim.validation.tables import read_table

TRACES = Path(__file__).resolve().parents[2] / "shared/data/scheduling"
TARGETS = {
    ("lucid", "fifo"): 60.0,
    ("lucid", "sjf"): 60.0,
    ("lucid", "srtf"): 7.0,
    ("lucid", "tiresias"): 7.0,
    ("pyss", "fifo"): 4.0,
    ("pyss", "easy"): 5.0,
}
"""Least times as many jobs a second as the peer; what is not here is told and not judged."""
RUNS, SPEND_S = 12, 4.0
"""Each child takes the best of so many runs, or of those it begins within so many seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One policy on one trace."""

    file: str
    peer: str
    policy: str
    jobs: int
    theirs_s: float
    ours_s: float
    own_rules_s: float
    """Under our own rule of that name, where it differs from the peer's; else the same."""
    differing: int
    """Jobs that start or end at another time than the peer's."""

    @property
    def ratios(self) -> tuple[float, float]:
        """Our rate over theirs: playing by their rules, and by ours."""
        return self.theirs_s / self.ours_s, self.theirs_s / self.own_rules_s

    @property
    def met(self) -> bool:
        """Same work, and both ratios as high as they must be."""
        return not self.differing and min(self.ratios) >= TARGETS.get((self.peer, self.policy), 0.0)

    def __str__(self) -> str:
        target = TARGETS.get((self.peer, self.policy))
        verdict = ("ok  " if self.met else "MISS") if target else ("    " if self.met else "DIFF")
        by_theirs, by_ours = self.ratios
        return (
            f"{verdict} {self.peer:5} {self.policy:13} {by_theirs:7.1f} x (own rules {by_ours:7.1f} x; "
            f"{f'at least {target:g}' if target else 'not judged'})  jobs/s: theirs {self.jobs / self.theirs_s:,.0f}, "
            f"ours {self.jobs / self.ours_s:,.0f}, own rules {self.jobs / self.own_rules_s:,.0f}; "
            f"{self.differing} of {self.jobs} jobs differ; {self.file}"
        )


def best_run(jobs: list[Job], case: Case, policy: Policy, rules: Rules) -> tuple[float, dict[str, Any]]:
    """Processor seconds of the best of our runs with log and books, and (start, end) by job."""
    taken: list[float] = []
    schedule: dict[str, Any] = {}
    while not taken or (len(taken) < RUNS and sum(taken) < SPEND_S):
        took_s, schedule = timed_run(jobs, case, policy, rules)
        taken.append(took_s)
    return min(taken), schedule


def timed_run(jobs: list[Job], case: Case, policy: Policy, rules: Rules) -> tuple[float, dict[str, Any]]:
    """Processor seconds of one run, and its schedule; throwing the log away is not on the clock, as theirs is not."""
    begin_s = time.process_time()
    log = simulate(iter(jobs), [Pool(case.nodes, case.gpus_per_node)], policy, rules=rules)
    account(log)
    took_s = time.process_time() - begin_s
    return took_s, {record.job: (record.start_s, record.end_s) for record in log.records}


def ours(folder: Path, file: str, policy: str) -> dict[str, Any]:
    """What a child of ours answers: seconds by the peer's rules and by our own, and the schedule by the peer's."""
    case, jobs = load(folder, file, policy)
    theirs, rules = as_the_peer(case)
    lagging = [replace(job, duration_s=job.duration_s + case.end_lag_s) for job in jobs]
    ours_s, schedule = best_run(lagging, case, theirs, rules)
    default = Rules(preemption_overhead_s=rules.preemption_overhead_s)
    own_s, _ = best_run(jobs, case, OWN[policy], default)
    return {"cpu_s": ours_s, "own_rules_s": own_s, "schedule": [schedule[job.name] for job in jobs]}


def load(folder: Path, file: str, policy: str) -> tuple[Case, list[Job]]:
    """A row of ``cases.csv`` under another policy, where asked, and its jobs."""
    cases, _ = read_cases(folder)
    case = next(case for case in cases if case.file == file)
    return replace(case, policy=policy), jobs_of(read_table(folder / file))


def child(command: list[str], asked: dict[str, Any]) -> dict[str, Any]:
    """Run a child process with a question on its stdin; its answer."""
    done = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def compare(folder: Path, case: Case, checkout: Path, python: list[str], turns: int) -> Row:
    """Ours and theirs by turns; the best of each."""
    jobs = load(folder, case.file, case.policy)[1]
    asked = {
        "peer": case.peer, "checkout": str(checkout.resolve()), "policy": case.policy, "nodes": case.nodes,
        "gpus_per_node": case.gpus_per_node, "runs": RUNS, "spend_s": SPEND_S,
        "jobs": [(job.submit_s, job.gpus, job.duration_s, job.limit_s or job.duration_s) for job in jobs],
    }  # fmt: skip
    question = {"folder": str(folder), "file": case.file, "policy": case.policy}
    answers: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(turns):
        answers.append(child([sys.executable, "-m", "benchmarks.peers", "--child"], question))
        theirs.append(child([*python, str(Path(__file__).with_name("peer_runs.py"))], asked))
    answers.append(child([sys.executable, "-m", "benchmarks.peers", "--child"], question))
    differing = sum(a != b for a, b in zip(answers[0]["schedule"], theirs[0]["schedule"], strict=True))
    return Row(
        case.file,
        case.peer,
        case.policy,
        len(jobs),
        min(answer["cpu_s"] for answer in theirs),
        min(answer["cpu_s"] for answer in answers),
        min(answer["own_rules_s"] for answer in answers),
        differing,
    )


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--lucid", type=Path, help="checkout of Lucid")
    parser.add_argument("--lucid-python", default=sys.executable, help="its interpreter (needs pandas)")
    parser.add_argument("--pyss", type=Path, help="checkout of pyss")
    parser.add_argument("--pyss-python", default="python2.7 -O", help="its interpreter, with options")
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder with cases.csv")
    parser.add_argument("--only", default="", help="files whose name holds this text")
    parser.add_argument("--turns", type=int, default=1, help="how often each side runs")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _unusable(checkout: Path, python: list[str]) -> str:
    """Why a peer cannot be run; empty where it can."""
    if not checkout.is_dir():
        return f"{checkout} is no folder: expected a checkout of the peer"
    try:
        tried = subprocess.run([*python, "-c", "pass"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{shlex.join(python)} does not run: {error.strerror}"
    return f"{shlex.join(python)} does not run: {tried.stderr.strip()}" if tried.returncode else ""


def main() -> int:
    """Every file of the peers whose checkout is given; the exit code is 1 when a target is missed."""
    told = arguments()
    if told.child:
        question = json.load(sys.stdin)
        json.dump(ours(Path(question["folder"]), question["file"], question["policy"]), sys.stdout)
        return 0
    checkouts = {
        "lucid": (told.lucid, shlex.split(told.lucid_python)),
        "pyss": (told.pyss, shlex.split(told.pyss_python)),
    }
    for peer, (checkout, python) in checkouts.items():
        if checkout is not None and (fault := _unusable(checkout, python)):
            print(f"--{peer}, --{peer}-python: {fault}", file=sys.stderr)
            return 2
    cases, _ = read_cases(told.traces)
    failed = 0
    for case in cases:
        checkout, python = checkouts.get(case.peer, (None, []))
        if checkout is None or told.only not in case.file:
            continue
        row = compare(told.traces, case, checkout, python, told.turns)
        failed += not row.met
        print(row, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
