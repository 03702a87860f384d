"""Conformers: transformers for sound, with a convolution beside the attention and a small writer at the end.

The catalogue's row gives layers and widths; kernel, mel bands and the decoder are in
``scenarios/catalog/layer_graphs.toml``.
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from sim.spec.model import Model


@dataclass(frozen=True, slots=True)
class Conformer:
    """What belongs to a conformer transducer beside the shape of its layers (Gulati et al. 2020, arXiv 2005.08100)."""

    kernel: int
    """Taps of the depthwise convolution."""
    mel: int
    """Frequency bands of the input."""
    decoder_hidden: int
    """Width of the LSTM that reads what was written so far."""
    vocab: int

    def front_parameters(self, model: Model) -> int:
        """Two 3x3 convolutions of stride 2 and the projection of what is left of the bands."""
        h = model.hidden
        return 10 * h + (9 * h + 1) * h + (self.mel // 4 * h + 1) * h

    def layer_parameters(self, model: Model) -> int:
        """Two half feed-forwards, attention with relative positions, convolution module, five norms."""
        h, f = model.hidden, model.ffn_hidden
        feed = 2 * (2 * h * f + f + h)
        attention = 5 * h * h + 4 * h + 2 * h
        convolution = (2 * h * h + 2 * h) + (self.kernel + 1) * h + 2 * h + (h * h + h)
        return feed + attention + convolution + 5 * 2 * h

    def decoder_parameters(self, model: Model) -> int:
        """Word pieces, one LSTM layer, and the joint network."""
        h, d, v = model.hidden, self.decoder_hidden, self.vocab
        return v * d + 8 * d * (d + 1) + (h + 1) * d + (d + 1) * v

    def parameters(self, model: Model) -> int:
        """All weights."""
        ends = self.front_parameters(model) + self.decoder_parameters(model)
        return ends + model.layers * self.layer_parameters(model)

    def flop(self, model: Model, sequence: int, target: int) -> float:
        """FLOP of the matrices in a forward pass of one sample: ``sequence`` tokens of 40 ms, ``target`` word pieces.

        Relative positions project 2s - 1 of them and score each against every query once more.
        """
        s, h, d = float(sequence), model.hidden, self.decoder_hidden
        layer = 2 * s * (4 * h * model.ffn_hidden + 4 * h * h + 3 * h * h + self.kernel * h)
        layer += 2 * (2 * s - 1) * h * h + 4 * s * s * h + 2 * s * (2 * s - 1) * h
        front = (
            2 * 9 * (2 * s * self.mel / 2) * h
            + 2 * 9 * h * (s * self.mel / 4) * h
            + 2 * s * self.mel / 4 * h * h
        )
        joint = 2 * s * h * d + 2 * s * target * d * self.vocab
        return front + model.layers * layer + 2 * target * 8 * d * d + joint


@functools.cache
def conformers() -> Mapping[str, Conformer]:
    """The conformers that ship with rackcast, by the key of their model; read once."""
    folder = importlib.resources.files("scenarios") / "catalog"
    tables = tomllib.loads((folder / "layer_graphs.toml").read_text("utf-8"))
    return {key: Conformer(**table["conformer"]) for key, table in tables.items() if "conformer" in table}
