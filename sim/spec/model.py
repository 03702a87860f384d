"""The model noun: a tailor's measurements of a network, from which its weights and its work follow.

``Model`` holds the shape alone. Counting weights, FLOP and cache from it is the business of
``sim.spec.parameter_count``; making kernels of it that of the training and serving programs.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = (
    *("decoder", "moe", "mla-moe", "encoder", "encoder-decoder", "vit", "speech", "diffusion"),
    *("cnn", "unet3d", "detector", "recommender", "kernels"),
)
BIASES = ("none", "qkv", "qvo", "qkvo", "ffn", "all")
"""Which linear layers carry a bias: ``qkv`` those into attention, ``qvo`` all but the key (Whisper),
``qkvo`` attention alone, ``ffn`` the MLP alone, ``all`` attention and MLP."""
NORMS = ("rms", "ln")
"""``rms`` has a scale (h weights), ``ln`` a scale and a shift (2 h); one without shift goes as ``rms``."""
POSITIONS = ("learned", "rope", "alibi", "relative", "sinusoidal", "convolution")


class ModelError(ValueError):
    """A shape that cannot be; the message names the model and the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The shape of one network; sizes that it has no use for are 0."""

    key: str
    name: str
    family: str
    kind: str
    """One of ``KINDS``: what the layers are made of."""
    params_total: int
    """Parameters as published; ``params_kind`` says how well known."""
    params_kind: str
    """``exact`` (count of the released weights), ``rounded`` (printed) or ``derived`` (from a layout)."""
    source: str

    layers: int = 0
    """Blocks; of the encoder where there are two stacks."""
    decoder_layers: int = 0
    """Blocks of the second stack (encoder-decoder, Whisper)."""
    hidden: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    """Width of one head; heads x head_dim need not be hidden. MLA: the part of a key without rotation."""
    v_head_dim: int = 0
    """Width of one value head where it differs from ``head_dim``."""
    ffn_hidden: int = 0
    """Width of a dense MLP."""
    gated_ffn: bool = False
    """Three matrices (SwiGLU, GeGLU) instead of two."""
    experts: int = 0
    """Routed experts of an MoE layer."""
    topk: int = 0
    """Routed experts that a token visits."""
    shared_experts: int = 0
    """Experts that every token visits, each of width ``moe_ffn_hidden``."""
    moe_ffn_hidden: int = 0
    first_dense_layers: int = 0
    moe_layer_step: int = 1
    """After the leading dense layers, the last of every ``moe_layer_step`` layers is MoE."""
    router_bias: bool = False
    """One bias per routed expert in the router."""
    kv_lora_rank: int = 0
    """MLA: width of the compressed key and value; 0 = no MLA."""
    q_lora_rank: int = 0
    """MLA: width of the compressed query; 0 = not compressed."""
    rope_dim: int = 0
    """Rotated part of a head, where it is not all of it; MLA: extra to ``head_dim``."""
    window: int = 0
    """Sliding-window attention: keys a query sees; 0 = all."""
    global_layer_step: int = 0
    """One layer in so many ignores the window; 0 = none does."""
    mtp_layers: int = 0
    """Multi-token-prediction modules (one block each), not part of ``params_total``."""
    vocab: int = 0
    tied_embeddings: bool = False
    """Output head and input embedding share their weights."""
    max_positions: int = 0
    position_kind: str = ""
    bias: str = "none"
    norm: str = "rms"
    norms_per_layer: int = 2
    qk_norm: bool = False
    """Query and key are normalised per head."""
    extra_params: int = 0
    """Parameters outside the formula; the note says which."""
    params_active: int | None = None
    """Parameters a token uses, as published; conventions differ on embeddings."""
    tolerance_frac: float = 0.01
    """How far a count from the shape may be from ``params_total``."""
    note: str = ""
    kernels: tuple[str, ...] = ()
    """Kind ``kernels``: the kernels of a forward pass, in the words of ``sim.spec.kernel_list``."""
    kernel_samples: int = 1
    """Samples that ``kernels`` are of."""

    def __post_init__(self) -> None:
        choices = (("kind", KINDS), ("bias", BIASES), ("norm", NORMS), ("position_kind", ("", *POSITIONS)))
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise ModelError(
                    f"{self.key}: {name} {getattr(self, name)!r} is not one of {', '.join(allowed)}"
                )
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and value < 0 and name != "extra_params":
                raise ModelError(f"{self.key}: {name} {value!r} is negative")
        if self.heads and self.kv_heads and self.heads % self.kv_heads:
            raise ModelError(f"{self.key}: {self.heads} heads do not share {self.kv_heads} kv_heads evenly")
        if self.experts and not (self.topk and self.moe_ffn_hidden):
            raise ModelError(f"{self.key}: experts need topk and moe_ffn_hidden")
        if self.topk > self.experts:
            raise ModelError(f"{self.key}: topk {self.topk} is more than the {self.experts} experts")
        if self.moe_layer_step < 1:
            raise ModelError(f"{self.key}: moe_layer_step {self.moe_layer_step} must be at least 1")
        if not self.source:
            raise ModelError(f"{self.key}: a source is missing")

    @property
    def value_dim(self) -> int:
        """Width of one value head."""
        return self.v_head_dim or self.head_dim

    @property
    def moe_layers(self) -> int:
        """Blocks whose MLP is a mixture of experts."""
        return (self.layers - self.first_dense_layers) // self.moe_layer_step if self.experts else 0

    @property
    def dense_layers(self) -> int:
        """Blocks of the first stack with a plain MLP."""
        return self.layers - self.moe_layers

    @property
    def full_attention_layers(self) -> int:
        """Blocks of the first stack that attend to every key."""
        if not self.window:
            return self.layers
        return self.layers // self.global_layer_step if self.global_layer_step else 0

    @property
    def kv_values_per_token(self) -> int:
        """Numbers a token leaves in the KV cache: K (d + d_v) a block, kv rank + rope under MLA."""
        blocks = self.decoder_layers or self.layers
        if self.kv_lora_rank:
            return blocks * (self.kv_lora_rank + self.rope_dim)
        return blocks * self.kv_heads * (self.head_dim + self.value_dim)
