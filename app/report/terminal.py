"""Tables for the terminal: the answer first, then why, then where the numbers come from."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from sim.units import format_bytes, format_count, format_flop_per_s, format_fraction, format_seconds


def print_step(document: dict[str, Any], console: Console | None = None) -> None:
    """The answer of one training step."""
    out = console or Console()
    scenario, cluster = document["scenario"], document["cluster"]
    out.print(f"[bold]{scenario['name']}[/bold]", highlight=False)
    if scenario["shows"]:
        out.print(scenario["shows"], style="dim", highlight=False)
    machines = (
        f"{cluster['devices']:,} x {cluster['accelerator']} in {cluster['nodes']:,} x {cluster['system']}"
    )
    out.print(f"{machines}; {plan_words(document)}", highlight=False)
    out.print()
    out.print(_headline(document))
    if document["published"]:
        out.print(_published(document))
    out.print(_parts(document))
    if document["memory"]["ranks"]:
        out.print(_memory(document))
    if document["kernels"]:
        out.print(_kernels(document))
    out.print(
        f"seed {scenario['seed']}  scenario {scenario['hash']}  rackcast {document['rackcast']}",
        style="dim",
        highlight=False,
    )
    if not document["memory"]["fits"]:
        out.print(f"[bold red]Does not fit.[/bold red] {fit_words(document)}", highlight=False)


def plan_words(document: dict[str, Any]) -> str:
    """The plan in one line."""
    plan = document["plan"]
    words = [f"tensor {plan['tensor']}", f"pipeline {plan['pipeline']}", f"data {document['plan']['data']}"]
    if plan["virtual_stages"] > 1:
        words.append(f"{plan['virtual_stages']} virtual stages")
    words.append(f"micro-batch {plan['micro_batch']} x {plan['micro_batches']}")
    words.append(f"recompute {plan['recompute']}")
    if plan["zero_stage"]:
        words.append(f"ZeRO {plan['zero_stage']}")
    return ", ".join(words)


def fit_words(document: dict[str, Any]) -> str:
    """What binds memory, in one sentence."""
    memory = document["memory"]
    return (
        f"Pipeline rank {memory['worst_rank']} needs {format_bytes(memory['worst_total_bytes'])} a device where "
        f"{format_bytes(memory['usable_bytes'])} of {format_bytes(memory['capacity_bytes'])} are usable; the largest "
        f"part is {memory['binding_part']}."
    )


def _headline(document: dict[str, Any]) -> Table:
    table = _table("", "")
    table.show_header = False
    table.add_row("step time", f"[bold]{format_seconds(document['step_time_s'], 4)}[/bold]")
    table.add_row("bound by", document["bound_by"])
    table.add_row("throughput", f"{format_count(document['tokens_per_s'])} tokens/s" if document["utilisation"] else
                  f"{format_count(document['samples_per_s'])} samples/s")  # fmt: skip
    for row in document["utilisation"]:
        rate = format_flop_per_s(row["flop_per_s_per_device"])
        table.add_row(row["name"], f"{row['frac']:.1%}   {rate} a device   [dim]{row['convention']}[/dim]")
    return table


def _published(document: dict[str, Any]) -> Table:
    table = _table("measured", "predicted", "error", "source", numeric=3)
    for row in document["published"]:
        table.add_row(
            format_seconds(row["measured_s"], 4),
            format_seconds(row["predicted_s"], 4),
            f"{row['error_pct']:+.1f} %",
            row["source"],
        )
    return table


def _parts(document: dict[str, Any]) -> Table:
    table = _table("where the time goes", "time", "share", numeric=2, first=1)
    for part in document["parts"]:
        if part["seconds"] > 0:
            table.add_row(part["words"], format_seconds(part["seconds"]), format_fraction(part["share_frac"]))
    return table


def _memory(document: dict[str, Any]) -> Table:
    memory = document["memory"]
    worst = next(rank for rank in memory["ranks"] if rank["rank"] == memory["worst_rank"])
    table = _table(
        f"memory of a device, rank {worst['rank']} (the fullest)", "bytes", "share", numeric=2, first=1
    )
    for name, size in worst["parts_bytes"].items():
        table.add_row(name, format_bytes(size), format_fraction(size / memory["capacity_bytes"]))
    table.add_row(
        "total",
        format_bytes(worst["total_bytes"]),
        format_fraction(worst["total_bytes"] / memory["capacity_bytes"]),
    )
    return table


def _kernels(document: dict[str, Any], count: int = 8) -> Table:
    table = _table("costliest ops", "time", "efficiency", "error of the fit", "leans on", numeric=3, first=1)
    for row in sorted(document["kernels"], key=lambda row: -row["seconds"])[:count]:
        error = row["median_error_pct"]
        table.add_row(
            row["name"],
            format_seconds(row["seconds"]),
            "" if row["efficiency_frac"] is None else f"{row['efficiency_frac']:.0%}",
            "" if error is None else f"{error:.1f} %",
            calibration_words(row),
        )
    return table


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


def _table(*columns: str, numeric: int = 0, first: int = 0) -> Table:
    """A plain table; ``numeric`` columns from position ``first`` on are right-aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left", header_style="dim")
    for place, name in enumerate(columns):
        table.add_column(
            name, justify="right" if first <= place < first + numeric else "left", overflow="fold"
        )
    table.add_section()
    return table
