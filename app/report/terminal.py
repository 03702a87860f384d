"""Tables for the terminal: the answer first, then why, then where the numbers come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from app.report.console import plain_table, screen
from sim.units import format_bytes, format_count, format_flop_per_s, format_percent, format_seconds

LEAST_SHARE_FRAC = 0.005
"""A share of the variance that rounds to nothing is not worth a measurement."""
WRITTEN_OUT = "written in the scenario"
"""Name of a system that the catalogue does not have."""


def print_step(document: dict[str, Any], console: Console | None = None) -> None:
    """The answer of one training step."""
    out = console or screen()
    scenario = document["scenario"]
    out.print(f"[bold]{scenario['name']}[/bold]", highlight=False)
    if scenario["shows"]:
        out.print(scenario["shows"], style="dim", highlight=False)
    machines = machine_words(document)
    out.print(f"{machines}; {plan_words(document)}", highlight=False)
    out.print()
    for table in _tables(document):
        out.print(table)
        out.print()
    out.print(
        f"seed {scenario['seed']}  scenario {scenario['hash']}  rackcast {document['rackcast']}",
        style="dim",
        highlight=False,
    )
    if document.get("not_tried"):
        out.print(not_tried_words(document), style="dim", highlight=False)
    if not document["memory"]["fits"]:
        out.print(f"[bold red]Does not fit.[/bold red] {fit_words(document)}", highlight=False)


def _tables(document: dict[str, Any]) -> Iterator[Table]:
    """The answer, what to do about it, why, and where the numbers come from: in this order, what there is of each."""
    yield _headline(document)
    if document["published"]:
        yield _published(document)
    if document.get("fit_changes"):
        yield _fit_changes(document)
    if document.get("run"):
        yield _run(document["run"])
    if document.get("pools"):
        yield _pools(document)
    yield _parts(document)
    if leading_inputs(document):
        yield _inputs(document)
    if document.get("suggestions"):
        yield _suggestions(document)
    if document["memory"]["ranks"]:
        yield _memory(document)
    if document["kernels"]:
        yield from _kernels(document)


def machine_words(document: dict[str, Any]) -> str:
    """How many devices, what they are and what they sit in."""
    if document.get("pools"):
        each = ", ".join(
            f"{row['devices']:,} {row['accelerator']} in {row['nodes']:,} x {row['system']}"
            for row in document["pools"]
        )
        return f"{document['cluster']['devices']:,} devices: {each}"
    cluster = document["cluster"]
    inside = f"{cluster['nodes']:,} x {cluster['system']}"
    if cluster["system"] == WRITTEN_OUT:
        inside = f"{cluster['nodes']:,} node{'s' if cluster['nodes'] != 1 else ''}"
    return f"{cluster['devices']:,} x {cluster['accelerator']} in {inside}"


def has_tokens(document: dict[str, Any]) -> bool:
    """Whether samples are sequences, so that tokens are the better count."""
    return bool(document["tokens_per_s"] > document["samples_per_s"])


def plan_words(document: dict[str, Any]) -> str:
    """The plan in one line."""
    plan = document["plan"]
    words = [f"tensor {plan['tensor']}", f"pipeline {plan['pipeline']}", f"data {document['plan']['data']}"]
    words += [f"{name} {plan[name]}" for name in ("context", "expert") if plan[name] > 1]
    if plan["virtual_stages"] > 1:
        words.append(f"{plan['virtual_stages']} virtual stages")
    words.append(f"micro-batch {plan['micro_batch']} x {plan['micro_batches']}")
    words.append(f"recompute {plan['recompute']}")
    if plan["zero_stage"]:
        words.append(f"ZeRO {plan['zero_stage']}")
    if document.get("tasks"):
        each = (f"{row['samples']:,} samples of {row['name']} ({row['model']})" for row in document["tasks"])
        words.append(" + ".join(each))
    return ", ".join(words)


def fit_words(document: dict[str, Any]) -> str:
    """What binds memory, in one sentence."""
    memory = document["memory"]
    return (
        f"{rank_words(memory)} needs {format_bytes(memory['worst_total_bytes'])} a device where "
        f"{format_bytes(memory['usable_bytes'])} of {format_bytes(memory['capacity_bytes'])} are usable; the largest "
        f"part is {memory['binding_part']}. {change_words(document)}"
    ).rstrip()


def rank_words(memory: dict[str, Any]) -> str:
    """The fullest rank, and its pool where there are several."""
    where = f" (pool {memory['worst_pool']})" if memory["worst_pool"] else ""
    return f"Pipeline rank {memory['worst_rank']}{where}"


def work_words(row: dict[str, Any]) -> str:
    """What a pool got: layers of a stage, or samples."""
    if len(row["stages"]) and row["samples_share_frac"] == 1:
        return f"{', '.join(map(str, row['layers']))} layers"
    return f"{row['samples']:,} samples"


def share_words(frac: float) -> str:
    """A share of a whole with one decimal; what rounds to nothing is said to be small."""
    return "< 0.1 %" if 0 < frac < 5e-4 else format_percent(frac, 1)


def change_words(document: dict[str, Any]) -> str:
    """The change that makes a plan fit, or that none was found; empty where none was looked for."""
    if "fit_changes" not in document:
        return ""
    if not document["fit_changes"]:
        return "No one or two changes of the plan make it fit: it needs more devices or larger ones."
    best = document["fit_changes"][0]
    cost = f", {format_seconds(best['step_time_s'], 4)} a step" if best["step_time_s"] is not None else ""
    return f"It fits with {best['words']} ({format_bytes(best['memory_bytes'])}{cost}): {best['set']}"


def interval_words(document: dict[str, Any]) -> str:
    """The 80 % interval of the step time; empty where nothing is unsure."""
    interval = document.get("interval")
    if not interval or interval["low_s"] == interval["high_s"]:
        return ""
    low, high = format_seconds(interval["low_s"]), format_seconds(interval["high_s"])
    unit = high.rpartition(" ")[2]
    return f"{low.removesuffix(' ' + unit)} - {high}"


def measure_words(document: dict[str, Any]) -> str:
    """The calibrations that would narrow the interval most, with their share of its variance; empty without any."""
    interval = document.get("interval") or {}
    worth = [one for one in interval.get("measure", []) if one["variance_frac"] >= LEAST_SHARE_FRAC]
    parts = ", ".join(f"{one['part']} ({format_percent(one['variance_frac'])})" for one in worth)
    return f"{parts}   [dim]{interval['measure_command']}[/dim]" if parts else ""


def leading_inputs(document: dict[str, Any], count: int = 3) -> list[dict[str, Any]]:
    """The inputs that move the step time most, of those that move it at all."""
    rows = [row for row in document.get("sensitivities", []) if row["change_frac"] < -5e-4]
    return rows[:count]


def not_tried_words(document: dict[str, Any]) -> str:
    """What was left out to stay quick."""
    count = document["not_tried"]
    return f"{count} further change{'s' if count != 1 else ''} of plan or inputs not tried: it would take too long."


def _headline(document: dict[str, Any]) -> Table:
    table = plain_table("", "", text=("",))
    memory = document["memory"]
    if not memory["fits"]:
        asked, usable = format_bytes(memory["worst_total_bytes"]), format_bytes(memory["usable_bytes"])
        table.add_row("memory", f"[bold red]does not fit[/bold red]: {asked} a device of {usable} usable")
    table.add_row(
        "step time", f"[bold]{format_seconds(document['step_time_s'], 4)}[/bold]{_sureness(document)}"
    )
    if worth := measure_words(document):
        table.add_row("to narrow it", worth)
    table.add_row("bound by", document["bound_by"])
    unit = "tokens" if has_tokens(document) else "samples"
    table.add_row("throughput", f"{format_count(document[f'{unit}_per_s'])} {unit}/s")
    for row in document["utilisation"]:
        rate = format_flop_per_s(row["flop_per_s_per_device"])
        told = f"{format_percent(row['frac'], 1)}   {rate} a device   [dim]{row['convention']}[/dim]"
        table.add_row(row["name"], told)
    return table


def _sureness(document: dict[str, Any]) -> str:
    words = interval_words(document)
    return f" ({words})   [dim]80 % interval from the calibration's own error[/dim]" if words else ""


def _fit_changes(document: dict[str, Any]) -> Table:
    table = plain_table(
        "what makes it fit",
        "memory",
        "devices",
        "step time",
        "on the command line",
        text=("on the command line",),
    )
    for row in document["fit_changes"]:
        seconds = row["step_time_s"]
        table.add_row(
            row["words"],
            format_bytes(row["memory_bytes"]),
            f"{row['devices']:,}",
            "" if seconds is None else format_seconds(seconds, 4),
            row["set"],
        )
    return table


def _suggestions(document: dict[str, Any]) -> Table:
    table = plain_table(
        "what would gain", "step time", "gain", "on the command line", text=("on the command line",)
    )
    for row in document["suggestions"]:
        seconds = format_seconds(row["step_time_s"], 4)
        table.add_row(row["words"], seconds, share_words(row["gain_frac"]), row["set"])
    return table


def _inputs(document: dict[str, Any]) -> Table:
    table = plain_table("what matters most, 10 % better", "step time")
    for row in leading_inputs(document):
        table.add_row(row["words"], f"{100 * row['change_frac']:+.1f} %")
    return table


def _run(run: dict[str, Any]) -> Table:
    table = plain_table(f"run of {run['steps']:,} steps", "time", "share")
    if run["wall_s"] is None:
        table.add_row("never ends: failures undo work faster than it is done", "", "")
        return table
    for row in run["phases"]:
        if row["seconds"] > 0:
            table.add_row(row["words"], format_seconds(row["seconds"]), share_words(row["share_frac"]))
    for row in run["protection"]:
        table.add_row(
            f"  of it {row['words']}", format_seconds(row["seconds"]), share_words(row["share_frac"])
        )
    table.add_row("whole run", format_seconds(run["wall_s"]), "")
    table.add_row("goodput", "", share_words(run["goodput_frac"]))
    if run["checkpoint_bytes"]:
        size, write = format_bytes(run["checkpoint_bytes"]), format_seconds(run["checkpoint_write_s"])
        table.add_row(f"one checkpoint: {size}", write, "")
    return table


def _pools(document: dict[str, Any]) -> Table:
    table = plain_table("pool", "devices", "got", "busy", "MFU", "memory of a device", "", text=("",))
    for row in document["pools"]:
        table.add_row(
            row["pool"],
            f"{row['devices']:,}",
            work_words(row),
            share_words(row["busy_frac"]),
            "" if row["mfu_frac"] is None else share_words(row["mfu_frac"]),
            "" if row["memory_bytes"] is None else format_bytes(row["memory_bytes"]),
            "" if row["fits"] else "does not fit",
        )
    return table


def _published(document: dict[str, Any]) -> Table:
    table = plain_table("measured", "predicted", "error", "source", text=("source",))
    for row in document["published"]:
        table.add_row(
            format_seconds(row["measured_s"], 4),
            format_seconds(row["predicted_s"], 4),
            f"{row['error_pct']:+.1f} %",
            row["source"],
        )
    return table


def _parts(document: dict[str, Any]) -> Table:
    table = plain_table("where the time goes", "time", "share")
    for part in document["parts"]:
        if part["seconds"] > 0:
            table.add_row(part["words"], format_seconds(part["seconds"]), share_words(part["share_frac"]))
    return table


def _memory(document: dict[str, Any]) -> Table:
    memory = document["memory"]
    worst = next(rank for rank in memory["ranks"] if rank["rank"] == memory["worst_rank"])
    table = plain_table(f"memory of a device, rank {worst['rank']} (the fullest)", "bytes", "share")
    for name, size in worst["parts_bytes"].items():
        table.add_row(name, format_bytes(size), share_words(size / memory["capacity_bytes"]))
    table.add_row(
        "total",
        format_bytes(worst["total_bytes"]),
        share_words(worst["total_bytes"] / memory["capacity_bytes"]),
    )
    return table


def _kernels(document: dict[str, Any], count: int = 8) -> Iterator[Table]:
    """The costliest ops, and what their efficiencies lean on: each calibration once, by number."""
    shown = sorted(document["kernels"], key=lambda row: -row["seconds"])[:count]
    legend = list(dict.fromkeys(calibration_words(row) for row in shown))
    table = plain_table("costliest ops", "time", "efficiency", "error of the fit", "leans on")
    for row in shown:
        error = row["median_error_pct"]
        table.add_row(
            row["name"],
            format_seconds(row["seconds"]),
            "" if row["efficiency_frac"] is None else format_percent(row["efficiency_frac"]),
            "" if error is None else f"{error:.1f} %",
            str(1 + legend.index(calibration_words(row))),
        )
    yield table
    sources = plain_table("leans on", "", text=("",))
    for number, words in enumerate(legend, 1):
        sources.add_row(str(number), words)
    yield sources


def calibration_words(row: dict[str, Any]) -> str:
    """Which calibration an op leans on, in a few words."""
    key = row["calibration"] or {}
    where = key.get("accelerator") or key.get("generation") or ""
    return " ".join(
        word
        for word in (
            row["leans_on"],
            f"({where} {key.get('engine', '')})".replace(" )", ")") if where else "",
        )
        if word
    )
