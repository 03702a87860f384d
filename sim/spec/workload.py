"""What is to be trained: model, batch, optimizer, precision and the path the data take.

A ``Training`` is the order slip of one job: it says what to make and in which batches, not where.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.spec.fields import choice, count, counts, fraction, named, quantity, switch, text
from sim.spec.model import Model
from sim.spec.parallelism import Plan

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "lamb", "adamax", "adafactor", "adam-8bit", "muon")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8", "fp4")
FP8_SCALING = ("stack", "delayed", "current")
CHECKPOINTS = ("blocking", "asynchronous")
WHISPER_TOKENS = 1500
"""30 s of sound at 100 frames a second, two frames a token (Radford et al. 2022, arXiv 2212.04356)."""
LORA_TARGETS = ("attention", "all")
STACKS = (
    "megatron-lm",
    "megatron-lm-no-overlap",
    "megatron-deepspeed",
    "megatron-bridge",
    "nemo",
    "llm-foundry-fsdp",
    "torchtitan",
    "paxml",
    "apex-ddp",
    "torch-eager",
)


@dataclass(frozen=True, slots=True)
class SampleModel:
    """A model known only by its arithmetic: so many FLOP for each sample, forward and backward together."""

    sample_flop: float = quantity("arithmetic of one sample, forward and backward", above=True)
    parameters: float = quantity("trainable parameters; 0 = nothing is exchanged or updated", 0.0)
    efficiency_frac: float = quantity(
        "share of the device's peak that the arithmetic reaches", 1.0, above=True, high=1.0
    )
    name: str = "inline"


@dataclass(frozen=True, slots=True)
class Loader:
    """The path of the data from storage to the device."""

    sample_serial_s: float = quantity(
        "time each sample costs on a path that all devices share, one sample at a time", 0.0
    )
    sample_bytes: float = quantity("bytes a sample takes in storage", 0.0)
    sample_cpu_s: float = quantity("time one CPU core needs to decode and augment a sample", 0.0)
    sample_device_bytes: float = quantity("bytes a decoded sample takes on its way to the device", 0.0)
    workers: int = count("CPU workers per device that decode", 4)
    prefetch: int = count("batches held ready ahead of the step; 0 = load, then compute", 2, low=0, high=1000)
    hiccup_s: float = quantity("extra time of an unusually slow read", 0.0)
    steps_between_hiccups: int = count("steps from one slow read to the next", 1000)


@dataclass(frozen=True, slots=True)
class Security:
    """What protects data and model during a run."""

    encrypted_storage: bool = switch("files are encrypted at rest", False)
    confidential: bool = switch("devices in confidential-computing mode", False)
    watermark_samples: int = count("trigger samples that watermarking adds to each global batch", 0, low=0)
    watermark_weights: float = quantity("weights that a watermark regulariser marks", 0.0)
    watermark_bits: int = count("bits that the marked weights carry", 256)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of many steps; either ``steps`` or ``tokens`` says how many."""

    steps: int = count("training steps; 0 = as many as the tokens need", 0, low=0)
    tokens: float = quantity("tokens (samples of a model without sequences) to train on", 0.0)
    evaluate_every: int = count("training steps between evaluations; 0 = none", 0, low=0)
    evaluate_batches: int = count("global batches of one evaluation", 10)
    checkpoint_every: int = count("training steps between checkpoints; 0 = none", 0, low=0)
    checkpoint: str = choice(
        CHECKPOINTS, "training stands still for the write, or only for the copy to the host", "blocking"
    )
    mean_time_between_failures_s: float = quantity(
        "mean time between failures of the whole job; 0 = none", 0.0
    )
    restart_s: float = quantity("time from a failure until the job trains again", 600.0)
    security: Security = field(default_factory=Security)


@dataclass(frozen=True, slots=True)
class Task:
    """A further task that shares the training step: another head's batches, or a second model's."""

    name: str = text("label in tables")
    samples: int = count("samples of the global batch that are this task's")
    model: Model | None = named(
        "what it trains, with weights of its own; left out: the main model", "model", None
    )
    sequence: int = count("tokens of a sequence; 0 = as the main model", 0, low=0)
    frames: int = count("images a sample has; 0 = as the main model", 0, low=0)


@dataclass(frozen=True, slots=True)
class Training:
    """One training job."""

    model: Model | SampleModel = named("what is trained", "model")
    global_batch: int = count("sequences (samples) a step over all devices")
    sequence: int = count("tokens of a sequence", 1)
    fill_frac: float = fraction(
        "share of a batch's positions that are computed: below 1 where padding is left out (unpadded attention, "
        "packing, batches binned by length)",
        1.0,
    )
    document_tokens: int = count(
        "mean tokens of the documents packed into a sequence: attention stays inside each; 0 = one document a sequence",
        0,
        low=0,
    )
    optimizer: str = choice(OPTIMIZERS, "update rule", "adamw")
    precision: str = choice(PRECISIONS, "number format of the matrix products", "bf16")
    autocast: bool = switch(
        "weights in fp32, cast to the 16-bit format anew for every micro-batch (automatic mixed precision), instead of "
        "16-bit weights with an fp32 copy in the optimizer",
        False,
    )
    fp8_scaling: str = choice(
        FP8_SCALING,
        "where the scales of fp8 tensors come from: passes before (delayed: their largest values are reduced over "
        "tensor, context and data ranks after every pass), the tensor itself (current), or as the stack does by "
        "default",
        "stack",
    )
    dropout: bool = switch("dropout after attention and MLP (masks are kept for backward)", False)
    target_sequence: int = count("tokens of a sequence in the second stack; 0 = as the first", 0, low=0)
    masked_tokens: int = count("positions a masked-LM head scores in a sequence; 0 = 15 %", 0, low=0)
    shares: tuple[int, ...] = counts(
        "samples of the global batch for each pool, in the order of the pools; left out: in proportion to speed"
    )
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
    speed_spread_frac: float = fraction(
        "spread of device speed (standard deviation over mean) that stays from step to step", 0.0
    )
    jitter_frac: float = fraction("spread of a micro-batch's time (standard deviation over mean)", 0.0)
    tasks: tuple[Task, ...] = ()
    plan: Plan = field(default_factory=Plan)
    auto_plan: bool = switch(
        'the plan is searched for when the scenario is run; written plan = "auto"', False
    )
    loader: Loader | None = None
    run: Run | None = None

    @property
    def source_tokens(self) -> int:
        """Tokens of a sample in the (first) stack: as asked, or what the model makes of an image or 30 s of sound.

        Of a sequence only the share that is computed (``fill_frac``); attention is charged at the mean length, which
        is a little less than the mean over lengths.
        """
        if self.sequence > 1 or isinstance(self.model, SampleModel):
            return max(round(self.sequence * self.fill_frac), 1)
        if self.model.kind == "speech":
            return WHISPER_TOKENS
        return self.model.max_positions if self.model.kind in ("vit", "diffusion") else self.sequence

    @property
    def target_tokens(self) -> int:
        """Tokens of a sample in the second stack."""
        if isinstance(self.model, Model) and self.model.kind == "speech":
            return self.target_sequence or self.model.max_positions
        return self.target_sequence or self.source_tokens

    @property
    def scored_tokens(self) -> int:
        """Positions of a sequence that a masked-LM head scores (15 %, Devlin et al. 2019)."""
        return self.masked_tokens or max(round(0.15 * self.source_tokens), 1)
