"""The numbers of a decoder that a training step multiplies, none of them missing.

A catalogue ``Model`` leaves empty what its kind does not have; this is the measuring tape laid on one that is known to
be a dense decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.spec.model import Model

NEEDED = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn_hidden", "vocab")


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Shape of a dense decoder."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_hidden: int
    vocab: int
    gated_ffn: bool
    norm: str
    biases: bool
    tied_embeddings: bool
    learned_positions: int
    """Rows of a learned position table; 0 = none."""

    @property
    def query_width(self) -> int:
        """Width of all queries: heads x head_dim."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Width of all keys (and of all values)."""
        return self.kv_heads * self.head_dim


def missing_fields(model: Model) -> list[str]:
    """Fields of a dense decoder that the model leaves empty."""
    return [name for name in NEEDED if getattr(model, name) is None]


def decoder_shape(model: Model) -> DecoderShape:
    """The shape of a dense decoder.

    Raises:
        ValueError: fields are missing; all are named.
    """
    if gaps := missing_fields(model):
        raise ValueError(f"{model.key}: not a whole decoder shape, missing {', '.join(gaps)}")
    return DecoderShape(
        **{name: getattr(model, name) for name in NEEDED},
        gated_ffn=model.gated_ffn,
        norm=model.norm,
        biases=model.bias == "all",
        tied_embeddings=model.tied_embeddings,
        learned_positions=(model.max_positions or 0) if model.position_kind == "learned" else 0,
    )
