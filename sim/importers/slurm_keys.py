"""``Key=Value`` text of Slurm: ``scontrol show node|partition|job|config``, slurm.conf and gres.conf.

One grammar serves all: a record starts with NodeName, PartitionName, NodeSet, JobId or Name and runs to the next, over
lines or on one. Sources: Slurm's scontrol, slurm.conf and gres.conf manuals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sim.importers import hosts
from sim.importers.imported import Node, Parts, Quota, Tally
from sim.importers.making_jobs import once_each
from sim.importers.moments import amount, span
from sim.importers.slurm_jobs import gangs, job_from
from sim.importers.slurm_nodes import need_nodes, nodes_from_keys, one_each
from sim.importers.slurm_table import Row
from sim.importers.sources import Source
from sim.importers.tres import parse_tres
from sim.spec.job import Job

_STARTS = ("nodename", "partitionname", "nodeset", "jobid", "reservationname")
_SETTINGS = re.compile(
    r"priority\w+|scheduler(type|parameters)|selecttype\w*|preempt\w+|clustername|topology\w+|accountingstorageenforce|"
    r"default\w*time|killwait|overtimelimit|requeuexit|jobrequeue|suspendtime|resumetimeout|slurm_version",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Keys:
    """One record, keys in lower case."""

    place: str
    kind: str
    """Its first key."""
    values: Mapping[str, str]


def read_keys(sources: Sequence[Source], tally: Tally) -> Parts:
    """Nodes, partitions (as quotas), jobs and scheduler settings of any mix of such files.

    Raises:
        ScenarioError: nothing of the kind in any file.
    """
    parts = Parts()
    found: list[tuple[str, Job]] = []
    devices: dict[str, list[tuple[str, int]]] = {}
    members: dict[str, list[str]] = {}
    sets: dict[str, list[str]] = {}
    defaults: dict[str, dict[str, str]] = {"nodename": {}, "partitionname": {}}
    for source in sources:
        for record in _records(source, parts.settings, tally):
            tally.records += 1
            values = defaults.get(record.kind, {}) | dict(record.values)
            name = values.get(record.kind, "")
            if name.upper() == "DEFAULT" and record.kind in defaults:
                defaults[record.kind] = values
            elif "name" in values and record.kind in ("nodename", "name"):
                _gres_line(values, record.place, devices, tally)
            elif record.kind == "nodename":
                parts.nodes += nodes_from_keys(values, record.place, tally)
            elif record.kind == "nodeset":
                sets[name] = _hosts(values.get("nodes", ""), record.place, tally)
            elif record.kind == "partitionname":
                parts.quotas.append(_partition(values))
                members[name] = _hosts(values.get("nodes", ""), record.place, tally)
            elif record.kind == "jobid":
                found += [(record.place, job) for job in _job(record, tally)]
            else:
                tally.skip(f"{record.kind} is not used", record.place)
    parts.nodes = one_each(_placed(_equipped(parts.nodes, devices, tally), members, sets), tally)
    parts.jobs = gangs(once_each(found, tally), tally)
    return need_nodes(parts, sources)


def _records(source: Source, settings: dict[str, str], tally: Tally) -> Iterator[Keys]:
    """Records in order; single settings go to ``settings``."""
    held: dict[str, str] = {}
    since, kind, carried = 0, "", ""
    for number, raw in source.lines():
        line = carried + re.sub(r"(^|\s)#(?!\d+ SMP).*", "", raw).strip()  # a kernel's name holds "#1 SMP"
        if line.endswith("\\"):
            carried = line[:-1] + " "
            continue
        carried = ""
        if not line:
            continue
        if line.lower().startswith("include "):
            tally.note("include is not followed: give that file too", source.place(number))
            continue
        if single := re.fullmatch(r"(\w+)\s*=\s*(.*)", line) if not _pairs(line)[1:] else None:
            key = single[1].lower()
            if key not in (*_STARTS, "name") and not held:
                if _SETTINGS.fullmatch(key):
                    settings[single[1]] = single[2].strip()
                continue
        for position, (key, value) in enumerate(_pairs(line)):
            if key in _STARTS or (key == "name" and not position):
                if held:
                    yield Keys(source.place(since), kind, held)
                held, since, kind = {}, number, key
            if kind:
                held.setdefault(key, value)
    if held:
        yield Keys(source.place(since), kind, held)


def _pairs(line: str) -> list[tuple[str, str]]:
    """``Key=Value`` words; a value runs to the next key, so that ``OS=Linux 4.18 #1`` keeps its spaces."""
    cuts = list(re.finditer(r"(?:^|\s)([A-Za-z][\w:/.-]*)=", line))
    ends = [*(cut.start() for cut in cuts[1:]), len(line)][: len(cuts)]
    return [(cut[1].lower(), line[cut.end() : end].strip()) for cut, end in zip(cuts, ends, strict=True)]


