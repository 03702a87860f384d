"""``python -m benchmarks.accuracy``: writes docs/validation.md, every figure of it from the tables in the repository.

Held out means: kernels in five folds by shape (a shape is in one fold on all devices), collectives with each system
left out of the fit in turn. It takes some ten minutes on one core.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import scenarios
from app.cli.common import named_devices
from benchmarks.published_costs import costs_section
from benchmarks.validation_rows import keep_rows
from calibrate.fit.shipped import (
    TABLES,
    cross_validate_kernels,
    join,
    leave_out_collectives,
    predict_collectives,
    predict_kernels,
    read_columns,
)
from sim.spec.catalog import load_catalog
from sim.spec.profiles import fits_for, shipped
from sim.units import format_percent
from sim.validation.collectives import validate_collectives
from sim.validation.kernels import validate_kernels
from sim.validation.stacks import validate_left_out
from sim.validation.training import validate_training

MEASUREMENTS = Path(scenarios.__path__[0]) / "measurements"
OUT = Path(__file__).resolve().parents[1] / "docs" / "validation.md"
BASELINE = OUT.parents[1] / "tests" / "published" / "accuracy_baseline.json"
WORKSTATION = ("L40S", "RTX-PRO-6000", "B60")

Select = Callable[[pd.DataFrame], pd.Series]
CLASSES: dict[str, list[tuple[str, Select]]] = {
    "gemm": [
        ("gemm, all", lambda d: d["table"] == "gemm"),
        (
            "gemm, data-centre GPUs, m >= 1024",
            lambda d: (d["table"] == "gemm") & ~_workstation(d) & (d["m"] >= 1024),
        ),
        (
            "gemm, data-centre GPUs, m < 64",
            lambda d: (d["table"] == "gemm") & ~_workstation(d) & (d["m"] < 64),
        ),
        ("gemm, 64 <= m < 1024", lambda d: (d["table"] == "gemm") & (d["m"] >= 64) & (d["m"] < 1024)),
        ("gemm, L40S, RTX PRO 6000, B60", lambda d: (d["table"] == "gemm") & _workstation(d)),
        ("gemm_measured, all", lambda d: d["table"] == "gemm_measured"),
        (
            "gemm_measured, NVIDIA, 16 bit",
            lambda d: (
                (d["table"] == "gemm_measured")
                & d["dtype"].isin(["bfloat16", "float16"])
                & ~d["gpu"].str.match("MI|Gaudi|B60")
            ),
        ),
    ],
    "attention": [
        ("prefill, data-centre GPUs", lambda d: _phase(d, "attention", "prefill") & ~_workstation(d)),
        ("prefill, workstation GPUs", lambda d: _phase(d, "attention", "prefill") & _workstation(d)),
        ("decode, data-centre GPUs", lambda d: _phase(d, "attention", "decode") & ~_workstation(d)),
        ("decode, workstation GPUs", lambda d: _phase(d, "attention", "decode") & _workstation(d)),
        ("measured forward", lambda d: _phase(d, "attention_measured", "fwd")),
        ("measured backward", lambda d: _phase(d, "attention_measured", "bwd")),
        (
            "measured prefill, data-centre GPUs",
            lambda d: _phase(d, "attention_measured", "prefill") & ~_workstation(d),
        ),
        (
            "measured decode, data-centre GPUs",
            lambda d: _phase(d, "attention_measured", "decode") & ~_workstation(d),
        ),
    ],
    "memory_bound": [
        ("memory-bound, all", lambda d: d["time_us"] > 0),
        ("eager fp32", lambda d: d["engine"].str.startswith("torch eager")),
        (
            "norms (cuDNN, compiled, eager bf16)",
            lambda d: d["engine"].isin(["cudnn", "torch_compile", "pytorch"]),
        ),
    ],
    "moe": [
        ("experts, all", lambda d: d["time_us"] > 0),
        ("experts, tokens < 64", lambda d: d["tokens"] < 64),
        ("experts, 64 <= tokens < 1024", lambda d: (d["tokens"] >= 64) & (d["tokens"] < 1024)),
        ("experts, tokens >= 1024", lambda d: d["tokens"] >= 1024),
    ],
}


def _workstation(table: pd.DataFrame) -> pd.Series:
    return table["gpu"].isin(WORKSTATION)


def _phase(table: pd.DataFrame, name: str, phase: str) -> pd.Series:
    return (table["table"] == name) & (table["phase"] == phase)


def kernel_section(kind: str) -> list[str]:
    """Errors of one kind of kernel, held out by shape and as the shipped profile predicts its own rows."""
    names = TABLES[kind]
    columns = join([read_columns(MEASUREMENTS / f"{name}.csv.gz") for name in names])
    table = pd.DataFrame(columns)
    table["table"] = [name for name in names for _ in read_columns(MEASUREMENTS / f"{name}.csv.gz")["gpu"]]
    held = validate_kernels(table, cross_validate_kernels(5), load_catalog())
    own = validate_kernels(table, predict_kernels(fits_for("shipped")), load_catalog())
    keep_rows(kind, held, own)
    rows = [_row(name, held[select(held)], own[select(own)]) for name, select in CLASSES[kind]]
    return [*HEADER, *rows, ""]


HEADER = (
    "| class | rows | held out: median | p90 | bias | shipped profile, own rows: median | p90 |",
    "|---|--:|--:|--:|--:|--:|--:|",
)


def _row(name: str, held: pd.DataFrame, own: pd.DataFrame) -> str:
    a, b = (part.loc[part["skipped"] == "", "error_pct"] for part in (held, own))
    bias = 100 * np.expm1(np.log1p(a / 100).mean())
    cells = (a.abs().median(), a.abs().quantile(0.9), bias, b.abs().median(), b.abs().quantile(0.9))
    text = [f"{cells[0]:.1f}", f"{cells[1]:.0f}", f"{cells[2]:+.1f}", f"{cells[3]:.1f}", f"{cells[4]:.0f}"]
    return f"| {name} | {len(a):,} | {' | '.join(text)} |"


def collective_section() -> list[str]:
    """Errors of collectives with each system left out of the fit in turn."""
    table = pd.read_csv(MEASUREMENTS / "collectives.csv.gz")
    devices = named_devices()
    held = validate_collectives(table, leave_out_collectives(devices))
    own = validate_collectives(table, predict_collectives(fits_for("shipped"), devices))
    keep_rows("collectives", held, own)
    lines = [
        _row(str(name), part, own.loc[part.index])
        for name, part in held.groupby("class")
        if (part["skipped"] == "").any()
    ]
    reasons = Counter(held.loc[held["skipped"] != "", "skipped"])
    return [
        *HEADER,
        *lines,
        "",
        "Skipped: " + "; ".join(f"{count} {reason}" for reason, count in reasons.items()) + ".",
        "",
    ]


def training_classes(done: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """Classes of published runs by which accuracy is told; each a mask over the rows."""
    return [
        ("all", done["step_time_s"] > 0),
        ("dense, V100", (done["strategy"] == "dense-3d") & done["gpu"].str.match("V100")),
        ("dense, A100", (done["strategy"] == "dense-3d") & done["gpu"].str.match("A100")),
        ("dense, H100 and H200", (done["strategy"] == "dense-3d") & done["gpu"].str.match("H[12]00")),
        ("dense, Blackwell", (done["strategy"] == "dense-3d") & done["gpu"].str.match("G?B[23]00")),
        ("ZeRO-3 and FSDP", done["strategy"] == "zero"),
        ("mixture of experts", done["strategy"] == "moe"),
        ("BERT", done["strategy"] == "bert"),
        ("LoRA and fine-tuning", done["strategy"].isin(["lora", "finetune"])),
        *((f"stack {name}", done["stack"] == name) for name in sorted(done["stack"].unique())),
    ]


def baseline(table: pd.DataFrame) -> dict[str, object]:
    """What a later version is held to: rows predicted, and the median error of each class in percent."""
    done = table[table["skipped"] == ""]
    medians = {
        name: round(float(done.loc[chosen, "error_pct"].abs().median()), 2)
        for name, chosen in training_classes(done)
        if chosen.any()
    }
    return {"predicted": sorted(done["id"]), "median_ape": medians}


def training_section() -> list[str]:
    """Published training runs: with each source family left out of the fit of the stacks, and with the shipped one."""
    table = pd.read_csv(MEASUREMENTS / "training_runs.csv.gz")
    own = validate_training(table, fits_for("shipped"), load_catalog())
    held = validate_left_out(table, fits_for("shipped"), load_catalog())
    keep_rows("training", held, own)
    BASELINE.write_text(json.dumps(baseline(own), indent=1) + "\n", encoding="utf-8")
    done = own[own["skipped"] == ""]
    held = held.loc[done.index]
    classes = training_classes(done)
    family = done["group"].str.split("|").str[0]
    counted = family.map(family.value_counts()) >= 4
    rows = [_training_row(name, held[chosen], done[chosen]) for name, chosen in classes]
    rows.append(
        _macro("mean over sources of four runs and more", held[counted], done[counted], family[counted])
    )
    reasons = Counter(own.loc[own["skipped"] != "", "skipped"])
    told = "; ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none skipped"
    return [
        f"{len(done)} of {len(own)} published runs are predicted ({told}). Kernels and messages come from their own",
        "measurements; one constant for each stack, generation and number format, dense models and mixtures of",
        "experts apart (`kernel_factor`), is fitted to these runs. Held out means that all runs of the same source",
        "family were left out of that fit. What a row leaves unsaid takes its stack's default and is named in the",
        "column `assumed` of `rackcast validate training`. The rival, in brackets, is FLOP over peak and one constant",
        "utilisation for each of the same groups, fitted to the same runs and held out in the same way. Row by row:",
        "scenarios/validation/training.csv.gz.",
        "",
        "| class | rows | held out: median | p90 | bias | own rows: median | p90 | bias |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *rows,
        "",
        "Share of runs inside the 80 % interval that the answer gives. The interval holds the errors of kernels and",
        "messages and a spread between sources, one for dense models and one for mixtures of experts, chosen so that",
        "80 % lie inside when their source is left out, each source counting as the square root of its runs.",
        "",
        "| class | rows | held out | own rows |",
        "|---|--:|--:|--:|",
        *(
            f"| {name} | {chosen.sum()} | {format_percent(_inside(held[chosen]))} "
            f"| {format_percent(_inside(done[chosen]))} |"
            for name, chosen in classes
        ),
        "",
    ]


def _training_row(name: str, held: pd.DataFrame, own: pd.DataFrame) -> str:
    cells = [
        cell
        for table in (held, own)
        for cell in (
            *(_with_rival(table, quantile, digits) for quantile, digits in ((0.5, 1), (0.9, 0))),
            f"{100 * np.expm1(np.log1p(table['error_pct'] / 100).mean()):+.1f}",
        )
    ]
    return f"| {name} | {len(own):,} | {' | '.join(cells)} |"


def _with_rival(table: pd.DataFrame, quantile: float, digits: int) -> str:
    ours, rival = (ape.quantile(quantile) for ape in _both_errors(table))
    return f"{ours:.{digits}f} ({rival:.{digits}f})"


def _both_errors(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Absolute errors in percent: ours, and of one constant utilisation a group."""
    return table["error_pct"].abs(), 100 * (table["constant_s"] / table["step_time_s"] - 1).abs()


