"""Work from a shape: the FLOP that a token costs, 2 per multiply-add.

The counts here are ours; :func:`published_flop_per_token` counts as publications do, so that their TFLOP/s or
MFU can be compared. Formulas: Narayanan et al. 2021 (arXiv 2104.04473, section 5.1), Korthikanti et al. 2022
(2205.05198, appendix A), Chowdhery et al. 2022 (2204.02311, appendix B), written out by matrix so that
grouped-query attention, gated MLPs, MLA and experts count right.

Notation: L layers, h hidden, H heads, d head width (r rotated part and d_v value width under MLA), V words,
s sequence. All functions broadcast over arrays of sequence lengths.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.spec.model import Model
from sim.spec.parameter_count import NotCountable, active_weights, attention_matrices, mlp_matrices, weights

Attention = Literal["causal", "full"]
"""How causal attention is counted: the half of the square that is work, or the whole square."""
Convention = Literal["megatron", "korthikanti", "sc21", "palm", "llm-foundry"]


def matmul_weights_per_token(model: Model) -> int:
    """Weights of the matrix products that a token passes in all blocks; without embedding and head."""
    return sum(number * _matmul_weights(model, mixture) for number, mixture in _stack(model))


def forward_flop_per_token(
    model: Model, sequence: ArrayLike, attention: Attention = "causal"
) -> NDArray[np.float64]:
    """FLOP of one token through a single stack and the output head, in inference or training.

    2 x (matmul weights + h V), and per block 2 H (d + r + d_v) x keys seen: s under ``full``, s / 2 under
    ``causal`` (encoders see all either way; a sliding window sees less). Front ends that live in
    ``extra_params`` (patches, audio) are left out. adaLN projections are charged once a sample.

    Raises:
        NotCountable: shape without layers, or two stacks (use :func:`forward_flop_per_sample`).
    """
    if model.decoder_layers:
        raise NotCountable(f"{model.key}: two stacks have two sequence lengths; count a sample instead")
    s = np.asarray(sequence, dtype=float)
    return np.asarray(forward_flop_per_sample(model, s, attention=attention) / s)


def forward_flop_per_sample(
    model: Model, sequence: ArrayLike, target_sequence: ArrayLike = 0, attention: Attention = "causal"
) -> NDArray[np.float64]:
    """FLOP of one sample: ``sequence`` tokens, and ``target_sequence`` tokens through the second stack.

    As :func:`forward_flop_per_token`; cross attention reads keys and values of the first stack.
    """
    weights(model)  # refuses what cannot be counted
    return _layers_flop(model, sequence, target_sequence, attention) + _head_flop(
        model, sequence, target_sequence
    )


def training_flop_per_token(
    model: Model,
    sequence: ArrayLike,
    attention: Attention = "causal",
    recompute: Literal["none", "full"] = "none",
) -> NDArray[np.float64]:
    """FLOP of a token in a training step: forward, twice as much backward, multi-token prediction.

    ``recompute="full"`` adds one forward pass of the blocks, not of the logits: a hardware count (HFU).
    """
    if model.decoder_layers:
        raise NotCountable(f"{model.key}: two stacks have two sequence lengths; count a sample instead")
    s = np.asarray(sequence, dtype=float)
    weights(model)
    layers = _layers_flop(model, s, 0, attention) / s + _mtp_flop_per_token(model, s, attention)
    head = _head_flop(model, s, 0) / s * (1 + model.mtp_layers)
    return np.asarray((4.0 if recompute == "full" else 3.0) * layers + 3.0 * head)


def published_flop_per_token(
    model: Model, sequence: ArrayLike, convention: Convention
) -> NDArray[np.float64]:
    """FLOP a token of a training step as a publication counts it, to compare its TFLOP/s or MFU with ours.

    * ``megatron``: x3, causal half, GQA, MLA, top-k, MTP (NVIDIA/Megatron-LM, training.py)
    * ``korthikanti``: 72 B s L h^2 (1 + s/6h + V/12Lh), whole square (arXiv 2205.05198)
    * ``sc21``: 96 B s L h^2 (1 + s/6h + V/16Lh): blocks x4 for full recompute (arXiv 2104.04473)
    * ``palm``: 6 N + 12 L H d s (arXiv 2204.02311, appendix B)
    * ``llm-foundry``: 6 N + 12 L h s, N with the embedding (mosaicml/llm-foundry, train benchmarking)

    N counts the active parameters of an MoE.
    """
    s = np.asarray(sequence, dtype=float)
    if convention == "megatron":
        return training_flop_per_token(model, s)
    if convention in ("korthikanti", "sc21"):
        return training_flop_per_token(model, s, "full", "full" if convention == "sc21" else "none")
    width = model.hidden if convention == "llm-foundry" else model.heads * model.head_dim
    return np.asarray(6.0 * active_weights(model).total + 12.0 * model.layers * width * s)


def _stack(model: Model) -> tuple[tuple[int, bool], ...]:
    return (model.dense_layers, False), (model.moe_layers, True)


def _matmul_weights(model: Model, mixture: bool) -> int:
    attention = attention_matrices(model)
    if not mixture:
        return attention + mlp_matrices(model, model.ffn_hidden)
    experts = (model.topk + model.shared_experts) * mlp_matrices(model, model.moe_ffn_hidden)
    return attention + model.hidden * model.experts + experts


def _scores_flop(model: Model, queries: ArrayLike, keys: ArrayLike) -> NDArray[np.float64]:
    """Q K^T and the product with V of one block."""
    width = model.head_dim + model.value_dim + (model.rope_dim if model.kv_lora_rank else 0)
    return np.asarray(2.0 * model.heads * width * np.asarray(queries) * np.asarray(keys, dtype=float))


def _keys_seen(s: NDArray[np.float64], window: int, causal: bool) -> NDArray[np.float64]:
    """Mean keys a query sees: s or s/2; under a window w or, causal, w (1 - w / 2s) from s = w on."""
    reach = np.minimum(s, window) if window else s
    return np.asarray(reach * (1 - reach / (2 * s)) if causal else reach)


def _layers_flop(
    model: Model, sequence: ArrayLike, target_sequence: ArrayLike, attention: Attention
) -> NDArray[np.float64]:
    s, t = np.asarray(sequence, dtype=float), np.asarray(target_sequence, dtype=float)
    causal = attention == "causal" and model.kind in ("decoder", "moe", "mla-moe")
    whole, seen = _keys_seen(s, 0, causal), _keys_seen(s, model.window, causal)
    flop = 2.0 * matmul_weights_per_token(model) * s
    flop = flop + _scores_flop(model, s, whole) * model.full_attention_layers
    flop = flop + _scores_flop(model, s, seen) * (model.layers - model.full_attention_layers)
    if model.kind == "diffusion":
        flop = flop + model.layers * 12.0 * model.hidden**2  # adaLN: 6 h^2 multiply-adds a sample
    if model.decoder_layers:
        own = attention_matrices(model) + mlp_matrices(model, model.ffn_hidden)
        cross_key_value = model.hidden * model.kv_heads * (model.head_dim + model.value_dim)
        cross_query = attention_matrices(model) - cross_key_value
        block = 2.0 * (own + cross_query) * t + 2.0 * cross_key_value * s
        block = (
            block + _scores_flop(model, t, t / 2 if attention == "causal" else t) + _scores_flop(model, t, s)
        )
        flop = flop + model.decoder_layers * block
    return np.asarray(flop)


def _head_flop(model: Model, sequence: ArrayLike, target_sequence: ArrayLike) -> NDArray[np.float64]:
    tokens = target_sequence if model.decoder_layers else sequence
    logits = 0 if model.kind == "diffusion" else model.vocab
    return np.asarray(2.0 * model.hidden * logits * np.asarray(tokens, dtype=float))


def _mtp_flop_per_token(model: Model, s: NDArray[np.float64], attention: Attention) -> NDArray[np.float64]:
    block = 2.0 * (_matmul_weights(model, bool(model.experts)) + 2 * model.hidden**2)
    return np.asarray(
        model.mtp_layers * (block + _scores_flop(model, 1.0, _keys_seen(s, 0, attention == "causal")))
    )
