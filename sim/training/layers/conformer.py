"""Conformer transducers: sound in, word pieces out (Gulati et al. 2020, arXiv 2005.08100).

Each layer is a sandwich: half a feed-forward, attention with relative positions, a convolution along time, the other
half. A transducer scores every pair of (time, written so far), which makes its joint network the widest product.
"""

from __future__ import annotations

from sim.spec.conformer import Conformer
from sim.spec.model import Model
from sim.spec.ops import Block, Conv, Gemm, MemoryBound, Op
from sim.spec.workload import Training
from sim.training.layers.attention import self_attention
from sim.training.layers.mlp import dense_mlp
from sim.training.layers.parts import (
    Part,
    activation_dtype,
    block,
    gradients,
    linear,
    norm,
    residual,
    tokens,
    value_bytes,
)


def conformer_layers(model: Model, shape: Conformer, training: Training) -> tuple[Block, ...]:
    """All layers, the same object."""
    feed = dense_mlp(model, training)
    parts = (
        feed,
        self_attention(model, training, causal=False),
        _relative(model, training),
        _convolution(model, shape, training),
        feed,
    )
    layer = block(
        "conformer layer",
        training,
        parts,
        parameters=float(shape.layer_parameters(model)),
        input_bytes=value_bytes(training) * tokens(training) * float(model.hidden),
    )
    return (layer,) * model.layers


def front(model: Model, shape: Conformer, training: Training) -> Block:
    """Two 3x3 convolutions of stride 2 over mel frames, then a projection: four frames of 10 ms make a token."""
    s, batch, h = training.sequence, training.plan.micro_batch, model.hidden
    sizes = ((4 * s, shape.mel), (2 * s, shape.mel // 2))

    def conv(phase: str, place: int) -> Conv:
        inside = 1 if place == 0 else h
        return Conv(phase, batch, inside, h, sizes[place], (3, 3), (2, 2), (1, 1), name=f"subsample {phase}")

    into = linear(training, batch * s, h, shape.mel // 4 * h, "subsample projection", adapted=False)
    kept = sum(batch * n * bands * h / 4 for n, bands in sizes)
    held, frozen = float(shape.front_parameters(model)), bool(training.lora_rank)
    return Block(
        "front",
        (conv("forward", 0), conv("forward", 1), *into.forward),
        (
            *into.backward,
            *(
                ()
                if frozen
                else (conv("data_gradient", 1), conv("weight_gradient", 1), conv("weight_gradient", 0))
            ),
        ),
        parameters=0.0 if frozen else held,
        frozen_parameters=held if frozen else 0.0,
        activation_bytes=2 * value_bytes(training) * kept,
        kept_bytes=2 * value_bytes(training) * kept,
    )


def transducer(model: Model, shape: Conformer, training: Training) -> Block:
    """Prediction network (one LSTM layer, a step a word piece) and joint network over all pairs, with its loss."""
    s, u, batch = training.sequence, training.target_sequence, training.plan.micro_batch
    d, dtype = shape.decoder_hidden, activation_dtype(training.precision)
    inputs = linear(training, batch * u, 4 * d, d, "LSTM input", adapted=False)
    state = linear(training, batch, 4 * d, d, "LSTM state", adapted=False)  # one step waits for the other
    sound = linear(training, batch * s, d, model.hidden, "joint input", adapted=False)
    pairs = batch * s * u
    words = linear(training, pairs, shape.vocab, d, "joint output", adapted=False)
    add = MemoryBound("tanh", pairs, d, dtype, "joint sum")
    loss = MemoryBound("softmax", pairs, shape.vocab, "fp32", "transducer loss")
    held, frozen = float(shape.decoder_parameters(model)), bool(training.lora_rank)
    return Block(
        "transducer",
        (*inputs.forward, *state.forward * u, *sound.forward, add, *words.forward, loss),
        (loss, *words.backward, add, *sound.backward, *state.backward * u, *inputs.backward),
        parameters=0.0 if frozen else held,
        frozen_parameters=held if frozen else 0.0,
        kept_bytes=(value_bytes(training) + 4.0) * pairs * shape.vocab,
    )


def _relative(model: Model, training: Training) -> Part:
    """Relative positions (Dai et al. 2019, arXiv 1901.02860): 2s - 1 of them projected, and scored by every query."""
    s, batch, h = training.sequence, training.plan.micro_batch, model.hidden
    project = linear(training, 2 * s - 1, h, h, "positions", adapted=False)
    scores = Gemm(s, 2 * s - 1, model.head_dim, batch * model.heads, "position scores")
    shift = MemoryBound(
        "add", batch * model.heads * s, s, activation_dtype(training.precision), "position shift"
    )
    return Part(
        (*project.forward, scores, shift),
        (shift, *gradients(scores), *project.backward[1:]),  # positions themselves are not learned
        kept_bytes=value_bytes(training) * batch * model.heads * float(s) * s,
    )


def _convolution(model: Model, shape: Conformer, training: Training) -> Part:
    """Norm, pointwise to 2h, gate, depthwise along time, batch norm, swish, pointwise, residual."""
    count, h, dtype = tokens(training), model.hidden, activation_dtype(training.precision)
    wide = linear(training, count, 2 * h, h, "pointwise up", adapted=training.lora_targets == "all")
    back = linear(training, count, h, h, "pointwise down", adapted=training.lora_targets == "all")

    def depthwise(phase: str) -> Conv:
        left = shape.kernel // 2
        size, kernel = (training.sequence, 1), (shape.kernel, 1)
        return Conv(
            phase, training.plan.micro_batch, h, h, size, kernel, (1, 1), (left, 0), h, f"depthwise {phase}"
        )

    def over(op: str, name: str) -> MemoryBound:
        return MemoryBound(op, count, h, dtype, name)

    passes: tuple[Op, ...] = (over("residual_add", "batch norm"), over("silu", "activation"))
    return Part(
        forward=(
            norm(model, training, "fwd", count),
            *wide.forward,
            over("silu_and_mul", "gate"),
            depthwise("forward"),
            *passes,
            *back.forward,
            residual(model, training, count, "residual"),
        ),
        backward=(
            *back.backward,
            over("mul", "activation gradient"),
            *passes[:1],
            over("copy", "batch norm"),
            depthwise("data_gradient"),
            depthwise("weight_gradient"),
            over("silu_and_mul", "gate gradient"),
            *wide.backward,
            norm(model, training, "bwd", count),
            residual(model, training, count, "residual gradient"),
        ),
        adapters=wide.adapters + back.adapters,
        kept_bytes=value_bytes(training) * count * 7.0 * h,
    )