def _inside(table: pd.DataFrame) -> float:
    return float(table["step_time_s"].between(table["low_s"], table["high_s"]).mean())


def _macro(name: str, held: pd.DataFrame, own: pd.DataFrame, family: pd.Series) -> str:
    cells = []
    for table in (held, own):
        for quantile, digits in ((0.5, 1), (0.9, 0)):
            means = [ape.groupby(family).quantile(quantile).mean() for ape in _both_errors(table)]
            cells.append(f"{means[0]:.{digits}f} ({means[1]:.{digits}f})")
        cells.append("")
    return f"| {name} | {len(held):,} | {' | '.join(cells)} |"


def constants_section() -> list[str]:
    """How many constants of which kind stand behind the predictions."""
    lines = [
        "| profile | entries | fitted | assumed | measured or datasheet | grid numbers |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    total: Counter[str] = Counter()
    for profile in shipped():
        kinds = Counter(constant.kind for fit in profile.fits for constant in fit.parameters.values())
        grid = sum(fit.grid.numbers for fit in profile.fits if fit.grid is not None)
        total += kinds
        total["grid"] += grid
        other = kinds["measured"] + kinds["datasheet"]
        lines.append(
            f"| {profile.name} | {len(profile.fits)} | {kinds['fitted']} | {kinds['assumed']} | {other} | {grid} |"
        )
    return [
        f"The shipped profiles hold **{total['fitted']:,} fitted constants** ({total['assumed']:,} more are assumed, "
        f"at the starting values of the cost functions) and {total['grid']:,} numbers of residual grids.",
        "",
        *lines,
        "",
    ]


SECTIONS: dict[str, tuple[str, str, Callable[[], list[str]]]] = {
    "gemm": ("Matrix products", "Five folds by shape.", lambda: kernel_section("gemm")),
    "attention": ("Attention", "Five folds by shape.", lambda: kernel_section("attention")),
    "memory_bound": ("Memory-bound kernels", "Five folds by shape.", lambda: kernel_section("memory_bound")),
    "moe": ("Experts", "Five folds by shape.", lambda: kernel_section("moe")),
    "collectives": ("Collectives", "Each system left out of the fit in turn.", collective_section),
    "training": ("Training steps", "Source families left out in turn.", training_section),
    "costs": ("Costs", "Published figures beside the planner's.", costs_section),
    "constants": ("Constants", "", constants_section),
}
PREFACE = """# Validation

Predicted against measured, absolute errors in percent. Written by `python -m benchmarks.accuracy` from the tables
under scenarios/measurements; run it again to check a figure. Own rows are what the profile was fitted to: they show how
closely it describes them; the held-out columns, how far to believe it."""


def main(wanted: list[str]) -> int:
    """Write docs/validation.md; only the named sections anew where some are named."""
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        sys.stderr.write(f"unknown section {', '.join(unknown)}; expected {', '.join(SECTIONS)}\n")
        return 2
    kept = {}
    if wanted and OUT.exists():
        for part in OUT.read_text(encoding="utf-8").split("\n## ")[1:]:
            title, _, body = part.partition("\n")
            kept[title] = body.strip("\n")
    parts = [PREFACE]
    for name, (title, how, section) in SECTIONS.items():
        if wanted and name not in wanted and title in kept:
            body = kept[title]
        else:
            sys.stderr.write(f"{title} ...\n")
            body = "\n".join([how, "", *section()] if how else section()).strip("\n")
        parts.append(f"## {title}\n\n{body.strip()}")
    OUT.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
