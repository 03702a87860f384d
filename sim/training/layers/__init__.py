"""What a model does and holds, written down block by block for one device of a plan.

Each module is the score of one kind of model: which matrices are multiplied, what passes over memory, what is sent
between ranks, what stays for the backward pass.
"""

from __future__ import annotations

from dataclasses import replace

from sim.spec.conformer import conformers
from sim.spec.layer_graph import layer_graphs
from sim.spec.model import Model
from sim.spec.ops import Block
from sim.spec.recommender import recommenders
from sim.spec.workload import Training
from sim.training.layers.conformer import conformer_layers, front, transducer
from sim.training.layers.convolutional import graph_blocks
from sim.training.layers.decoder import (
    decoder_end,
    decoder_layers,
    embedding,
    head,
    stream_bytes,
    transformer_layer,
)
from sim.training.layers.encoder import (
    class_head,
    diffusion_end,
    diffusion_first,
    diffusion_layer,
    masked_head,
    patches,
    token_embedding,
)
from sim.training.layers.listed import listed_network
from sim.training.layers.network import Network, dealt_layers, layers_by_rank
from sim.training.layers.parts import activation_dtype
from sim.training.layers.recommender import dense_blocks, table_block
from sim.training.layers.two_stacks import both_embeddings, stacks, writer_head

__all__ = [
    "Network",
    "activation_dtype",
    "boundary_bytes",
    "dealt_layers",
    "embedding",
    "head",
    "layers_by_rank",
    "network",
    "transformer_layer",
]


def network(model: Model, training: Training) -> Network:
    """The blocks of ``model`` on one device under the plan of ``training``."""
    job = replace(
        training, sequence=training.source_tokens, target_sequence=training.target_tokens, fill_frac=1.0
    )
    if model.kernels:
        return listed_network(model, job)
    if (graph := layer_graphs().get(model.key)) is not None:
        first, *inner, last = graph_blocks(graph, job)
        return Network(first, tuple(inner), last, 0.0)
    if (shape := recommenders().get(model.key)) is not None:
        *between, last = dense_blocks(shape, job)
        return Network(table_block(shape, job), tuple(between), last, 0.0)
    if (sound := conformers().get(model.key)) is not None:
        middle = conformer_layers(model, sound, job)
        return Network(front(model, sound, job), middle, transducer(model, sound, job), 0.0)
    whole = Network(*_blocks(model, job), boundary_bytes(model, job))
    if job.plan.recompute_layers is None:
        return whole
    without = replace(job, plan=replace(job.plan, recompute="none"))
    return whole.spared(_blocks(model, without)[1], job.plan)


def _blocks(model: Model, job: Training) -> tuple[Block, tuple[Block, ...], Block]:
    """First block, layers and last block of the model's kind."""
    match model.kind:
        case "encoder":
            return token_embedding(model, job), decoder_layers(model, job), masked_head(model, job)
        case "vit":
            return patches(model, job), decoder_layers(model, job), class_head(model, job)
        case "diffusion":
            layers = (diffusion_layer(model, job),) * model.layers
            return diffusion_first(model, job), layers, diffusion_end(model, job)
        case "encoder-decoder" | "speech":
            return both_embeddings(model, job), stacks(model, job), writer_head(model, job)
        case _:
            return embedding(model, job), decoder_layers(model, job), decoder_end(model, job)


def boundary_bytes(model: Model, training: Training) -> float:
    """Activations that one pipeline stage hands to the next for a micro-batch, bytes a tensor rank.

    2sbh, and a t-th of it where the tensor group scatters it or runs sequence parallel (arXiv 2104.04473, 4.1).
    """
    return stream_bytes(model, training) / training.plan.tensor
