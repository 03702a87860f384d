"""Slurm's rules of the house: ``sacctmgr show qos`` and ``sacctmgr show assoc`` as quotas.

Source: Slurm's sacctmgr manual and resource_limits page. A bound on GPUs is ``gres/gpu=N`` of GrpTRES (all its jobs
together) and of MaxTRESPU (one user).
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.importers.imported import Parts, Quota, Tally
from sim.importers.moments import amount, span
from sim.importers.slurm_table import Row, rows
from sim.importers.sources import Source
from sim.importers.tres import parse_tres

_KNOWN = ("NAME", "ACCOUNT", "GRPTRES", "SHARE", "FAIRSHARE")
_RULES = (
    "PREEMPT", "PREEMPTMODE", "GRACETIME", "FLAGS", "USAGEFACTOR", "GRPTRESMINS", "GRPJOBS", "GRPSUBMIT", "MAXTRES",
    "MAXTRESPERNODE", "MAXJOBSPU", "MAXSUBMITPU", "MAXTRESPA", "MAXJOBS", "MAXSUBMIT", "QOS", "DEFQOS", "DEF QOS",
    "MINTRES",
)  # fmt: skip


def read_sacctmgr(sources: Sequence[Source], tally: Tally, columns: Sequence[str] = ()) -> Parts:
    """Quotas of QOS lines (Name column) and association lines (Account column), in any order of columns."""
    parts = Parts()
    for source in sources:
        for row in rows(source, tally, _KNOWN, columns):
            quota = _association(row) if "ACCOUNT" in row.cells else _qos(row)
            if quota is None:
                tally.skip("line names no QOS and no account", row.place)
            else:
                parts.quotas.append(quota)
    return parts


def _qos(row: Row) -> Quota | None:
    return _quota(row, row["NAME"], "qos", "") if row["NAME"] else None


def _association(row: Row) -> Quota | None:
    account, user = row["ACCOUNT"], row["USER"]
    if not account:
        return None
    if user:
        place = f"{user}@{row['PARTITION']}" if row["PARTITION"] else user
        return _quota(row, place, "association", account)
    return _quota(row, account, "account", row.first("PARENTNAME", "PAR NAME", "PARENT"))


def _quota(row: Row, name: str, kind: str, parent: str) -> Quota:
    group, user = row["GRPTRES"], row.first("MAXTRESPU", "MAXTRESPERUSER")
    weight = amount(row.first("SHARE", "FAIRSHARE", "RAWSHARES"))
    return Quota(
        name=name,
        kind=kind,
        parent=parent,
        ceiling_gpus=_gpus(group),
        user_ceiling_gpus=_gpus(user),
        weight=1.0 if weight is None else weight,
        priority=amount(row["PRIORITY"]) or 0.0,
        limit_s=span(row["MAXWALL"]) if row["MAXWALL"] else None,
        rules={column.lower(): row[column] for column in _RULES if row[column]},
    )


def _gpus(text: str) -> float | None:
    """The bound on GPUs, typed ones added up; none where the list has none (``gres/gpu=0`` is a bound)."""
    return float(parse_tres(text).gpus) if "gres/gpu" in text else None