def _hosts(text: str, place: str, tally: Tally) -> list[str]:
    try:
        return hosts.expand(text) if text not in ("ALL", "(null)") else [text]
    except ValueError as fault:
        tally.note(f"node list is not readable: {fault}", place)
        return []


def _partition(values: Mapping[str, str]) -> Quota:
    tres = parse_tres(values.get("tres", ""))
    words = (
        "state",
        "preemptmode",
        "maxnodes",
        "qos",
        "allowaccounts",
        "allowqos",
        "overtimelimit",
        "gracetime",
    )
    return Quota(
        name=values["partitionname"],
        kind="partition",
        ceiling_gpus=float(tres.gpus) if tres.gpus else None,
        priority=amount(values.get("prioritytier", values.get("priority", "0"))) or 0.0,
        limit_s=span(values.get("maxtime", "")),
        rules={word: values[word] for word in words if values.get(word, "") not in ("", "(null)", "N/A")},
    )


def _job(record: Keys, tally: Tally) -> list[Job]:
    cells = {key.upper(): value for key, value in record.values.items()}
    name = cells.get("JOBID", "")
    if "ARRAYJOBID" in cells and "ARRAYTASKID" in cells:
        task = cells["ARRAYTASKID"]
        name = f"{cells['ARRAYJOBID']}_{task if task.isdigit() else f'[{task}]'}"
    if "HETJOBOFFSET" in cells:
        name = f"{cells.get('HETJOBID', name)}+{cells['HETJOBOFFSET']}"
    cells["STATE"] = cells.get("JOBSTATE", "")
    return job_from(Row(record.place, cells), name, tally)


def _gres_line(
    values: Mapping[str, str], place: str, devices: dict[str, list[tuple[str, int]]], tally: Tally
) -> None:
    """A gres.conf line; its devices are those of ``File``, or ``Count`` of them."""
    if values["name"] != "gpu":
        tally.skip("resource that is no GPU", place)
        return
    files = values.get("file", "")
    try:
        count = (
            len(hosts.expand(files))
            if files and files != "(null)"
            else int(amount(values.get("count", "1")) or 1)
        )
        names = hosts.expand(values.get("nodename", "")) or ["*"]
    except ValueError as fault:
        tally.skip(f"line is not readable: {fault}", place)
        return
    for name in names:
        devices.setdefault(name, []).append((values.get("type", ""), count))


def _equipped(
    nodes: Sequence[Node], devices: Mapping[str, list[tuple[str, int]]], tally: Tally
) -> list[Node]:
    """Nodes with the devices of gres.conf where slurm.conf has none; nodes of gres.conf alone are added."""
    known = {node.name for node in nodes}
    for name in devices:
        if name != "*" and name not in known:
            tally.note("node is in gres.conf alone: processors and memory are not known", name)
    added = [Node(name) for name in devices if name != "*" and name not in known]
    return [
        node
        if node.devices or not (node.name in devices or "*" in devices)
        else replace(node, devices=tuple(devices.get(node.name, devices.get("*", []))))
        for node in (*nodes, *added)
    ]


def _placed(
    nodes: Sequence[Node], members: Mapping[str, list[str]], sets: Mapping[str, list[str]]
) -> list[Node]:
    """Nodes with the partitions that list them, by name, node set or ALL."""
    by_node: dict[str, list[str]] = {}
    for partition, names in members.items():
        for name in names:
            for each in sets.get(name, [name]):
                by_node.setdefault(each, []).append(partition)
    return [
        replace(
            node,
            partitions=node.partitions
            or tuple(dict.fromkeys((*by_node.get(node.name, ()), *by_node.get("ALL", ())))),
        )
        for node in nodes
    ]
