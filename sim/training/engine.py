"""The engine: plays a program and writes down when each task ran.

Like a stage manager with a stopwatch: every stream of every rank is an actor that takes its tasks in order, waits
for what must come first, and takes its time. One data-parallel copy is played; the others do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import simpy

from sim.results.timeline import Task, Timeline
from sim.training.contention import Board, Contention
from sim.training.program_parts import Program


def play(program: Program) -> Timeline:
    """Run every task of ``program`` and return its timeline (seconds from the start of the step).

    Where no task is in another's way each takes its own duration, and nothing is left to happen in between: a task
    starts when its stream is free and all it waits for has ended. As tasks only name earlier ones, one walk through the
    list gives the very numbers of :func:`play_events` (a property test compares them bit by bit), ten times sooner.
    """
    if _in_each_others_way(program.contention):
        return play_events(program)
    start, end = [0.0] * len(program.tasks), [0.0] * len(program.tasks)
    free: dict[tuple[int, str], float] = {}
    for number, task in enumerate(program.tasks):
        stream = (task[0], task[1])
        begin = free.get(stream, 0.0)
        for earlier in task[6]:
            if end[earlier] > begin:
                begin = end[earlier]
        start[number] = begin
        free[stream] = end[number] = begin + task[5]
    return Timeline(tuple(program.tasks), np.array(start), np.array(end))


def _in_each_others_way(contention: Contention) -> bool:
    return contention.shared_network or contention.compute_slowdown_frac != 0


def play_events(program: Program) -> Timeline:
    """Run ``program`` event by event on SimPy, where tasks may slow each other down."""
    tasks = program.tasks
    environment = simpy.Environment()
    start, end = np.zeros(len(tasks)), np.zeros(len(tasks))
    finished = bytearray(len(tasks))
    awaited: dict[int, simpy.Event] = {}
    streams: dict[tuple[int, str], list[int]] = {}
    for number, task in enumerate(tasks):
        streams.setdefault((task.rank, task.stream), []).append(number)
    spend = _spending(program, environment)

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
                yield spend(task)
            end[number] = environment.now
            finished[number] = 1
            event = awaited.pop(number, None)
            if event is not None:
                event.succeed()

    for numbers in streams.values():
        environment.process(run(numbers))
    environment.run()
    return Timeline(tuple(tasks), start, end)


def _spending(program: Program, environment: simpy.Environment) -> Callable[[Task], simpy.Event]:
    """How a task spends its time: its own duration, or longer where tasks of a rank are in each other's way."""
    contention = program.contention
    if not _in_each_others_way(contention):
        return lambda task: environment.timeout(task.duration_s)
    boards: dict[int, Board] = {}

    def spend(task: Task) -> simpy.Event:
        board = boards.get(task.rank)
        if board is None:
            board = boards[task.rank] = Board(environment, contention)
        return board.enter(task)

    return spend
