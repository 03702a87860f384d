"""Several tasks in one training step: heads on a common trunk, or models trained side by side.

Like a class that spends part of every lesson on each subject: the lesson takes the sum of its parts, and what is learnt
in one part changes only the books of that subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sim.spec.faults import Fault
from sim.spec.workload import SampleModel, Training

PATH = "training.tasks"


def task_jobs(training: Training) -> tuple[Training, ...]:
    """A job for the main model and one for each task, every one with its own samples of the global batch."""
    if not training.tasks:
        return (training,)
    rest = training.global_batch - sum(task.samples for task in training.tasks)
    main = replace(training, global_batch=rest, tasks=())
    others = [
        replace(
            main,
            model=task.model or training.model,
            sequence=task.sequence or training.sequence,
            frames=task.frames or training.frames,
            global_batch=task.samples,
        )
        for task in training.tasks
    ]
    return (main, *others)


def own_weights(training: Training) -> tuple[bool, ...]:
    """For each of :func:`task_jobs` whether it brings weights of its own, or trains those of the main model."""
    return (True, *(task.model is not None for task in training.tasks))


def task_faults(training: Training, copies: int, where: str) -> Iterator[Fault]:
    """What of the tasks does not go with the plan and the batch; ``copies`` are data-parallel."""
    if not training.tasks:
        return
    plan = training.plan
    names = [task.name for task in training.tasks]
    for number, name in enumerate(names):
        if name in names[:number]:
            text = "is the name of another task too: expected a name of its own"
            yield Fault(where, f"{PATH}.{number}.name", name, text)
    if plan.pipeline > 1 or plan.parameter_server is not None:
        text = "of one step need pipeline = 1 and no parameter server: micro-batches of a pipeline are alike"
        yield Fault(where, PATH, len(names), text)
    models = [training.model, *(task.model for task in training.tasks)]
    if any(isinstance(model, SampleModel) for model in models):
        yield Fault(where, PATH, len(names), "need a model with layers, not one known only by its FLOP")
    rest = training.global_batch - sum(task.samples for task in training.tasks)
    if rest <= 0:
        text = f"leave {rest:,} of {training.global_batch:,} samples to the main model: expected some"
        yield Fault(where, PATH, training.global_batch - rest, text)
    each = copies * plan.micro_batch
    for number, task in enumerate(training.tasks):
        if task.samples % each:
            text = f"expected a multiple of data parallel {copies:,} x micro_batch {plan.micro_batch}"
            yield Fault(where, f"{PATH}.{number}.samples", task.samples, text)
