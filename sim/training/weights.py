"""Parameters that one device of a plan holds."""

from __future__ import annotations

from sim.spec.parallelism import Plan
from sim.spec.decoder_shape import DecoderShape


def layer_parameters(shape: DecoderShape, tensor: int) -> float:
    """Parameters of one layer on one tensor rank: matrices and their biases split, norms whole."""
    h, f = shape.hidden, shape.ffn_hidden
    attention = h * (shape.query_width + 2 * shape.key_width) + shape.query_width * h
    mlp = (3 if shape.gated_ffn else 2) * h * f
    split_bias = (shape.query_width + 2 * shape.key_width + f) if shape.biases else 0
    whole_bias = 2 * h if shape.biases else 0
    norms = 2 * h * (1 if shape.norm == "rms" else 2)
    return (attention + mlp + split_bias) / tensor + whole_bias + norms


def stage_parameters(shape: DecoderShape, plan: Plan, layers: int, rank: int) -> float:
    """Parameters of one device of pipeline rank ``rank`` that holds ``layers`` layers.

    The embedding lives on the first rank, the output head on the last; tied weights are held by both when they are
    different ranks (Megatron-LM keeps a copy).
    """
    total = layers * layer_parameters(shape, plan.tensor)
    table = shape.vocab * shape.hidden / plan.tensor
    first, last = rank == 0, rank == plan.pipeline - 1
    if first:
        total += table + shape.learned_positions * shape.hidden
    if last:
        total += shape.hidden * (1 if shape.norm == "rms" else 2)
        if not shape.tied_embeddings or not first:
            total += table
    return total
