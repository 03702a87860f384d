"""Machines out of Slurm: the same node told by ``sinfo`` once per partition becomes one ``Node``.

Sources: Slurm's sinfo manual (node state codes and their suffixes) and slurm.conf manual (NodeName).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sim.importers import hosts
from sim.importers.imported import Node, Parts, Tally
from sim.importers.moments import amount
from sim.importers.slurm_table import Row, objects, rows
from sim.importers.sources import Source, refuse
from sim.importers.tres import memory_bytes, parse_gres

_KNOWN = ("NODELIST", "HOSTNAMES", "GRES", "NODES", "NODEHOST")
_OBJECT = {"n": "NODELIST", "s": "STATE", "p": "PARTITION", "mem": "MEMORY", "cstate": "CPUS(A/I/O/T)"}
"""Keys of a format string that spells one JSON object a line, as exporters of metrics ask for it."""
_STATES = {
    "maintenance": ("maint", "reboot"),
    "down": ("down", "fail", "failing", "failg", "error", "not_responding", "no_respond", "perfctrs", "unk"),
    "drained": ("drain", "drained", "draining", "drng"),
    "powered-down": ("powered_down", "power_down", "powering_down", "pow_dn", "powerdown", "poweroff"),
    "up": [
        "idle",
        "alloc",
        "allocated",
        "mix",
        "mixed",
        "comp",
        "completing",
        "cg",
        "resv",
        "reserved",
        "plnd",
        "planned",
        "block",
        "blocked",
        "cloud",
        "future",
        "futr",
        "power_up",
        "powering_up",
        "pow_up",
        "npc",
        "dynamic_norm",
        "dynamic_future",
    ],
}
"""Worst first: a node with several flags is what its worst flag says."""


def node_state(text: str, place: str, tally: Tally) -> str:
    """``IDLE+DRAIN``, ``down*``, ``mixed-``, ``DOWN+NOT_RESPONDING``: one of our states."""
    flags = [re.sub(r"[*~#!%$@^+-]+$", "", word) for word in re.split(r"[+,|\s]", text.lower()) if word]
    if "~" in text:  # Slurm's mark of a node that is powered off
        flags.append("powered_down")
    for state, words in _STATES.items():
        if any(flag in words for flag in flags):
            return state
    tally.note(f"node state {text[:30]!r} is not known", place)
    return "unknown"


def read_sinfo(sources: Sequence[Source], tally: Tally, columns: Sequence[str] = ()) -> Parts:
    """Nodes of ``sinfo`` (any columns; a node list and GRES at least), or of one JSON object a line.

    Raises:
        ScenarioError: a file without a header whose columns are not plain from their content, and no ``columns`` given.
    """
    found: list[Node] = []
    for source in sources:
        for row in _rows(source, tally, columns):
            found += _nodes(row, tally)
    return Parts(nodes=one_each(found, tally))


def _rows(source: Source, tally: Tally, columns: Sequence[str]) -> Iterable[Row]:
    head = source.text.lstrip()[:1]
    if head == "{" and not columns:
        return objects(source, tally, _OBJECT)
    if not columns:
        columns = _by_content(source, tally)
    return rows(source, tally, _KNOWN, columns)


def _by_content(source: Source, tally: Tally) -> tuple[str, ...]:
    """Columns of ``sinfo -h -N -O nodehost,gres,gresused[,state]``: a node, then its Gres; else none."""
    first = next((line for _, line in source.lines() if line.strip()), "")
    cells = [cell.strip() for cell in (first.split("|") if "|" in first else first.split())]
    if len(cells) < 2 or not re.match(r"(gpu(:|$)|\(null\))", cells[1]) or cells[0].upper() in _KNOWN:
        return ()
    tally.note("no header: columns told by their content (node, Gres, Gres in use)", source.name)
    rest = [
        "GRESUSED" if re.match(r"(\w+:)*\w+:\d+\(|gpu:", cell) and not index else f"COLUMN{index}"
        for index, cell in enumerate(cells[2:])
    ]
    states = {word for words in _STATES.values() for word in words}
    rest = [
        "STATE" if cells[2 + index].rstrip("*~#!%$@^+-").lower() in states else name
        for index, name in enumerate(rest)
    ]
    return ("NODEHOST", "GRES", *rest)


def _nodes(row: Row, tally: Tally) -> list[Node]:
    listed = row.first("NODEHOST", "HOSTNAMES", "NODELIST", "NODE", "NODENAME", "NODE_ADDR")
    if not listed:
        tally.skip("no node name (a partition without nodes, or a count)", row.place)
        return []
    try:
        names = hosts.expand(listed)
    except ValueError as fault:
        tally.skip(f"node list is not readable: {fault}", row.place)
        return []
    if "GRES" not in row.cells:
        tally.note(
            "no Gres in the file: devices of the nodes are not known (sinfo -O NodeList,Gres,State)",
            row.place,
        )
    cores = row.first("CPUS(A/I/O/T)", "C").split("/")[-1] or row.first("CPUS", "CPUS(T)")
    if len(names) > 1 and "/" in row.first("CPUS(A/I/O/T)"):
        cores = str((amount(cores) or 0.0) / len(names))  # sinfo adds up the nodes of a line
    node = Node(
        name="",
        devices=tuple(parse_gres(row["GRES"])),
        cpus=amount(cores.rstrip("+")) or 0.0,
        memory_bytes=memory_bytes(row.first("MEMORY").rstrip("+")) or 0.0,
        state=node_state(row.first("STATE", "STATECOMPACT", "STATELONG"), row.place, tally)
        if row.first("STATE", "STATECOMPACT", "STATELONG")
        else "up",
        partitions=tuple(filter(None, (row.first("PARTITION", "PARTITIONNAME").rstrip("*"),))),
        features=tuple(filter(None, row.first("AVAIL_FEATURES", "FEATURES", "ACTIVE_FEATURES").split(","))),
    )
    return [replace(node, name=name) for name in names]


def one_each(nodes: Iterable[Node], tally: Tally) -> list[Node]:
    """Each name once: partitions and features add up; of different states the worst counts, of devices the larger."""
    worst = ("unknown", "up", "powered-down", "drained", "maintenance", "down")
    merged: dict[str, Node] = {}
    for node in nodes:
        before = merged.get(node.name)
        if before is None:
            merged[node.name] = node
            continue
        if before.devices and node.devices and before.devices != node.devices:
            tally.note("node is listed with different devices: the larger number is kept", node.name)
        merged[node.name] = replace(
            before,
            devices=max(before.devices, node.devices, key=lambda devices: sum(count for _, count in devices)),
            cpus=max(before.cpus, node.cpus),
            memory_bytes=max(before.memory_bytes, node.memory_bytes),
            state=max(before.state, node.state, key=worst.index),
            partitions=_union(before.partitions, node.partitions),
            features=_union(before.features, node.features),
            place=before.place or node.place,
        )
    return list(merged.values())


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return (*first, *(item for item in second if item not in first))


def nodes_from_keys(keys: Mapping[str, str], place: str, tally: Tally) -> list[Node]:
    """Nodes of a ``NodeName=`` line (slurm.conf) or record (``scontrol show node``); keys in lower case."""
    try:
        names = hosts.expand(keys["nodename"])
    except ValueError as fault:
        tally.skip(f"node list is not readable: {fault}", place)
        return []
    devices = tuple(parse_gres(keys.get("gres", "")))
    cores = amount(keys.get("cputot", keys.get("cpus", keys.get("procs", "")))) or 0.0
    if not cores:  # slurm.conf may give the parts alone
        parts = [
            amount(keys.get(name, "1")) or 1.0
            for name in ("sockets", "boards", "corespersocket", "threadspercore")
        ]
        cores = parts[0] * parts[1] * parts[2] * parts[3] if "corespersocket" in keys else 0.0
    stated = keys.get("state", "")
    node = Node(
        name="",
        devices=devices,
        cpus=cores,
        memory_bytes=memory_bytes(keys.get("realmemory", "0")) or 0.0,
        state="up" if stated.lower() in ("", "unknown") else node_state(stated, place, tally),
        partitions=_listed(keys.get("partitions", "")),
        features=_listed(keys.get("availablefeatures", keys.get("feature", keys.get("features", "")))),
    )
    return [replace(node, name=name) for name in names]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word and word != "(null)")


def need_nodes(parts: Parts, sources: Sequence[Source]) -> Parts:
    """Refuse files in which nothing at all was found."""
    includes = any(re.search(r"^\s*include\s", source.text, re.M | re.I) for source in sources)
    if not includes and not any((parts.nodes, parts.jobs, parts.switches, parts.quotas, parts.settings)):
        names = ", ".join(source.name for source in sources)
        raise refuse(names, "holds no node, partition, job or setting in Key=Value form")
    return parts
