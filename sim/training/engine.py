"""The engine: plays a program on SimPy and writes down when each task ran.

Like a stage manager with a stopwatch: every stream of every rank is an actor that takes its tasks in order, waits
for what must come first, and takes its time. One data-parallel copy is played; the others do the same.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import simpy

from sim.results.timeline import Task, Timeline
from sim.training.program import Program


def play(program: Program) -> Timeline:
    """Run every task of ``program`` and return its timeline (seconds from the start of the step)."""
    tasks = program.tasks
    environment = simpy.Environment()
    start, end = np.zeros(len(tasks)), np.zeros(len(tasks))
    finished = bytearray(len(tasks))
    awaited: dict[int, simpy.Event] = {}
    streams: dict[tuple[int, str], list[int]] = {}
    for number, task in enumerate(tasks):
        streams.setdefault((task.rank, task.stream), []).append(number)

    def run(numbers: list[int]) -> Generator[simpy.Event, None, None]:
        for number in numbers:
            task: Task = tasks[number]
            for earlier in task.after:
                if not finished[earlier]:
                    event = awaited.get(earlier)
                    if event is None:
                        event = awaited[earlier] = environment.event()
                    yield event
            start[number] = environment.now
            if task.duration_s > 0:
                yield environment.timeout(task.duration_s)
            end[number] = environment.now
            finished[number] = 1
            event = awaited.pop(number, None)
            if event is not None:
                event.succeed()

    for numbers in streams.values():
        environment.process(run(numbers))
    environment.run()
    return Timeline(tuple(tasks), start, end)
