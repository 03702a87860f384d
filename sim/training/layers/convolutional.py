"""Convolutional networks from their layer graph: classifiers, U-Nets, detectors; images or frames of a video.

Every unit is a convolution with its norm and activation; in backward each has a gradient of its data and one of its
weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.spec.layer_graph import LayerGraph, Unit
from sim.spec.ops import Block, Conv, MemoryBound, Op
from sim.spec.workload import Training
from sim.training.layers.parts import activation_dtype, linear, value_bytes


def graph_blocks(graph: LayerGraph, training: Training) -> tuple[Block, ...]:
    """The blocks of the network in order; each image of a sample (``frames``) passes alone."""
    made = []
    for number, (name, units) in enumerate(graph.blocks().items()):
        made.append(_block(name, units, training, first=number == 0))
    return tuple(made)


def _block(name: str, units: Sequence[Unit], training: Training, *, first: bool) -> Block:
    """One stage. Kept: the output of each convolution, and again after norm and activation (input of the next)."""
    batch, size = training.plan.micro_batch * training.frames, value_bytes(training)
    forward: list[Op] = []
    backward: list[Op] = []
    for place, unit in enumerate(units):
        ahead, back = _unit(unit, training, batch, pixels=first and place == 0)
        forward += ahead
        backward[:0] = back
    values = sum(unit.out_values * (2 if unit.norm != "none" else 1) for unit in units)
    kept = size * batch * float(values)
    full = training.plan.recompute == "full"
    return Block(
        name,
        tuple(forward),
        tuple(backward),
        tuple(forward) if full else (),
        parameters=float(sum(unit.parameters for unit in units)),
        activation_bytes=kept,
        kept_bytes=size * batch * float(units[-1].out_values) if full else kept,
    )


def _unit(unit: Unit, training: Training, batch: int, *, pixels: bool) -> tuple[list[Op], list[Op]]:
    """Ops of one unit in both directions; ``pixels``: its input needs no gradient."""
    dtype = activation_dtype(training.precision)
    name = f"{unit.kernel}x{unit.kernel} convolution" if unit.kind == "conv" else unit.kind

    def over(op: str, values: int, label: str) -> MemoryBound:
        return MemoryBound(op, batch, values, dtype, label)

    if unit.kind == "pool":
        passed = over("copy", unit.in_values, "pooling")
        return [passed], [passed]
    if unit.kind == "dense":
        dense = linear(training, batch, unit.out_channels, unit.in_values, "dense")
        forward, backward = list(dense.forward), list(dense.backward)
    else:
        convs = _passes(unit, batch, name)
        forward, backward = [convs[0]], list(convs[2:] if pixels else convs[1:])
    if unit.norm != "none":  # batch and instance norm read twice (statistics, then values) and write once
        forward.append(over("residual_add", unit.out_values, "norm"))
        backward[:0] = [over("residual_add", unit.out_values, "norm"), over("copy", unit.out_values, "norm")]
    if unit.adds:
        forward.append(over("residual_add", unit.out_values, "shortcut"))
        backward.insert(0, over("residual_add", unit.out_values, "shortcut gradient"))
    if unit.activation:
        forward.append(over("relu", unit.out_values, "activation"))
        backward.insert(0, over("mul", unit.out_values, "activation gradient"))
    return forward, backward


def _passes(unit: Unit, batch: int, name: str) -> tuple[Conv, Conv, Conv]:
    """Forward, data gradient and weight gradient. A transposed convolution is a convolution run backwards."""
    sides = len(unit.size)
    kernel, stride, padding = (unit.kernel,) * sides, (unit.stride,) * sides, (unit.padding,) * sides
    turned = unit.kind == "transposed"
    inside, outside = (
        (unit.out_channels, unit.in_channels) if turned else (unit.in_channels, unit.out_channels)
    )
    size = unit.out_size if turned else unit.size

    def one(phase: str, label: str) -> Conv:
        return Conv(phase, batch, inside, outside, size, kernel, stride, padding, name=label)

    ahead, back = ("data_gradient", "forward") if turned else ("forward", "data_gradient")
    return one(ahead, name), one(back, f"{name} dgrad"), one("weight_gradient", f"{name} wgrad")
