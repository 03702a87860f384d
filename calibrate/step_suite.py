"""Which steps a verification runs: the stages of a rally, chosen to differ.

Decoders over width, depth, sequence, batch, grouped heads, number format and recomputation; a convolutional network;
a recommender; serving. On a device each is fitted to its memory first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

BYTES_PER_PARAMETER = 16.0
"""fp32 weight, gradient and two moments (Rajbhandari et al. 2020, arXiv 1910.02054, section 3)."""
CAST_BYTES = 2.0
"""A parameter's 16-bit copy, which autocast keeps until the pass has ended (torch.autocast, cache_enabled)."""
MEMORY_FRAC = 0.8
"""Share of the memory that a step may fill; the rest is for the allocator and the libraries (assumed)."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Size of a recommender."""

    tables: int
    rows: int
    dim: int
    lookups: int
    bottom: tuple[int, ...]
    top: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step to run; names are those of published-run tables."""

    workload: str
    """``decoder``, ``cnn``, ``recommender``, ``prefill`` or ``decode``."""
    layers: int = 0
    hidden: int = 0
    heads: int = 0
    kv_heads: int = 0
    ffn_hidden: int = 0
    vocab: int = 0
    seq_len: int = 1
    """Tokens of a sequence; of the cache in ``decode``."""
    micro_batch: int = 1
    precision: str = "fp32"
    recompute: str = "none"
    experts: int = 0
    topk: int = 0
    ranks: int = 1
    recommender: Tables = field(
        default_factory=lambda: Tables(8, 100_000, 64, 4, (13, 256, 64), (512, 256, 1))
    )

    @property
    def name(self) -> str:
        """Short label, unique within a suite."""
        if self.workload in ("cnn", "recommender"):
            return f"{self.workload}-b{self.micro_batch}-{self.precision}-x{self.ranks}"
        size = f"l{self.layers}-h{self.hidden}-s{self.seq_len}-b{self.micro_batch}"
        extra = ("-recompute" if self.recompute == "full" else "") + (
            f"-e{self.experts}" if self.experts else ""
        )
        return f"{self.workload}-{size}-{self.precision}{extra}-x{self.ranks}"

    @property
    def parameters(self) -> float:
        """Weights of a decoder: attention, MLP (three matrices) or experts and router, embedding and head."""
        head_dim = self.hidden // max(self.heads, 1)
        attention = 2.0 * self.hidden**2 + 2.0 * self.hidden * self.kv_heads * head_dim
        mlp = 3.0 * self.hidden * self.ffn_hidden * max(self.experts, 1) + self.hidden * self.experts
        return self.layers * (attention + mlp) + 2.0 * self.vocab * self.hidden

    @property
    def needed_bytes(self) -> float:
        """Memory of a training step of a decoder, or of serving it, roughly.

        Activations of a layer: 34 bytes a token and hidden value and 6 an MLP value in 16 bit (Korthikanti et al.
        2022, arXiv 2205.05198, section 4.1), twice in fp32; logits in fp32 with their gradient.
        """
        wide = 2.0 if self.precision in ("fp32", "tf32") else 1.0
        tokens = float(self.micro_batch * self.seq_len)
        if self.workload in ("prefill", "decode"):
            cache = 2 * wide * 2 * tokens * self.layers * self.kv_heads * (self.hidden // self.heads)
            return 2 * wide * self.parameters + cache
        layer = wide * tokens * (34.0 * self.hidden + 6.0 * self.ffn_hidden * max(self.topk, 1))
        kept = layer + 2 * wide * tokens * self.hidden * self.layers
        activations = kept if self.recompute == "full" else layer * self.layers
        cast = 0.0 if wide > 1 else CAST_BYTES
        return (BYTES_PER_PARAMETER + cast) * self.parameters + activations + 12.0 * tokens * self.vocab

    def columns(self) -> dict[str, Any]:
        """Columns of a published-run table, and those it has not: ``workload``, and a recommender's sizes."""
        own = {
            "id": self.name,
            "group": f"verify|{self.workload}|{self.ranks}",
            "strategy": "dense-3d",
            "measured_quantity": "step_time_s",
            "num_gpus": self.ranks,
            "gpus_per_node": self.ranks,
            "model_family": self.name,
            "global_batch": self.micro_batch * self.ranks,
            "tp": 1,
            "pp": 1,
            "virtual_pp": 1,
            "dp": self.ranks,
            "cp": 1,
            "ep": 1,
            "zero_stage": 0,
            "stack": "torch-eager",
            "evidence": "measured",
            "mlp_matrices": 3,
            "attention": "gqa" if self.kv_heads < self.heads else "mha",
        }
        sizes = {
            name: getattr(self, name)
            for name in (
                *("workload", "layers", "hidden", "heads", "kv_heads", "ffn_hidden", "vocab", "seq_len"),
                *("micro_batch", "precision", "recompute", "experts", "topk"),
            )
        }
        if self.experts:
            sizes["moe_ffn_hidden"] = self.ffn_hidden
        if self.workload == "recommender":
            own |= {f"rec_{name}": value for name, value in asdict(self.recommender).items()}
        return own | sizes


