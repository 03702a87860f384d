"""The pieces that blocks are put together from: linear layers with their gradients, norms, residuals, exchanges.

A ``Part`` is half a layer (attention, or an MLP) written out for one device of a plan; ``block`` closes parts into a
``Block``. Shapes follow Megatron-LM (Narayanan et al. 2021, arXiv 2104.04473, section 2.3; sequence parallel:
Korthikanti et al. 2022, arXiv 2205.05198).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from sim.spec.device import BYTES_PER_VALUE
from sim.spec.model import Model
from sim.spec.ops import Attention, Block, Gemm, MemoryBound, Message, Op
from sim.spec.workload import Training


@dataclass(frozen=True, slots=True)
class Part:
    """Half a layer on one device, for one micro-batch."""

    forward: tuple[Op, ...]
    backward: tuple[Op, ...]
    core: tuple[Op, ...] = ()
    """What selective recomputation does again."""
    adapters: float = 0.0
    """LoRA weights on this device."""
    kept_bytes: float = 0.0
    """Activations that backward needs."""
    core_bytes: float = 0.0
    """Of these, what selective recomputation drops."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix of weights applied to rows of activations: its products in both directions."""

    forward: tuple[Op, ...]
    backward: tuple[Op, ...]
    adapters: float


def linear(
    training: Training,
    rows: int,
    columns: int,
    inner: int,
    name: str,
    *,
    adapted: bool = True,
    cut: str = "",
) -> Linear:
    """C[rows, columns] = A[rows, inner] W, with input gradient dC W^T and weight gradient A^T dC.

    ``cut``: how the tensor group shares W, by ``columns`` or by ``rows``. Where its messages run beside the products,
    these come in pieces, one a rank: both forward, to gather A or to scatter C, and the input gradient of a matrix cut
    by rows, to gather dC. The other gradients stay whole (Transformer Engine, ``module/base.py``, ``initialize_ub``:
    ``ring_exchange``, ``pipeline`` and ``bulk``).

    Under LoRA (Hu et al. 2021, arXiv 2106.09685) W is frozen, so its gradient is not formed, and a product through
    ``lora_rank`` columns is added beside it where ``adapted``.
    """
    pieces = training.plan.tensor if cut and training.plan.overlap_tensor else 1
    base, rank = Gemm(rows, columns, inner, name=name, pieces=pieces), training.lora_rank
    input_gradient, weight_gradient = weight_gradients(training, base)
    if cut == "rows" and pieces > 1:
        input_gradient = replace(input_gradient, pieces=pieces)
    if not rank:
        return Linear((base,), (input_gradient, weight_gradient), 0.0)
    if not adapted:
        return Linear((base,), (input_gradient,), 0.0)
    wide = activation_dtype(training.precision)  # adapters are too thin to be worth a low-precision format
    down = Gemm(rows, rank, inner, name=f"{name} adapter down", dtype=wide)
    up = Gemm(rows, columns, rank, name=f"{name} adapter up", dtype=wide)
    add = MemoryBound(
        "residual_add", rows, columns, activation_dtype(training.precision), f"{name} adapter sum"
    )
    backward = (input_gradient, *gradients(up), *gradients(down), add)
    return Linear((base, down, up, add), backward, float(rank * (columns + inner)))


def gradients(gemm: Gemm, summed_bytes: float | None = None) -> tuple[Gemm, Gemm]:
    """Input gradient dA = dC B^T and weight gradient dB = A^T dC.

    In low precision both operands of the weight gradient are there: A was quantised for the forward product and dC for
    the input gradient, each with its transpose in the same pass (Transformer Engine).

    Args:
        summed_bytes: memory traffic of one element of the weight gradient, where the product adds it to others.
    """
    return (
        Gemm(gemm.m, gemm.k, gemm.n, gemm.batch, f"{gemm.name} dgrad", gemm.dtype),
        Gemm(gemm.k, gemm.n, gemm.m, gemm.batch, f"{gemm.name} wgrad", gemm.dtype, True, summed_bytes),
    )


def weight_gradients(training: Training, gemm: Gemm) -> tuple[Gemm, Gemm]:
    """The gradients of a product with weights; that of the weights is read and written where it is summed up.

    Megatron-Core's products add to the main gradients (``gradient_accumulation_fusion``): 8 bytes a weight in fp32, 4
    in 16 bit. A framework that adds in a pass of its own after a product in 16 bit moves as many. Under ZeRO 3 the
    product's output is new each time, and what is summed up is the rank's part of it.
    """
    plan = training.plan
    if not plan.fused_accumulation or not sums_up(training) or training.lora_rank:
        return gradients(gemm)
    return gradients(gemm, 4.0 if plan.half_gradients else 8.0)


def sums_up(training: Training) -> bool:
    """Whether adding gradients up is told apart: not under ZeRO 3, nor in eager PyTorch, whose layers are measured with
    it (``calibrate``), so that its constants hold it."""
    return training.plan.zero_stage != 3 and training.stack != "torch-eager"


