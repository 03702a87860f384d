"""The files of a plan: report, tables, every world, and the scenario as it was run.

All or nothing: each file is written beside its place and moved there whole, so a full disk never leaves half a report.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from app.report.plan_html import plan_report, tables
from app.report.plan_markdown import markdown
from sim.planning.capacity.plan import Plan
from sim.results.files import write_files

EPOCH = datetime.fromtimestamp(946_684_800, UTC).replace(tzinfo=None)
"""Date in the workbook's properties: the same answer is the same file."""


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
        "scenario.lock.toml": _lock(document, _with_weeks(locked, made)).encode(),
    }
    whole = {folder / name: content for name, content in contents.items()}
    write_files(whole)
    return list(whole)


def _workbook(document: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="xlsxwriter", engine_kwargs={"options": {"in_memory": True}}) as book:
        book.book.set_properties({"created": EPOCH, "title": document["scenario"]["name"]})
        for name, rows in tables(document).items():
            if not rows:
                continue
            frame = pd.DataFrame(rows)
            frame.to_excel(book, sheet_name=name, index=False, freeze_panes=(1, 0))
            for place, column in enumerate(frame.columns):
                if (style := _number_format(str(column), name)) is not None:
                    book.sheets[name].set_column(
                        place, place, None, book.book.add_format({"num_format": style})
                    )
            book.sheets[name].autofit()
    return buffer.getvalue()


def _number_format(column: str, sheet: str) -> str | None:
    """How a spreadsheet shows a column: small sums to the cent, large ones whole; shares in percent."""
    if "usd_per" in column or sheet == "unit costs":
        return "#,##0.00"
    if column in ("in_time", "first_in", "confidence", "chance") or column.rpartition("_")[2] == "frac":
        return "0.0%"
    if sheet == "assumptions" or column in ("regret", "trigger") or column.endswith("_s"):
        return "#,##0.###"
    return "#,##0"


def _with_weeks(locked: dict[str, Any], made: Plan) -> dict[str, Any]:
    """The scenario's tables with each history replaced by the weeks that were read from it."""
    for table, programme in zip(locked["demand"]["programmes"], made.demand.programmes, strict=True):
        if "history" in table:
            del table["history"]
            table["week_device_hours"] = list(programme.week_device_hours)
    return locked


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
