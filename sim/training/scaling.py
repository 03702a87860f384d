"""What FP8 sends beside the model's own messages: the largest values of its tensors, on which ranks must agree.

Like tills that report their highest sale after each shift, so that all print with the same number of digits. Delayed
scaling takes a tensor's scale from its largest absolute values in passes before (Micikevicius et al. 2022, arXiv
2209.05433), and Transformer Engine reduces those of a pass over the ranks that share the tensors, whenever a pass
leaves ``fp8_autocast`` and at the end of its backward (``FP8GlobalStateManager.reduce_and_update_fp8_tensors``). Since
release 1.6 of 2024 nothing runs beside that.
"""

from __future__ import annotations

from sim.spec.ops import Block, Gemm, Message
from sim.spec.workload import Training

DELAYED_STACKS = ("megatron-lm", "megatron-lm-no-overlap", "nemo", "llm-foundry-fsdp")
"""Frameworks whose FP8 scales are delayed unless asked otherwise (Megatron-LM ``--fp8-recipe``; NeMo
``bf16_with_fp8_mixed``; Composer ``amp_fp8``). Megatron-Bridge's recipes and torchtitan take the tensor's own largest
value, XLA (PaxML) reduces it with the product."""
MAXIMA = 3
"""Tensors of a product whose maxima Transformer Engine keeps: input, weight and output."""
MAXIMUM_BYTES = 4
GROUP = "maxima"


def delayed(training: Training) -> bool:
    """Whether the job's FP8 scales are delayed; other formats scale blocks by themselves."""
    asked = training.fp8_scaling
    usual = asked == "stack" and training.stack in DELAYED_STACKS
    return training.precision == "fp8" and (usual or asked == "delayed")


def products(block: Block) -> int:
    """Matrix products of a block's forward pass."""
    return sum(isinstance(op, Gemm) for op in block.forward)


def maxima_message(products: float) -> Message:
    """The all-reduce at the end of a pass through so many products: so short that it takes as long as its latency."""
    return Message("all_reduce", float(MAXIMUM_BYTES * MAXIMA * products), GROUP, "maxima of FP8 tensors")