def activation_dtype(precision: str) -> str:
    """Number format of activations between kernels: 16 bit under mixed precision, else as computed."""
    return {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16"}.get(precision, "bf16")


def value_bytes(training: Training) -> int | float:
    """Bytes of one activation value."""
    return BYTES_PER_VALUE[activation_dtype(training.precision)]


def tokens(training: Training, sequence: int = 0) -> int:
    """Tokens of a micro-batch on one rank: the context group splits each sequence."""
    return training.plan.micro_batch * (sequence or training.sequence) // training.plan.context


def split(training: Training) -> int:
    """Ranks that share what lies between the tensor-parallel matrices (norms, residuals, dropout)."""
    return training.plan.tensor if training.plan.sequence_parallel else 1


def norm(model: Model, training: Training, phase: str, count: int) -> MemoryBound:
    """Norm of ``count`` tokens, its share of the tensor group under sequence parallelism."""
    kind = "rms_norm" if model.norm == "rms" else "layer_norm"
    rows, dtype = count // split(training), activation_dtype(training.precision)
    return MemoryBound(f"{kind}_{phase}", rows, model.hidden, dtype, "norm")


def residual(model: Model, training: Training, count: int, name: str) -> MemoryBound:
    """Addition onto the residual stream."""
    rows, dtype = count // split(training), activation_dtype(training.precision)
    return MemoryBound("residual_add", rows, model.hidden, dtype, name)


def tensor_sync(model: Model, training: Training, count: int, name: str) -> tuple[Op, ...]:
    """What the tensor group exchanges at one edge of a sharded pair of matrices.

    One all-reduce of the activations; under sequence parallel a reduce-scatter and an all-gather of the same volume.
    """
    if training.plan.tensor == 1:
        return ()
    size = value_bytes(training) * count * model.hidden
    if training.plan.sequence_parallel:
        return (
            Message("reduce_scatter", size, "tensor", f"{name} reduce-scatter"),
            Message("all_gather", size, "tensor", f"{name} all-gather"),
        )
    return (Message("all_reduce", size, "tensor", f"{name} all-reduce"),)


def block(
    name: str,
    training: Training,
    parts: Iterable[Part],
    *,
    parameters: float,
    expert_parameters: float = 0.0,
    input_bytes: float = 0.0,
) -> Block:
    """A layer of several parts under the plan's recomputation; LoRA freezes its own weights.

    Args:
        input_bytes: the layer's input, all that stays under full recomputation.
    """
    every = tuple(parts)
    forward = tuple(op for part in every for op in part.forward)
    kept, core = sum(part.kept_bytes for part in every), sum(part.core_bytes for part in every)
    recompute = training.plan.recompute
    again: tuple[Op, ...] = ()
    if recompute == "full":
        again = _until_last_product(forward) if training.plan.recompute_stops_early else forward
    elif recompute == "operators":
        again, saved = _every_second_product(forward)
        kept = min(input_bytes + value_bytes(training) * saved, kept)
    elif recompute == "selective":
        again = tuple(op for part in every for op in part.core)
        kept -= core
    adapters = sum(part.adapters for part in every)
    frozen = bool(training.lora_rank)
    trained = adapters if frozen else parameters + expert_parameters
    return Block(
        name,
        forward,
        (*(op for part in every for op in part.backward), *_accumulation(training, trained)),
        again,
        parameters=adapters if frozen else parameters,
        expert_parameters=0.0 if frozen else expert_parameters,
        frozen_parameters=parameters if frozen else 0.0,
        frozen_expert_parameters=expert_parameters if frozen else 0.0,
        activation_bytes=sum(part.kept_bytes for part in every) if recompute == "operators" else kept,
        kept_bytes=input_bytes if recompute == "full" else kept,
    )


def _every_second_product(forward: tuple[Op, ...]) -> tuple[tuple[Op, ...], float]:
    """What is done again, and how many output values are kept, where attention and every second product are saved.

    torchtitan's default, ``selective_ac_option = "op"`` (its ``activation_checkpoint.py``): of a product that stands
    for several matrices (queries with keys and values, gate with up) half the columns are saved, of the others the
    second, fourth and so on.
    """
    again: list[Op] = []
    saved, single = 0.0, 0
    for op in forward:
        if isinstance(op, Attention):
            queries = op.sequence if op.queries is None else op.queries
            width = op.head_dim if op.value_dim is None else op.value_dim
            saved += float(np.multiply(np.multiply(op.batch, op.heads), np.multiply(queries, width)))
        elif isinstance(op, Gemm):
            share = 0.5 if op.name in JOINT else float(single % 2)
            single += op.name not in JOINT
            saved += share * float(np.multiply(np.multiply(op.batch, op.m), op.n))
            if share < 1:
                again.append(replace(op, n=round(float(np.multiply(op.n, 1 - share)))))
        else:
            again.append(op)
    return tuple(again), saved


JOINT = ("qkv", "mlp up", "experts up", "shared experts up")
"""Products that stand for several matrices side by side."""


def _accumulation(training: Training, parameters: float) -> tuple[Op, ...]:
    """The pass that adds a micro-batch's weight gradients to the main gradients, where no product does it."""
    if training.plan.fused_accumulation:
        return ()
    return (
        MemoryBound("residual_add", max(round(parameters / 1024), 1), 1024, "fp32", "gradient accumulation"),
    )


def _until_last_product(forward: tuple[Op, ...]) -> tuple[Op, ...]:
    """What a recomputation does that stops once backward has all it needs.

    The inputs of a layer's last product are kept for its gradients, its output is not (PyTorch's non-reentrant
    checkpoints, ``torch.utils.checkpoint.set_checkpoint_early_stop``).
    """
    last = max((place for place, op in enumerate(forward) if isinstance(op, Gemm)), default=len(forward))
    return forward[:last]
