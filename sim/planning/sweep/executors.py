"""Who works the points out: this process, a pool of processes, or a Ray cluster.

Like a kitchen with one cook, several cooks, or several kitchens: the same orders (a function's import path and a JSON
payload), the same dishes, in whatever order they are ready. An executor neither reads nor writes the store.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, NamedTuple, TypeAlias

AHEAD = 4
"""Points handed out per worker at a time: enough that none waits, few enough that an interrupt ends soon."""
RAY_RETRIES = 3
"""Times Ray starts a point again whose worker died."""


class Task(NamedTuple):
    """One point to be worked out."""

    key: str
    payload: str
    """JSON text."""


class Finished(NamedTuple):
    """One point that has been worked out."""

    task: Task
    result: str
    """JSON text."""


Executor: TypeAlias = Callable[[str, Sequence[Task]], Iterator[Finished]]
"""Works the tasks out with the function at an import path and yields them as they end, in any order."""


class ExecutorError(RuntimeError):
    """The executor asked for cannot be used here."""


def call(function: str, payload: str) -> str:
    """Run ``module:name`` on a JSON payload; returns its answer as JSON with sorted keys."""
    module, _, name = function.partition(":")
    answer = getattr(importlib.import_module(module), name)(json.loads(payload))
    return json.dumps(answer, sort_keys=True, ensure_ascii=False, allow_nan=False)


def serial(function: str, tasks: Sequence[Task]) -> Iterator[Finished]:
    """One after another, in this process."""
    for task in tasks:
        yield Finished(task, call(function, task.payload))


def local(jobs: int) -> Executor:
    """An executor of ``jobs`` processes on this machine; one job runs in this process."""
    if jobs <= 1:
        return serial

    def execute(function: str, tasks: Sequence[Task]) -> Iterator[Finished]:
        left = yield from _pooled(function, tasks, jobs)
        for task in left:  # their worker died; alone each shows whether it was the one
            again = yield from _pooled(function, [task], 1)
            if again:
                yield Finished(task, json.dumps(_lost("the process that worked it out died")))

    return execute


def _lost(reason: str) -> dict[str, Any]:
    return {"outcome": "failed", "reason": reason}


def _pooled(function: str, tasks: Sequence[Task], jobs: int) -> Generator[Finished, None, list[Task]]:
    """Work tasks out in a pool; returns those that were in hand, or waited, when a worker died."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_attend)
    pending: dict[Future[str], Task] = {}
    waiting = list(reversed(tasks))
    in_hand: list[Task] = []
    try:
        while waiting or pending:
            while waiting and len(pending) < AHEAD * jobs:
                pending[pool.submit(call, function, waiting[-1].payload)] = waiting[-1]
                waiting.pop()
            ended, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in ended:
                task = pending.pop(future)
                in_hand = [task, *pending.values()]
                yield Finished(task, future.result())
    except BrokenProcessPool:
        return [*in_hand, *(task for task in pending.values() if task not in in_hand), *reversed(waiting)]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return []


def _attend() -> None:
    """Prepare a worker: Ctrl-C is the parent's to handle, and a worker ends when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def leave() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def ray_cluster(jobs: int | None = None) -> Executor:
    """An executor on a Ray cluster: the one that ``RAY_ADDRESS`` names, else one started here with ``jobs`` workers.

    Raises:
        ExecutorError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ExecutorError("--executor ray needs Ray: install rackcast with its extra 'ray'") from None

    def execute(function: str, tasks: Sequence[Task]) -> Iterator[Finished]:
        mine = not ray.is_initialized()
        if mine:
            ray.init(**_ray_options(jobs))
        remote = ray.remote(max_retries=RAY_RETRIES)(call)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call,unused-ignore]
        slots = max(int(resources.get("CPU", 1)), 1)
        pending: dict[Any, Task] = {}
        waiting = list(reversed(tasks))
        try:
            while waiting or pending:
                while waiting and len(pending) < AHEAD * slots:
                    pending[remote.remote(function, waiting[-1].payload)] = waiting[-1]
                    waiting.pop()
                (ended, *_), _ = ray.wait(list(pending), num_returns=1)
                task = pending.pop(ended)
                try:
                    yield Finished(task, ray.get(ended))
                except ray.exceptions.WorkerCrashedError:
                    reason = f"the worker that worked it out died {RAY_RETRIES + 1} times"
                    yield Finished(task, json.dumps(_lost(reason)))
        finally:
            if mine:
                ray.shutdown()

    return execute


def _ray_options(jobs: int | None) -> dict[str, Any]:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if os.environ.get("RAY_ADDRESS"):
        return quiet
    return quiet | {"address": "local", "num_cpus": jobs or os.cpu_count(), "include_dashboard": False}
