"""What is to be trained: model, batch, optimizer, precision and the path the data take.

A ``Training`` is the order slip of one job: it says what to make and in which batches, not where.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.spec.fields import choice, count, named, quantity, switch
from sim.spec.model import Model
from sim.spec.parallelism import Plan

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "lamb", "adamax")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8")
WHISPER_TOKENS = 1500
"""30 s of sound at 100 frames a second, two frames a token (Radford et al. 2022, arXiv 2212.04356)."""
LORA_TARGETS = ("attention", "all")
STACKS = ("megatron-lm", "megatron-deepspeed")


@dataclass(frozen=True, slots=True)
class SampleModel:
    """A model known only by its arithmetic: so many FLOP for each sample, forward and backward together."""

    sample_flop: float = quantity("arithmetic of one sample, forward and backward", above=True)
    parameters: float = quantity("trainable parameters", 0.0)
    name: str = "inline"


@dataclass(frozen=True, slots=True)
class Loader:
    """The path of the data from storage to the device."""

    sample_serial_s: float = quantity(
        "time each sample costs on a path that all devices share, one sample at a time", 0.0
    )
    sample_bytes: float = quantity("bytes a sample takes in storage", 0.0)
    sample_cpu_s: float = quantity("time one CPU core needs to decode and augment a sample", 0.0)
    workers: int = count("CPU workers per device that decode", 4)
    prefetch: int = count("batches held ready ahead of the step; 0 = load, then compute", 2, low=0, high=1000)


@dataclass(frozen=True, slots=True)
class Training:
    """One training job."""

    model: Model | SampleModel = named("what is trained", "model")
    global_batch: int = count("sequences (samples) a step over all devices")
    sequence: int = count("tokens of a sequence", 1)
    optimizer: str = choice(OPTIMIZERS, "update rule", "adamw")
    precision: str = choice(PRECISIONS, "number format of the matrix products", "bf16")
    dropout: bool = switch("dropout after attention and MLP (masks are kept for backward)", False)
    target_sequence: int = count("tokens of a sequence in the second stack; 0 = as the first", 0, low=0)
    masked_tokens: int = count("positions a masked-LM head scores in a sequence; 0 = 15 %", 0, low=0)
    frames: int = count("images (video frames) a sample has", 1, high=100_000)
    lora_rank: int = count(
        "rank of low-rank adapters, all else of a transformer frozen; 0 = train everything",
        0,
        low=0,
        high=100_000,
    )
    lora_targets: str = choice(
        LORA_TARGETS,
        "linear layers with adapters: those of attention (as in the LoRA paper), or all",
        "attention",
    )
    stack: str = choice(STACKS, "training framework whose overheads apply", "megatron-lm")
    plan: Plan = field(default_factory=Plan)
    loader: Loader | None = None

    @property
    def source_tokens(self) -> int:
        """Tokens of a sample in the (first) stack: as asked, or what the model makes of an image or 30 s of sound."""
        if self.sequence > 1 or isinstance(self.model, SampleModel):
            return self.sequence
        if self.model.kind == "speech":
            return WHISPER_TOKENS
        return self.model.max_positions if self.model.kind in ("vit", "diffusion") else self.sequence

    @property
    def target_tokens(self) -> int:
        """Tokens of a sample in the second stack."""
        if isinstance(self.model, Model) and self.model.kind == "speech":
            return self.target_sequence or self.model.max_positions
        return self.target_sequence or self.sequence

    @property
    def scored_tokens(self) -> int:
        """Positions of a sequence that a masked-LM head scores (15 %, Devlin et al. 2019)."""
        return self.masked_tokens or max(round(0.15 * self.sequence), 1)
