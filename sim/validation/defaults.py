"""What a framework does where a published row says nothing: its documentation's and its recipes' defaults at the time.

Like the house rules of a hotel: they hold for every guest who did not ask for something else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

UNFUSED_UNTIL = 2022
"""Megatron-LM and its forks gained fused attention in 2022-2023: earlier runs wrote the score matrix to memory."""
LORA_RANK = 16
"""The rank of NeMo's and Megatron-Bridge's LoRA recipes (NVIDIA NeMo documentation: LoRA, default dim 32 or 16)."""
PACKED_TOKENS = 177
"""Mean tokens of a SQuAD sample (46 % of 384, openreview 3nzKUh9a4M): NeMo's and Megatron-Bridge's fine-tuning recipes
pack it into sequences of 4,096."""
FORMATS = {"mxfp8": "fp8", "nvfp4": "fp4"}
"""Block-scaled formats run at the rate of their width."""


@dataclass(frozen=True, slots=True)
class StackDefaults:
    """What a framework does where a published row says nothing (its documentation's defaults at the time)."""

    zero_stage: int = 0
    overlap_gradients: bool = True
    overlap_parameters: bool = False
    overlap_weights: bool = True
    sequence_parallel: bool = False
    """With tensor parallelism."""
    overlap_tensor: bool = False
    fused_attention: bool = True
    attention_kernel: str = "newest"
    recompute_stops_early: bool = False
    fused_accumulation: bool = True
    half_gradients: bool = False
    chunk_layers: int = 0
    """Layers of a virtual stage of a dense model's pipeline; 0 = stages are not cut."""
    recompute: str = "none"
    whole_experts: bool = False
    """Experts are never cut over the tensor group."""
    optimizer: str = "adam"


MEGATRON = StackDefaults(1, overlap_parameters=True, sequence_parallel=True, overlap_tensor=True)
DEFAULTS = {
    "megatron-lm": MEGATRON,
    "megatron-lm-no-overlap": StackDefaults(zero_stage=1, overlap_gradients=False, sequence_parallel=True),
    "megatron-deepspeed": StackDefaults(overlap_gradients=False, fused_accumulation=False),
    "megatron-bridge": replace(MEGATRON, half_gradients=True, chunk_layers=4),
    "nemo": replace(MEGATRON, half_gradients=True, chunk_layers=1),
    "llm-foundry-fsdp": StackDefaults(zero_stage=3, attention_kernel="flash-1", recompute_stops_early=True),
    "torchtitan": StackDefaults(
        zero_stage=3,
        sequence_parallel=True,
        overlap_tensor=True,
        recompute="operators",
        attention_kernel="flash-2",
        recompute_stops_early=True,
    ),
    "paxml": StackDefaults(zero_stage=3, overlap_gradients=False, recompute="full"),
    "apex-ddp": StackDefaults(optimizer="lamb"),
    "torch-eager": StackDefaults(overlap_gradients=False, optimizer="adamw"),
}
"""Megatron-LM before 2023 is taken as Megatron-DeepSpeed: no overlap, no distributed optimizer. llm-foundry's
MPT recipes call the first FlashAttention in Triton, the one that takes their ALiBi bias, and PyTorch's non-reentrant
checkpoints (scripts/train/yamls). torchtitan calls PyTorch's own attention, FlashAttention-2, recomputes by operators,
and cuts a pipeline's batch into as many micro-batches as stages. Megatron-DeepSpeed adds gradients in a pass of their
own, as Megatron-LM did before 2022. NeMo's and Megatron-Bridge's performance recipes sum gradients in 16 bit
(``grad_reduce_in_fp32 = False``; NeMo 1: ``grad_sync_dtype: bf16``) and cut the pipelines of dense models into virtual
stages: one layer each in NeMo's (Llama 2 13B: 10 in each of 4 stages), four in Megatron-Bridge's (Llama 3 70B: 5). That
XLA hides gathers, but not reductions, is assumed for PaxML; its FP8 recipes save nothing between layers
(``CHECKPOINT_POLICY = SAVE_NOTHING``), without which the published GPT-3 runs would not fit."""
ACCUMULATION_FUSED_FROM = 2022
"""Year in which Megatron-LM took over products that add weight gradients (``gradient_accumulation_fusion``)."""
BERT_MICRO_BATCH = (256, 32)
"""Sequences a device takes at once in the BERT rows, which do not say: of 128 and of 512 tokens (NVIDIA
DeepLearningExamples, BERT run_pretraining.sh); half as many in TF32."""
BINNED_FROM = 512
"""Sequence length from which the BERT rows' batches are binned by length: phase 2 alone reads ``bin_size_64``
(NVIDIA DeepLearningExamples, BERT, run_pretraining.sh, ``phase2_bin_size``)."""
BINNED_FILL = (0.52 * 512 + 32) / 512
"""Positions computed in phase 2: 48 % of Wikipedia and BooksCorpus at 512 are padding (openreview 3nzKUh9a4M), and a
bin of 64 pads half of it."""
GRADIENT_BUCKETS = 8
"""Messages a chunk's gradients travel in under Megatron-Core's overlap (40 M parameters a bucket)."""
HYBRID_EP_FROM = 2026
"""Year from which Megatron-Bridge's recipes set ``moe_flex_dispatcher_backend`` (scripts/performance/configs)."""
NEMO_LATENT = replace(DEFAULTS["nemo"], whole_experts=True)
NEMO_LATENT_BLACKWELL = replace(NEMO_LATENT, fused_attention=False, recompute="selective")
"""NeMo's recipes for latent attention (DeepSeek-V3) keep experts whole (ETP 1). On Blackwell their containers (25.04 in
the published rows) find no fused attention for heads of 192 and 128, which cuDNN has from 9.11 (NVIDIA/cudnn-frontend
pull request 145, Transformer Engine's nvte_get_fused_attn_backend), and recompute ``core_attn``, there and nowhere else
(NVIDIA/dgxc-benchmarking v25.05.02, deepseek_v3/pretraining/launch.sh)."""
