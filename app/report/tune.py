"""A search for a plan on the terminal: the best plans, the front, what was turned away and why."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from app.report import figures
from app.report.console import plain_table, screen
from app.report.html import page
from sim.units import format_bytes, format_count, format_seconds

SHORT = {
    "data": "dp",
    "tensor": "tp",
    "pipeline": "pp",
    "context": "cp",
    "expert": "ep",
    "micro_batch": "mbs",
    "virtual_stages": "vp",
}
"""Degrees by the names people say."""


def print_tuning(document: dict[str, Any]) -> None:
    """What was found; where the closed form ranks otherwise than the simulation, both are shown.

    With a launch text to export, that alone is on standard output and all else on standard error.
    """
    console = screen(aside="export" in document)
    console.print(f"[bold]{document['scenario']}[/bold]")
    console.print(f"{document['searched']:,} plans searched, {document['fitting']:,} fit in memory")
    if document["plans"]:
        console.print(_plans(document["plans"], "best plans, simulated", document["unit"]))
        if document["order_differs"]:
            console.print(
                "The closed form ranks them otherwise (last column); the simulation stands.", style="dim"
            )
        console.print(f"\n{document['command']}\n", markup=False, soft_wrap=True)
        console.print(
            _plans(document["pareto"], "front of speed, memory to spare and devices", document["unit"])
        )
    if document["near_misses"]:
        console.print(_near(document["near_misses"]))
    if document.get("smallest"):
        console.print(_smallest(document["smallest"]))
    for row in document["rejected"]:
        console.print(f"{row['plans']:,} not: {row['reason']}", style="dim", markup=False)
    if "export" in document:
        _export(console, document["export"])


def tuning_report(document: dict[str, Any]) -> str:
    """The search as one HTML file that opens offline."""
    front = document["pareto"]
    chart = figures.pareto(front, [plan_words(row) for row in front], document["unit"]) if front else None
    return page("tune.html", chart, document=document, words=plan_words)


def plan_words(row: dict[str, Any]) -> str:
    """A plan in one line."""
    plan = row["plan"]
    words = [
        f"{short}{plan[name]}"
        for name, short in SHORT.items()
        if plan[name] > 1 or name in ("data", "tensor")
    ]
    words += [f"ZeRO {plan['zero_stage']}"] * (plan["zero_stage"] > 0)
    words += [plan["schedule"]] * (plan["pipeline"] > 1)
    words += [f"recompute {plan['recompute']}"] * (plan["recompute"] != "none")
    words += ["sequence parallel"] * plan["sequence_parallel"] + ["off-loaded"] * plan["offload_optimizer"]
    return " ".join(words)


def _plans(rows: list[dict[str, Any]], title: str, unit: str) -> Table:
    several = len({(row["devices"], row["global_batch"]) for row in rows}) > 1
    ranked = "closed_form_rank" in rows[0]
    columns = (title, *(("devices", "batch") if several else ()), "step time", f"{unit}/s a device", "memory",
               "closed form", *(("its rank",) if ranked else ()))  # fmt: skip
    table = plain_table(*columns)
    for row in rows:
        closed = row["closed_form_s"]
        table.add_row(
            plan_words(row),
            *((f"{row['devices']:,}", f"{row['global_batch']:,}") if several else ()),
            format_seconds(row["step_time_s"], 4),
            format_count(row["tokens_per_s_per_device"]),
            format_bytes(row["memory_bytes"]),
            "none" if closed is None else format_seconds(closed, 4),
            *((str(row["closed_form_rank"]),) if ranked else ()),
        )
    return table


def _near(rows: list[dict[str, Any]]) -> Table:
    columns = ("faster, but short of memory", "step time (closed form)", "too much", "largest part")
    table = plain_table(*columns, text=columns[-1:])
    for row in rows:
        seconds, excess = format_seconds(row["closed_form_s"], 4), format_bytes(row["excess_bytes"])
        table.add_row(plan_words(row), seconds, excess, row["binding_part"])
    return table


def _smallest(row: dict[str, Any]) -> str:
    short = f"needs {format_bytes(row['excess_bytes'])} more than there is; the largest part is {row['binding_part']}"
    more = row["nodes_that_fit"]
    change = (
        f"A plan fits on {more:,} nodes (--set cluster.pools.0.nodes={more})."
        if more
        else "Nor up to 16 times the nodes."
    )
    return f"No plan fits. The smallest, {plan_words(row)}, {short}. {change}"


def _export(console: Console, export: dict[str, Any]) -> None:
    for line in export["missing"]:
        console.print(f"{export['framework']} has no argument for {line}", style="yellow", markup=False)
    console.print(f"\nfor {export['framework']}:", style="dim")
    content = export["content"]
    text = " \\\n  ".join(content) if isinstance(content, list) else json.dumps(content, indent=2)
    screen().print(text, markup=False, soft_wrap=True)
