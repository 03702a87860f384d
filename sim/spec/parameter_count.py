"""Weights from a shape: what a quantity surveyor does with a drawing.

From a ``Model`` come its parameters, part by part (:func:`weights`); ``sim.spec.flop_count`` turns the same
matrices into work.

Notation: h hidden, H / K query / key-value heads, d head width (d_v of the value), f MLP width, E experts.
Sources: Vaswani et al. 2017 (arXiv 1706.03762) for the block; Ainslie et al. 2023 (2305.13245) GQA; Shazeer
2020 (2002.05202) gated MLP; DeepSeek-V2 report (2405.04434) section 2.1 MLA; Peebles and Xie
2023 (2212.09748) DiT. Each is checked against the published counts of the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from sim.spec.conformer import conformers
from sim.spec.layer_graph import layer_graphs
from sim.spec.model import Model
from sim.spec.recommender import recommenders


class NotCountable(ValueError):  # noqa: N818 - it reads as what it says
    """The parameters do not follow from the shape's fields; the message says why."""


UNCOUNTABLE = {
    "cnn": "convolutions: the widths and strides of its layers are not part of the shape",
    "detector": "convolutional backbone, pyramid and heads are not part of the shape",
    "unet3d": "the filters of its levels are not part of the shape",
    "recommender": "table sizes and MLP widths are not part of the shape",
    "conformer": "convolution modules and the LSTM decoder are not part of the shape",
    "stable-diffusion": "the blocks of a convolutional U-Net are not part of the shape",
}
"""Why a kind or family cannot be counted."""


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Parameters of one block, or of one token's way through it; biases are with their part."""

    attention: int = 0
    cross_attention: int = 0
    mlp: int = 0
    """A dense MLP."""
    router: int = 0
    experts: int = 0
    """Routed experts."""
    shared_experts: int = 0
    modulation: int = 0
    """adaLN projections of a diffusion transformer."""
    norms: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, slots=True)
class Weights:
    """Parameters of a model by part. ``stacks`` are (number of equal blocks, weights of one)."""

    embedding: int
    positions: int
    stacks: tuple[tuple[int, LayerWeights], ...]
    final_norms: int
    head: int
    """Output projection; 0 where it shares the embedding."""
    extra: int
    """What the shape does not give: the model's ``extra_params`` and the ends of a diffusion transformer."""

    @property
    def layers(self) -> int:
        """Parameters of all blocks."""
        return sum(number * layer.total for number, layer in self.stacks)

    @property
    def total(self) -> int:
        return self.embedding + self.positions + self.layers + self.final_norms + self.head + self.extra


def weights(model: Model) -> Weights:
    """Parameters of ``model`` by part; ``extra_params`` holds what the shape does not say.

    Raises:
        NotCountable: convolutional networks and recommenders, whose layers a shape does not hold.
    """
    return _weights(model, model.experts)


def total_parameters(model: Model) -> int:
    """Parameters of any model that the catalogue says enough about: by its shape, or by its table of stages.

    Raises:
        NotCountable: a network with neither.
    """
    if model.kernels:
        return model.params_total
    if (graph := layer_graphs().get(model.key)) is not None:
        return graph.parameters
    if (tables := recommenders().get(model.key)) is not None:
        return tables.table_parameters + tables.dense_parameters
    if (sound := conformers().get(model.key)) is not None:
        return sound.parameters(model)
    return weights(model).total


def active_weights(model: Model) -> Weights:
    """Parameters that one token uses: ``topk`` of the routed experts, and all else (embeddings too)."""
    return _weights(model, model.topk)


def layer_weights(model: Model, *, mixture: bool) -> LayerWeights:
    """Parameters of one block of the first stack, with an MoE MLP (``mixture``) or a dense one."""
    return _layer(model, model.experts if mixture else 0)


def mtp_parameters(model: Model) -> int:
    """Parameters of the multi-token-prediction modules; embedding and head are the model's.

    Each is one block, a projection 2h -> h and three norms (DeepSeek-V3 report, 2412.19437, section 2.2).
    """
    block = layer_weights(model, mixture=bool(model.experts)).total
    return model.mtp_layers * (block + 2 * model.hidden**2 + 3 * _norm(model))


