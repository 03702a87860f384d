"""Encoders: BERT with its masked-LM head, vision transformers, diffusion transformers.

All three read a whole sequence at once, so that nothing is causal; they differ in how a sample becomes tokens and in
what is asked of the last layer.
"""

from __future__ import annotations

from dataclasses import replace

from sim.spec.model import Model
from sim.spec.ops import Block, MemoryBound
from sim.spec.parameter_count import weights
from sim.spec.workload import Training
from sim.training.layers.decoder import embedding, head, stream_bytes, transformer_layer
from sim.training.layers.parts import Linear, activation_dtype, linear, norm, tokens, value_bytes


def with_extra(model: Model, training: Training, block: Block) -> Block:
    """The block with the weights that the shape does not say (``extra_params``); every tensor rank holds them."""
    extra = float(weights(model).extra)
    if training.lora_rank:
        return replace(block, frozen_parameters=block.frozen_parameters + extra)
    return replace(block, parameters=block.parameters + extra)


def masked_head(model: Model, training: Training) -> Block:
    """Masked-LM head (Devlin et al. 2019): the masked positions are gathered, pass a dense layer, GELU and norm, and
    are scored against the tied embedding; with a bias a word. The weights of the dense layer come on top of the
    catalogue's count, which is that of the encoder alone."""
    rows, h = training.plan.micro_batch * training.scored_tokens, model.hidden
    dtype, every = activation_dtype(training.precision), head(model, training, rows=1)
    dense = linear(training, rows, h, h, "masked-LM dense", adapted=False)
    last = head(model, training, rows=rows)
    gather = MemoryBound("copy", rows, h, dtype, "masked positions")
    act = MemoryBound("gelu", rows, h, dtype, "activation")
    act_gradient = MemoryBound("residual_add", rows, h, dtype, "activation gradient")
    own = 0.0 if training.lora_rank else float(h * (h + 3) + model.vocab / training.plan.tensor)
    return replace(
        last,
        forward=(gather, *dense.forward, act, *last.forward),
        backward=(*last.backward, act_gradient, *dense.backward, gather),
        parameters=every.parameters + own,
    )


def patches(model: Model, training: Training) -> Block:
    """A vision transformer's first matrix: each patch of pixels becomes a token."""
    count = tokens(training)
    return _first(
        model, training, linear(training, count, model.hidden, vit_ends(model)[0], "patch projection")
    )


def class_head(model: Model, training: Training) -> Block:
    """Final norm, and the classes of a vision transformer scored on one token a sample."""
    classes = vit_ends(model)[1]
    rows = training.plan.micro_batch
    scores = linear(training, rows, max(classes, 1), model.hidden, "classes", adapted=False)
    loss = MemoryBound("softmax", rows, max(classes, 1), "fp32", "cross-entropy")
    every, frozen = weights(model), bool(training.lora_rank)
    return Block(
        "head",
        (norm(model, training, "fwd", tokens(training)), *scores.forward, loss),
        (loss, *scores.backward, norm(model, training, "bwd", tokens(training))),
        parameters=0.0 if frozen else float(every.final_norms),
        frozen_parameters=float(every.final_norms) if frozen else 0.0,
        kept_bytes=(value_bytes(training) + 4.0) * rows * classes,
    )


def vit_ends(model: Model, classes: int = 1000) -> tuple[int, int]:
    """(values of a patch, classes), from the weights outside the blocks: (patch + bias + class token) h + head."""
    inside, rest = divmod(model.extra_params - classes * (model.hidden + 1), model.hidden)
    if rest == 0 and inside > 2:
        return inside - 2, classes
    return max(model.extra_params // model.hidden, 1), 0


def diffusion_first(model: Model, training: Training) -> Block:
    """A DiT's patch projection, time-step MLP and class look-up (Peebles and Xie 2023, arXiv 2212.09748)."""
    rows, h = training.plan.micro_batch, model.hidden
    patch = linear(training, tokens(training), h, LATENT_PATCH, "patch projection", adapted=False)
    time = (
        linear(training, rows, h, TIME_FREQUENCIES, "time in", adapted=False),
        linear(training, rows, h, h, "time out", adapted=False),
    )
    every = weights(model)
    block = _first(model, training, patch)
    held = float(every.embedding + every.positions + every.extra)
    return replace(
        block,
        forward=(*block.forward, *(op for one in time for op in one.forward)),
        backward=(*block.backward, *(op for one in time for op in one.backward)),
        parameters=0.0 if training.lora_rank else held,
        frozen_parameters=held if training.lora_rank else 0.0,
    )


LATENT_PATCH = 16
"""Values of a 2 x 2 patch of a 4-channel latent."""
TIME_FREQUENCIES = 256


def diffusion_layer(model: Model, training: Training) -> Block:
    """A DiT block: attention and MLP, scaled and shifted by six vectors made of the time step (adaLN)."""
    rows, h, t = training.plan.micro_batch, model.hidden, training.plan.tensor
    layer = transformer_layer(model, training)
    ada = linear(training, rows, 6 * h // t, h, "modulation", adapted=False)
    scale = MemoryBound("residual_add", tokens(training), h, activation_dtype(training.precision), "modulate")
    again = (*ada.forward, scale, scale) if training.plan.recompute == "full" else ()
    kept = 4.0 * stream_bytes(model, training)  # modulated inputs and gated outputs
    return replace(
        layer,
        forward=(*ada.forward, scale, scale, *layer.forward),
        backward=(*layer.backward, scale, scale, scale, scale, *ada.backward),
        recompute=(*again, *layer.recompute),
        activation_bytes=layer.activation_bytes + kept,
        kept_bytes=layer.kept_bytes + (0.0 if again else kept),
    )


def diffusion_end(model: Model, training: Training) -> Block:
    """Norm, last matrix to noise and covariance, mean squared error."""
    count, h = tokens(training), model.hidden
    out = linear(training, count, 2 * LATENT_PATCH, h, "final layer", adapted=False)
    loss = MemoryBound("sub", count, 2 * LATENT_PATCH, "fp32", "loss")
    return Block(
        "head",
        (norm(model, training, "fwd", count), *out.forward, loss),
        (loss, *out.backward, norm(model, training, "bwd", count)),
        kept_bytes=4.0 * count * 2 * LATENT_PATCH,
    )


def token_embedding(model: Model, training: Training) -> Block:
    """Look-up of words, positions and segments, and the norm after it."""
    return with_extra(model, training, embedding(model, training))


def _first(model: Model, training: Training, patch: Linear) -> Block:
    every, frozen = weights(model), bool(training.lora_rank)
    held = float(every.positions + every.extra)
    return Block(
        "embedding",
        patch.forward,
        patch.backward[1:] or patch.backward,  # no gradient of the pixels
        parameters=0.0 if frozen else held,
        frozen_parameters=held if frozen else 0.0,
        kept_bytes=stream_bytes(model, training),
    )
