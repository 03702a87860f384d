"""Checks of the ways to save memory, and of number formats: do they go with the model and the schedule?"""

from __future__ import annotations

from collections.abc import Iterator

from sim.spec.conformer import conformers
from sim.spec.faults import Fault
from sim.spec.layer_graph import layer_graphs
from sim.spec.recommender import recommenders
from sim.spec.workload import SampleModel, Training


def memory_faults(training: Training, where: str) -> Iterator[Fault]:
    """Ways to save memory that do not go with the model or the schedule."""
    plan, model = training.plan, training.model
    share, again = plan.offload_activations, plan.recompute_layers
    if share and plan.schedule not in ("1f1b", "gpipe"):
        wanted = f"{plan.schedule} with activations in host memory is not modelled: expected 1f1b or gpipe"
        yield Fault(where, "training.plan.schedule", plan.schedule, wanted)
    if share and isinstance(model, SampleModel):
        wanted = "expected 0: a model known only by its FLOP has no activations"
        yield Fault(where, "training.plan.offload_activations", share, wanted)
    if training.autocast:
        path = "training.autocast"
        if training.precision not in ("fp16", "bf16"):
            yield Fault(where, path, True, f"casts to fp16 or bf16: expected false with {training.precision}")
        if plan.zero_stage in (1, 2) or plan.offload_optimizer or isinstance(model, SampleModel):
            wanted = "keeps fp32 weights: expected false with ZeRO 1 or 2, offload_optimizer or a model by its FLOP"
            yield Fault(where, path, True, wanted)
    if training.fp8_scaling != "stack" and training.precision != "fp8":
        wanted = f"expected stack with {training.precision}: only fp8 tensors have scales of their own"
        yield Fault(where, "training.fp8_scaling", training.fp8_scaling, wanted)
    if again is None:
        return
    path = "training.plan.recompute_layers"
    if plan.recompute == "none":
        yield Fault(where, path, again, "expected none where nothing is recomputed")
    if isinstance(model, SampleModel) or model.key in {*layer_graphs(), *recommenders(), *conformers()}:
        yield Fault(where, path, again, "expected none: only the layers of a transformer are counted")
        return
    most = -(-model.layers // (plan.pipeline * plan.virtual_stages))
    if again > most and not plan.layers_per_stage:
        yield Fault(where, path, again, f"expected at most the {most} layers of a chunk")