def _weights(model: Model, experts: int) -> Weights:
    reason = UNCOUNTABLE.get(model.kind) or UNCOUNTABLE.get(model.family)
    if reason is None and not (model.layers and model.hidden and model.heads):
        reason = "layers, hidden or heads are missing"
    if reason:
        raise NotCountable(f"{model.key}: parameters do not follow from the shape: {reason}")
    h = model.hidden
    stacks = [(model.dense_layers, _layer(model, 0)), (model.moe_layers, _layer(model, experts))]
    stacks.append((model.decoder_layers, _decoder_layer(model)))
    # Whisper's two position tables, of different length, are in extra_params; DiT stores its sinusoids.
    stored = (model.position_kind == "learned" and model.kind != "speech") or model.kind == "diffusion"
    # adaLN norms have no weights; the norm after a position convolution is in extra_params with it.
    normed = model.kind != "diffusion" and model.position_kind != "convolution"
    return Weights(
        embedding=model.vocab * h,
        positions=model.max_positions * h if stored else 0,
        stacks=tuple((number, layer) for number, layer in stacks if number),
        final_norms=_norm(model) * (2 if model.decoder_layers else 1) if normed else 0,
        head=0 if model.tied_embeddings or model.kind == "diffusion" else model.vocab * h,
        extra=model.extra_params + (_diffusion_ends(h) if model.kind == "diffusion" else 0),
    )


def _layer(model: Model, experts: int) -> LayerWeights:
    """One block; ``experts`` > 0 makes its MLP a mixture with so many routed experts counted."""
    h = model.hidden
    attention = _attention(model)
    if model.qk_norm:
        attention += 2 * model.head_dim
    if model.kind == "diffusion":
        return LayerWeights(
            attention=attention, mlp=_mlp(model, model.ffn_hidden), modulation=6 * h * (h + 1)
        )
    norms = model.norms_per_layer * _norm(model)
    if not experts:
        return LayerWeights(attention=attention, mlp=_mlp(model, model.ffn_hidden), norms=norms)
    expert = _mlp(model, model.moe_ffn_hidden)
    return LayerWeights(
        attention=attention,
        router=model.experts * (h + int(model.router_bias)),
        experts=experts * expert,
        shared_experts=model.shared_experts * expert,
        norms=norms,
    )


def _decoder_layer(model: Model) -> LayerWeights:
    """A block of the second stack: attention to itself, to the encoder, MLP, and one norm more."""
    attention = _attention(model)
    norms = (model.norms_per_layer + 1) * _norm(model)
    return LayerWeights(
        attention=attention, cross_attention=attention, mlp=_mlp(model, model.ffn_hidden), norms=norms
    )


def attention_matrices(model: Model) -> int:
    """Weights of the projections of one attention:

    h (H d + K d + K d_v) + H d_v h; MLA: h q + q H (d + r) + h (c + r) + c H (d + d_v) + H d_v h.

    c, q: ranks of the compressed key-value and query, r: rotated part; without query compression h H (d + r).
    """
    h, heads, d, dv = model.hidden, model.heads, model.head_dim, model.value_dim
    if not model.kv_lora_rank:
        return h * (heads * d + model.kv_heads * (d + dv)) + heads * dv * h
    c, q, r = model.kv_lora_rank, model.q_lora_rank, model.rope_dim
    query = (h + heads * (d + r)) * q if q else h * heads * (d + r)
    return query + h * (c + r) + c * heads * (d + dv) + heads * dv * h


def _attention(model: Model) -> int:
    """Matrices, biases, and the norms of MLA's two compressed vectors."""
    query, output = model.heads * model.head_dim, model.hidden
    key, value = model.kv_heads * model.head_dim, model.kv_heads * model.value_dim
    biases = {
        "none": 0,
        "ffn": 0,
        "qkv": query + key + value,
        "qvo": query + value + output,
        "qkvo": query + key + value + output,
        "all": query + key + value + output,
    }
    return (
        attention_matrices(model)
        + biases[model.bias]
        + (model.kv_lora_rank + model.q_lora_rank if model.kv_lora_rank else 0)
    )


def mlp_matrices(model: Model, width: int) -> int:
    """Weights of one MLP or expert: 2 h f, or 3 h f where gated."""
    return (3 if model.gated_ffn else 2) * model.hidden * width


def _mlp(model: Model, width: int) -> int:
    """Matrices and biases."""
    biased = model.bias in ("ffn", "qvo", "all")
    return mlp_matrices(model, width) + biased * ((2 if model.gated_ffn else 1) * width + model.hidden)


def _norm(model: Model) -> int:
    return model.hidden * (2 if model.norm == "ln" else 1)


def _diffusion_ends(h: int, latent: int = 4, patch: int = 2, frequencies: int = 256) -> int:
    """Patch projection, time-step MLP and final layer of a DiT (2212.09748); ``vocab`` is its class table."""
    cells = patch * patch * latent
    time = frequencies * h + h + h * h + h
    final = 2 * h * h + 2 * h + 2 * cells * (h + 1)  # the output predicts noise and covariance
    return cells * h + h + time + final