SUITES = ("smoke", "quick", "full")
"""Names of suites: seconds to see that all works, the usual one, and everything."""


def suite(name: str, *, cuda: bool, memory_bytes: float, processes: Iterable[int]) -> list[Step]:
    """The steps of one of :data:`SUITES` for this kind of machine, fitted to its memory.

    Raises:
        ValueError: unknown suite.
    """
    if name not in SUITES:
        raise ValueError(f"--suite: found {name!r}, expected one of {', '.join(SUITES)}")
    usual = _device_steps(name) if cuda else _cpu_steps(name)
    wanted = list(_smoke_steps() if name == "smoke" else usual)
    counts = sorted(set(processes))
    steps = [step for step in wanted if 1 in counts]
    for ranks in (count for count in counts if count > 1):
        trained = [step for step in wanted if step.workload == "decoder"]
        steps += [replace(step, ranks=ranks) for step in trained[: 6 if name == "full" else 4]]
    room = MEMORY_FRAC * memory_bytes / (1 if cuda else max(counts))
    return list({step.name: step for step in (fitted(step, room) for step in steps)}.values())


def fitted(step: Step, room_bytes: float) -> Step:
    """The step made to fit: a smaller micro-batch, then recomputation, then fewer layers."""
    if step.workload in ("cnn", "recommender"):
        return step
    while step.needed_bytes > room_bytes:
        if step.micro_batch > 1:
            step = replace(step, micro_batch=step.micro_batch // 2)
        elif step.recompute == "none" and step.workload == "decoder":
            step = replace(step, recompute="full")
        elif step.layers > 1:
            step = replace(step, layers=max(step.layers * 3 // 4, 1))
        else:
            break
    return step


def _smoke_steps() -> Iterator[Step]:
    """Sizes that take a core less than a tenth of a second a step."""
    for one in (
        (2, 256, 4, 4, 704, 2048, 128, 2, "none"), (2, 384, 6, 2, 1024, 2048, 128, 1, "none"),
        (3, 256, 4, 4, 704, 1024, 64, 4, "none"), (1, 512, 8, 8, 1408, 2048, 128, 2, "none"),
    ):  # fmt: skip
        yield _decoder(one, "fp32")
    yield Step("prefill", 3, 384, 6, 2, 1024, 2048, 128, 1)


def _cpu_steps(name: str) -> Iterator[Step]:
    """Sizes that take a core a quarter of a second to a second a step."""
    decoders = (
        (4, 512, 8, 8, 1408, 8192, 256, 2, "none"), (3, 768, 12, 4, 2048, 4096, 256, 1, "none"),
        (8, 256, 4, 4, 704, 8192, 256, 2, "none"), (2, 1024, 16, 16, 2816, 4096, 128, 2, "none"),
        (4, 512, 8, 2, 1024, 4096, 512, 1, "none"), (4, 512, 8, 8, 1408, 4096, 128, 4, "full"),
    )  # fmt: skip
    more = (
        (2, 768, 12, 12, 3072, 16384, 128, 2, "none"), (6, 384, 6, 6, 1024, 4096, 384, 2, "none"),
        (3, 640, 10, 5, 1728, 8192, 192, 3, "full"),
    )  # fmt: skip
    for one in decoders + (more if name == "full" else ()):
        yield _decoder(one, "fp32")
    yield Step("cnn", micro_batch=2)
    yield Step("recommender", micro_batch=512)
    yield Step("prefill", 6, 768, 12, 4, 2048, 8192, 256, 1)
    yield Step("decode", 8, 1024, 16, 16, 2816, 8192, 512, 4)
    if name == "full":
        yield Step("decode", 8, 768, 12, 4, 2048, 8192, 1024, 16)
        yield Step("decoder", 2, 256, 4, 4, 512, 4096, 128, 4, "fp32", "none", 4, 2)
        yield Step("recommender", micro_batch=2048)


def _decoder(sizes: tuple[Any, ...], precision: str) -> Step:
    *shape, recompute = sizes
    return Step("decoder", *shape, precision=precision, recompute=recompute)


def _device_steps(name: str) -> Iterator[Step]:
    """Decoders from 0.1 to 10 billion parameters; layers of the largest are dropped where memory ends."""
    small = (
        (12, 768, 12, 12, 2048, 50304, 1024, 16, "none"), (24, 1024, 16, 16, 2816, 50304, 1024, 8, "none"),
        (24, 2048, 16, 16, 5632, 32000, 2048, 4, "none"), (22, 2048, 32, 4, 5632, 32000, 2048, 4, "none"),
        (32, 2560, 32, 32, 6912, 50304, 2048, 2, "full"), (28, 3072, 24, 8, 8192, 32000, 2048, 2, "full"),
    )  # fmt: skip
    large = (
        (12, 768, 12, 12, 2048, 50304, 4096, 4, "none"), (24, 1024, 16, 4, 2816, 50304, 512, 32, "none"),
        (16, 2048, 32, 8, 8192, 128256, 2048, 2, "none"), (24, 2048, 16, 16, 5632, 32000, 8192, 1, "full"),
        (28, 3072, 24, 8, 8192, 32000, 4096, 1, "none"), (32, 4096, 32, 32, 11008, 32000, 2048, 1, "full"),
        (32, 4096, 32, 8, 14336, 32000, 4096, 1, "full"), (40, 5120, 40, 40, 13824, 32000, 2048, 1, "full"),
        (16, 1536, 12, 12, 4096, 32000, 2048, 8, "full"),
    )  # fmt: skip
    for one in small + (large if name == "full" else ()):
        yield _decoder(one, "bf16")
    for precision in ("tf32", "fp32", "fp16") if name == "full" else ("tf32",):
        yield _decoder(small[1], precision)
    yield Step("decoder", 12, 1024, 16, 16, 1408, 32000, 1024, 8, "bf16", "none", 8, 2)
    yield Step("cnn", micro_batch=64, precision="bf16")
    yield Step(
        "recommender",
        micro_batch=8192,
        precision="tf32",
        recommender=Tables(26, 1_000_000, 64, 4, (13, 512, 256, 64), (1024, 1024, 512, 1)),
    )
    yield Step("prefill", 32, 4096, 32, 8, 14336, 128256, 2048, 2, "bf16")
    yield Step("decode", 32, 4096, 32, 8, 14336, 128256, 2048, 16, "bf16")
    if name == "full":
        yield Step("prefill", 22, 2048, 32, 4, 5632, 32000, 1024, 8, "bf16")
        yield Step("decode", 22, 2048, 32, 4, 5632, 32000, 4096, 64, "bf16")
