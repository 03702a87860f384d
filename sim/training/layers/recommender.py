"""A recommender: rows looked up in tables that many devices share, then a small dense network.

The batch is cut over the devices for the dense part and the tables are cut for the look-ups, so that every pooled row
crosses the network once forward, and its gradient once back (Naumov et al. 2019, arXiv 1906.00091; Mudigere et al.
2022, arXiv 2104.05158).
"""

from __future__ import annotations

from sim.spec.ops import Block, Lookup, MemoryBound, Message, Op
from sim.spec.recommender import Recommender
from sim.spec.workload import Training
from sim.training.layers.parts import activation_dtype, linear, value_bytes

ROW_BYTES = 4.0
"""A weight in a table is kept in fp32; row-wise AdaGrad adds one value a row (reference configuration)."""


def table_block(shape: Recommender, training: Training) -> Block:
    """Look-ups of this rank's share of the tables for the whole expert group's batch, and the all-to-all home.

    Shares are taken as even: a rank looks up as many rows as its own samples need, in 1/e of every table.
    """
    batch, ranks = training.plan.micro_batch, training.plan.expert
    bags = float(batch * len(shape.rows))
    rows = sum(shape.rows) / ranks
    found = float(batch * sum(shape.lookups))
    moved = value_bytes(training) * bags * shape.dim
    send: tuple[Op, ...] = (Message("alltoall", moved, "expert", "pooled rows"),) if ranks > 1 else ()
    back: tuple[Op, ...] = (Message("alltoall", moved, "expert", "row gradients"),) if ranks > 1 else ()
    return Block(
        "tables",
        (Lookup("fwd", found, bags, shape.dim, rows, ROW_BYTES, "look-up"), *send),
        (*back, Lookup("bwd", found, bags, shape.dim, rows, ROW_BYTES, "row update")),
        table_bytes=ROW_BYTES * (shape.table_parameters + sum(shape.rows)) / ranks,
        kept_bytes=moved,
        activation_bytes=moved,
    )


def dense_blocks(shape: Recommender, training: Training) -> tuple[Block, ...]:
    """Bottom MLP, cross layers and top MLP, one block each."""
    parts = ("bottom", "cross", "top")
    return tuple(_mlp(shape, training, part) for part in parts)


def _mlp(shape: Recommender, training: Training, part: str) -> Block:
    batch, dtype = training.plan.micro_batch, activation_dtype(training.precision)
    forward: list[Op] = []
    backward: list[Op] = []
    held = kept = 0.0
    for name, columns, inner in shape.matrices:
        if not name.startswith(part):
            continue
        one = linear(training, batch, columns, inner, name, adapted=False)
        # a cross layer adds its product with the input to the input; an MLP has ReLU
        passes = {"cross down": (), "cross up": ("mul", "residual_add")}.get(name, ("relu",))
        extra = tuple(MemoryBound(op, batch, columns, dtype, f"{part} elementwise") for op in passes)
        forward += [*one.forward, *extra]
        backward[:0] = [*extra, *one.backward]
        held += inner * columns + (0 if name == "cross down" else columns)
        kept += value_bytes(training) * batch * (columns + inner)
    full = training.plan.recompute == "full"
    return Block(
        f"{part} layers",
        tuple(forward),
        tuple(backward),
        tuple(forward) if full else (),
        parameters=held,
        activation_bytes=kept,
        kept_bytes=value_bytes(training) * batch * float(shape.width) if full else kept,
    )
