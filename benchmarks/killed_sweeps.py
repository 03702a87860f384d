"""``python -m benchmarks.killed_sweeps``: sweeps of 500 points killed 20 times at random moments, then finished.

Real processes and real SIGKILL: every call of the function leaves a line in a journal, so that a point that was in the
store and worked out again would show.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

WORK = """\
import os
import time


def work(payload):
    time.sleep(payload["seconds"])
    line = f"{payload['number']}\\n".encode()
    journal = os.open(payload["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, line)
    os.close(journal)
    return {"square": payload["number"] ** 2}
"""

DRIVER = """\
import sys

from sim.planning.store import Store
from sim.planning.sweep.executors import local, ray_cluster
from sim.planning.sweep.run import Point, run_points

if __name__ == "__main__":
    folder, count, executor, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    points = [
        Point(f"point {n}", {"number": n, "seconds": seconds, "journal": f"{folder}/journal"}) for n in range(count)
    ]
    worker = local(2) if executor == "local" else ray_cluster(2)
    with Store(__import__("pathlib").Path(folder) / "points.sqlite") as store:
        answers = run_points(points, "counted_work:work", store, worker)
    print(sum(answer["square"] for answer in answers))
"""


KILLS = 20
"""That hit a sweep while it ran."""


class Verdict(NamedTuple):
    """What was found after a sweep was killed and finished."""

    kills: int
    """Kills that hit a running sweep."""
    lost: int
    """Points that were in the store after a kill and not later."""
    redone: int
    """Points worked out again although the store had them."""
    missing: int
    """Points without a row at the end."""
    in_hand: int
    """Calls beyond one a point: work that was under way when the sweep was killed."""


def study(points: int, kills: int, executor: str, *, seconds: float, longest_s: float, seed: int) -> Verdict:
    """Kill a sweep of ``points`` at ``kills`` random moments of up to ``longest_s``, then let it finish."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "counted_work.py").write_text(WORK, encoding="utf-8")
        (folder / "driver.py").write_text(DRIVER, encoding="utf-8")
        hit = lost = redone = 0
        known: set[str] = set()
        for _ in range(kills):
            before = _calls(folder)
            hit += _start(folder, points, executor, seconds, draw.uniform(0.3, longest_s))
            now = _stored(folder)
            lost += len(known - now)
            redone += sum(1 for key in known if _calls(folder)[key] > before[key])
            known = now
        before = _calls(folder)
        if _start(folder, points, executor, seconds, None):
            raise RuntimeError("the last run did not end well")
        now = _stored(folder)
        redone += sum(1 for key in known if _calls(folder)[key] > before[key])
        return Verdict(
            hit, lost + len(known - now), redone, points - len(now), sum(_calls(folder).values()) - points
        )


def _start(folder: Path, points: int, executor: str, seconds: float, kill_after_s: float | None) -> bool:
    """Run the sweep; True where it was killed (or failed) before its end."""
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(
        [sys.executable, str(folder / "driver.py"), str(folder), str(points), executor, str(seconds)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return child.wait(timeout=kill_after_s) != 0
    except subprocess.TimeoutExpired:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        time.sleep(0.2 + seconds)  # workers end when their parent has; their last lines belong to this run
        return True


def _calls(folder: Path) -> Counter[str]:
    journal = folder / "journal"
    text = journal.read_text(encoding="utf-8") if journal.exists() else ""
    return Counter(f"point {line}" for line in text.splitlines())


def _stored(folder: Path) -> set[str]:
    from sim.planning.store import Store

    file = folder / "points.sqlite"
    if not file.exists():
        return set()
    with Store(file) as store:
        return set(store.results(f"point {n}" for n in range(100_000)))


def main() -> int:
    """Both executors; the exit code is 1 where a point was lost, redone or missing."""
    bad = 0
    for executor in sys.argv[1:] or ("local",):
        longest_s = 1.5 if executor == "local" else 8.0
        hits = sweeps = 0
        while hits < KILLS:  # a sweep that ends before its last kill is followed by another
            verdict = study(500, KILLS - hits, executor, seconds=0.06, longest_s=longest_s, seed=1 + sweeps)
            hits, sweeps = hits + verdict.kills, sweeps + 1
            bad += verdict.lost + verdict.redone + verdict.missing
            print(f"{executor}, sweep {sweeps}: {verdict}", flush=True)
        print(f"{executor}: killed {hits} times while it ran, in {sweeps} sweeps of 500 points")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
