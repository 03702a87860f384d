"""Slurm's map of the network: topology.conf and topology.yaml, trees of switches and rows of blocks.

Sources: Slurm's topology.conf and topology.yaml manuals (tree and block plugins).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from sim.importers import hosts
from sim.importers.imported import Parts, Switch, Tally
from sim.importers.sources import Source, refuse


def read_topology(sources: Sequence[Source], tally: Tally) -> Parts:
    """Switches and blocks of either form; block sizes go to the settings as ``BlockSizes``.

    Raises:
        ScenarioError: a file with neither switches nor blocks, or YAML that cannot be parsed.
    """
    parts = Parts()
    for source in sources:
        before = len(parts.switches)
        if re.search(r"^\s*(SwitchName|BlockName)\s*=", source.text, re.M | re.I):
            _lines(source, parts, tally)
        else:
            _document(source, parts, tally)
        if len(parts.switches) == before:
            raise refuse(source.name, "holds no SwitchName=, BlockName= or topology list")
    _judge(parts.switches, tally)
    return parts


def _lines(source: Source, parts: Parts, tally: Tally) -> None:
    for number, raw in source.lines():
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        tally.records += 1
        keys = {key.lower(): value for key, value in re.findall(r"(\w+)=(\S+)", line)}
        place = source.place(number)
        if "blocksizes" in keys:
            parts.settings["BlockSizes"] = keys["blocksizes"]
        elif "switchname" in keys:
            _add(
                parts, "switch", keys["switchname"], keys.get("nodes"), keys.get("switches"), "", place, tally
            )
        elif "blockname" in keys:
            _add(parts, "block", keys["blockname"], keys.get("nodes"), None, "", place, tally)
        else:
            tally.skip("line names no switch and no block", place)


def _document(source: Source, parts: Parts, tally: Tally) -> None:
    try:
        document = yaml.safe_load(source.text)
    except yaml.YAMLError as fault:
        raise refuse(source.name, f"is neither topology.conf nor YAML ({_first_line(fault)})") from None
    for topology in document if isinstance(document, list) else []:
        if not isinstance(topology, Mapping):
            tally.skip("entry is no topology", source.name)
            continue
        name = str(topology.get("topology", ""))
        block = topology.get("block") or {}
        sizes = block.get("block_sizes", block.get("block_size", [])) if isinstance(block, Mapping) else []
        if sizes:
            parts.settings["BlockSizes"] = ",".join(
                str(size) for size in (sizes if isinstance(sizes, list) else [sizes])
            )
        for kind, group, items in (("switch", "tree", "switches"), ("block", "block", "blocks")):
            section = topology.get(group) or {}
            for item in (section.get(items) or []) if isinstance(section, Mapping) else []:
                tally.records += 1
                if not isinstance(item, Mapping) or kind not in item:
                    tally.skip(f"entry has no {kind}", source.name)
                    continue
                place = f"{source.name}: {item[kind]}"
                nodes, children = item.get("nodes"), item.get("children")
                _add(parts, kind, str(item[kind]), nodes, children, name, place, tally)


def _add(
    parts: Parts, kind: str, name: str, nodes: Any, children: Any, topology: str, place: str, tally: Tally
) -> None:
    try:
        own = tuple(hosts.expand(str(nodes))) if nodes else ()
        below = tuple(hosts.expand(str(children))) if children else ()
    except ValueError as fault:
        tally.skip(f"list is not readable: {fault}", place)
        return
    if any(switch.name == name and switch.topology == topology for switch in parts.switches):
        tally.skip("the same name again", place)
        return
    parts.switches.append(Switch(name, kind, own, below, topology))


def _judge(switches: Sequence[Switch], tally: Tally) -> None:
    """Tell of children that are not described, and of nodes under two switches."""
    for topology in {switch.topology for switch in switches}:
        its = [switch for switch in switches if switch.topology == topology]
        known = {switch.name for switch in its}
        seen: dict[str, str] = {}
        for switch in its:
            for child in switch.children:
                if child not in known:
                    tally.note("switch below is not described", child)
            for node in switch.nodes:
                if node in seen:
                    tally.note("node stands under two switches", f"{node}: {seen[node]}, {switch.name}")
                seen[node] = switch.name


def nodes_below(switches: Sequence[Switch]) -> dict[str, frozenset[str]]:
    """Switch -> all nodes below it, through other switches; a ring of switches ends where it closes."""
    by_name = {switch.name: switch for switch in switches}

    def gather(name: str, path: frozenset[str]) -> frozenset[str]:
        switch = by_name.get(name)
        if switch is None or name in path:
            return frozenset()
        return frozenset(switch.nodes).union(*(gather(child, path | {name}) for child in switch.children))

    return {name: gather(name, frozenset()) for name in by_name}


def levels(switches: Sequence[Switch]) -> list[list[Switch]]:
    """Switches by height over the nodes: leaves first."""
    by_name = {switch.name: switch for switch in switches}

    def height(name: str, path: frozenset[str]) -> int:
        switch = by_name.get(name)
        if switch is None or name in path or not switch.children:
            return 0
        return 1 + max(height(child, path | {name}) for child in switch.children)

    found: dict[int, list[Switch]] = {}
    for switch in switches:
        found.setdefault(height(switch.name, frozenset()), []).append(switch)
    return [found[level] for level in sorted(found)]


def _first_line(fault: Exception) -> str:
    return str(fault).partition("\n")[0]
