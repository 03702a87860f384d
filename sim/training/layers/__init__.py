"""What a model does and holds, written down block by block for one device of a plan.

Each module is the score of one kind of model: which matrices are multiplied, what passes over memory, what is sent
between ranks, what stays for the backward pass.
"""

from __future__ import annotations

from sim.spec.model import Model
from sim.spec.workload import Training
from sim.training.layers.decoder import (
    decoder_end,
    decoder_layers,
    embedding,
    head,
    stream_bytes,
    transformer_layer,
)
from sim.training.layers.network import Network, layers_by_rank
from sim.training.layers.parts import activation_dtype

__all__ = [
    "Network",
    "activation_dtype",
    "boundary_bytes",
    "embedding",
    "head",
    "layers_by_rank",
    "network",
    "transformer_layer",
]


def network(model: Model, training: Training) -> Network:
    """The blocks of ``model`` on one device under the plan of ``training``."""
    return Network(
        embedding(model, training),
        decoder_layers(model, training),
        decoder_end(model, training),
        boundary_bytes(model, training),
    )


def boundary_bytes(model: Model, training: Training) -> float:
    """Activations that one pipeline stage hands to the next for a micro-batch, bytes a tensor rank.

    2sbh, and a t-th of it where the tensor group scatters it or runs sequence parallel (arXiv 2104.04473, 4.1).
    """
    return stream_bytes(model, training) / training.plan.tensor
