"""Encoder-decoders: T5, and Whisper with its audio front end.

A reader and a writer: the encoder reads the whole source, the decoder writes the target and, in every layer, looks
back at what was read.
"""

from __future__ import annotations

from dataclasses import replace

from sim.spec.model import Model
from sim.spec.ops import Block, Conv, MemoryBound
from sim.spec.parameter_count import weights
from sim.spec.workload import Training
from sim.training.layers.attention import cross_attention, self_attention
from sim.training.layers.decoder import embedding, head, joined, stream_bytes, transformer_layer
from sim.training.layers.encoder import with_extra
from sim.training.layers.mlp import dense_mlp
from sim.training.layers.parts import activation_dtype, block, split, tokens


def writing(training: Training) -> Training:
    """The job as the second stack sees it: its sequence is the target."""
    return replace(training, sequence=training.target_sequence)


def both_embeddings(model: Model, training: Training) -> Block:
    """What turns source and target into vectors; the table of words is shared and counted once."""
    target = embedding(model, writing(training))
    if model.kind == "speech":
        return with_extra(model, training, joined("embedding", [_audio(model, training), target]))
    source = replace(embedding(model, training), parameters=0.0, frozen_parameters=0.0)
    return with_extra(model, training, joined("embedding", [source, target]))


def stacks(model: Model, training: Training) -> tuple[Block, ...]:
    """Layers of the encoder, then of the decoder."""
    reader = replace(transformer_layer(model, training), name="encoder layer")
    return (reader,) * model.layers + (_decoder_layer(model, training),) * model.decoder_layers


def writer_head(model: Model, training: Training) -> Block:
    """Logits and loss over the target."""
    return head(model, writing(training))


def _decoder_layer(model: Model, training: Training) -> Block:
    own, job = weights(model).stacks[-1][1], writing(training)
    parts = (
        self_attention(model, job, causal=True),
        cross_attention(model, job, training.sequence),
        dense_mlp(model, job),
    )
    return block(
        "decoder layer",
        job,
        parts,
        parameters=(own.total - own.norms) / training.plan.tensor + own.norms,
        input_bytes=stream_bytes(model, job) / split(job),
    )


def _audio(model: Model, training: Training) -> Block:
    """Whisper's front end (Radford et al. 2022, arXiv 2212.04356): two convolutions of kernel 3 over mel frames, the
    second of stride 2, so that two frames make a token."""
    frames, batch, h = 2 * training.sequence, training.plan.micro_batch, model.hidden
    dtype = activation_dtype(training.precision)

    def conv(phase: str, inside: int, stride: int, name: str) -> Conv:
        return Conv(phase, batch, inside, h, (frames, 1), (3, 1), (stride, 1), (1, 0), name=name)

    mel = mel_bands(model)
    gelu = tuple(MemoryBound("gelu", batch * n, h, dtype, "activation") for n in (frames, training.sequence))
    return Block(
        "audio",
        (conv("forward", mel, 1, "audio 1"), gelu[0], conv("forward", h, 2, "audio 2"), gelu[1]),
        (
            *gelu,
            conv("data_gradient", h, 2, "audio 2 dgrad"),
            conv("weight_gradient", h, 2, "audio 2 wgrad"),
            conv("weight_gradient", mel, 1, "audio 1 wgrad"),
        ),
        kept_bytes=6.0 * tokens(training) * h * 2,  # outputs of both convolutions, before and after GELU
    )


def mel_bands(model: Model, positions: int = 1500) -> int:
    """Frequency bands of the input, from the weights outside the blocks: two convolutions and two position tables."""
    h = model.hidden
    tables = (positions + model.max_positions) * h
    return ((model.extra_params - tables - (3 * h + 1) * h) // h - 1) // 3
