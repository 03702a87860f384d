"""Simulations in worker processes: ask, look how far it is, take what there is, call it off.

Like a cloakroom with numbered hooks: the same question gets the same number, so that twenty visitors who open the same
page wait for one simulation; and few hooks, so that they cannot bring the house down.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import app

SLOTS = 2
"""Simulations at a time."""
KEPT = 24
"""Answers that are remembered; each up to half a megabyte."""
LIMIT_S = 900.0
"""Longest simulation; beyond it the command line is the better place."""


class Job:
    """One simulation and what it has said so far. Fields are replaced whole, so that any thread may read them."""

    def __init__(self, request: dict[str, Any], slots: threading.Semaphore) -> None:
        self.state = "waiting"
        """``waiting`` for a free slot, ``running``, ``done``, ``refused`` (see ``refused``) or ``cancelled``."""
        self.share = 0.0
        """Of the work, 0..1, as far as the last answer goes."""
        self.document: dict[str, Any] | None = None
        """The answer so far; partial until the state is ``done``."""
        self.refused: tuple[str, ...] = ()
        self.watchers: set[str] = set()
        self.started_s = time.monotonic()
        self._request, self._slots = request, slots
        self._process: subprocess.Popen[str] | None = None
        self._stop = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("done", "refused", "cancelled")

    @property
    def seconds(self) -> float:
        """Since it was asked for."""
        return time.monotonic() - self.started_s

    def cancel(self) -> None:
        """Stop it; what it has said so far stays."""
        self._stop.set()
        process = self._process
        if process is not None:
            process.kill()
        if not self.over:
            self.state = "cancelled"

    def wait(self, timeout_s: float) -> bool:
        """Whether it is over within ``timeout_s``."""
        until = time.monotonic() + timeout_s
        while not self.over and time.monotonic() < until:
            time.sleep(0.02)
        return self.over

    def _work(self) -> None:
        with self._slots:
            if self._stop.is_set():
                return
            root = str(Path(app.__path__[0]).parent)
            path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", "app.web.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": path},
            )
            self.state = "running"
            timer = threading.Timer(LIMIT_S, self._too_long)
            timer.daemon = True
            timer.start()
            try:
                self._listen(process)
            finally:
                timer.cancel()
                process.kill()
                process.communicate()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(self._request) + "\n")
            process.stdin.flush()
        except OSError:
            pass  # it ended at once; what it said tells why
        for line in process.stdout:
            message = json.loads(line)
            if "refused" in message:
                self.refused, self.state = tuple(message["refused"]), "refused"
                return
            self.document, self.share = message["document"], message["share"]
        if self.share >= 1.0:
            self.state = "done"
        elif not self.over:
            self.refused, self.state = ("the simulation broke off",), "refused"

    def _too_long(self) -> None:
        self.refused = (f"stopped after {LIMIT_S:.0f} s: use the command line for a study of this size",)
        self.state = "refused"
        self._stop.set()
        if self._process is not None:
            self._process.kill()


class Office:
    """Takes questions and remembers answers; one for the whole server."""

    def __init__(self, slots: int = SLOTS, kept: int = KEPT) -> None:
        self._slots, self._kept = threading.Semaphore(slots), kept
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, request: dict[str, Any], watcher: str) -> Job:
        """The job of this question: a new one, the running one, or the answer there is."""
        key = json.dumps(request, sort_keys=True)
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.state == "cancelled":
                job = Job(request, self._slots)
            self._jobs[key] = job
            self._jobs.move_to_end(key)
            job.watchers.add(watcher)
            idle = [name for name, one in self._jobs.items() if one.over]
            for name in idle[: max(len(self._jobs) - self._kept, 0)]:
                if name != key:
                    del self._jobs[name]
        return job

    def leave(self, job: Job, watcher: str) -> None:
        """Stop watching; whom nobody watches is stopped."""
        with self._lock:
            job.watchers.discard(watcher)
            alone = not job.watchers
        if alone and not job.over:
            job.cancel()
