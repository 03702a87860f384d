"""The files of a plan: report, tables, every world, and the scenario as it was run.

All or nothing: each file is written beside its place and moved there whole, so a full disk never leaves half a report.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from app.report.plan_html import plan_report, tables
from app.report.plan_markdown import markdown
from sim.planning.capacity.plan import Plan


def write(folder: Path, document: dict[str, Any], made: Plan, locked: dict[str, Any]) -> list[Path]:
    """Write every file into ``folder`` and return their paths.

    Raises:
        OSError: the folder cannot be written; what was there before is whole.
    """
    contents = {
        "report.html": plan_report(document).encode(),
        "report.md": markdown(document).encode(),
        "tables.xlsx": _workbook(document),
        "results.parquet": _worlds(made),
        "scenario.lock.toml": _lock(document, locked).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    beside = {name: folder / f".{name}.part" for name in contents}
    try:
        for name, content in contents.items():
            beside[name].write_bytes(content)
        for name, part in beside.items():
            part.replace(folder / name)
    finally:
        for part in beside.values():
            part.unlink(missing_ok=True)
    return [folder / name for name in contents]


def _workbook(document: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="xlsxwriter") as book:
        for name, rows in tables(document).items():
            pd.DataFrame(rows).to_excel(book, sheet_name=name, index=False, freeze_panes=(1, 0))
            book.sheets[name].autofit()
    return buffer.getvalue()


def _worlds(made: Plan) -> bytes:
    """One row for each option in each world."""
    frames = [
        pd.DataFrame(
            {
                "option": found.candidate.name,
                "world": range(len(found.loss_usd)),
                "cost_usd": found.cost_usd,
                "penalty_usd": found.penalty_usd,
                "useful_device_hours": found.waterfall()["useful"],
                **{
                    f"finished_month {served.need.programme.name}": served.finished
                    for served in found.served
                    if served.need.deadline is not None
                },
            }
        )
        for found in made.evaluations
    ]
    buffer = io.BytesIO()
    pd.concat(frames).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _lock(document: dict[str, Any], locked: dict[str, Any]) -> str:
    scenario = document["scenario"]
    head = (
        f"# The scenario as it was run, changes included: rackcast {document['rackcast']}, "
        f"content {scenario['hash']}, seed {document['seed']}.\n"
    )
    return head + tomli_w.dumps(locked)
