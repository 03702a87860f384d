"""FLOP of one training sample of any kind of model: what utilisation is measured against."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sim.spec.conformer import conformers
from sim.spec.flop_count import (
    Attention,
    forward_flop_per_sample,
    forward_flop_per_token,
    training_flop_per_token,
)
from sim.spec.kernel_list import forward_flop, kernel_rows
from sim.spec.layer_graph import layer_graphs
from sim.spec.model import Model
from sim.spec.recommender import recommenders
from sim.spec.workload import Training


def training_flop_per_sample(model: Model, training: Training, attention: Attention, recompute: str) -> float:
    """Forward and backward (twice forward) of one sample, and what ``recompute`` does again.

    ``full`` adds a forward pass of the layers, ``selective`` their attention core. Frozen weights (LoRA) have no
    weight gradient: 4 instead of 6 FLOP a parameter. A masked-LM head counts the masked positions.
    """
    if model.kernels:
        again_frac = 1.0 if recompute == "full" else 0.0
        return (3.0 + again_frac) * forward_flop(kernel_rows(model.kernels)) / model.kernel_samples
    if (graph := layer_graphs().get(model.key)) is not None:
        again_frac = 1.0 if recompute == "full" else 0.0
        return (3.0 + again_frac) * graph.flop * training.frames
    if (shape := recommenders().get(model.key)) is not None:
        return (4.0 if recompute == "full" else 3.0) * shape.flop
    if (sound := conformers().get(model.key)) is not None:
        own = sound.flop(model, training.source_tokens, training.target_tokens)
        return own * ((3.0 if not training.lora_rank else 2.0) + (1.0 if recompute == "full" else 0.0))
    share = 2 / 3 if training.lora_rank else 1.0
    s = training.source_tokens
    if model.decoder_layers:
        words = forward_flop_per_sample(model, s, training.target_tokens, attention)
        blocks = forward_flop_per_sample(replace(model, vocab=0), s, training.target_tokens, attention)
        return float(3.0 * share * words + (blocks if recompute == "full" else 0.0))
    head = 0.0
    if model.kind in ("encoder", "vit", "diffusion"):
        head = 6.0 * share * training.scored_tokens * model.hidden * (model.vocab + model.hidden)
        head = head if model.kind == "encoder" else 0.0
        model = replace(model, vocab=0)
    again: Literal["none", "full"] = "full" if recompute == "full" else "none"
    once = float(training_flop_per_token(model, s, attention))
    flop = share * once + float(training_flop_per_token(model, s, attention, again)) - once
    if recompute == "operators":  # half of the layers' products, and no attention
        whole = float(training_flop_per_token(model, s, attention, "full")) - once
        forward = forward_flop_per_token(model, [float(s), 1e-6], attention)
        flop += (whole - float(forward[0] - forward[1])) / 2
    if recompute == "selective":  # the attention core: what of a forward pass grows with the sequence
        forward = forward_flop_per_token(model, [float(s), 1e-6], attention)
        flop += float(forward[0] - forward[1])
    return s * flop + head
