"""From what a site told to a scenario file: pools of like nodes, tiers of the network, the queue's rules.

Written as text for a person to complete: what the files did not say (NICs, node power, prices) is marked by a comment.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from sim.importers.imported import Imported, Node, Quota, Switch
from sim.importers.slurm_topology import levels, nodes_below
from sim.spec.hardware import Accelerator

IN_SERVICE = ("up", "powered-down", "unknown")
"""States whose nodes are capacity; drained, down and under maintenance are counted in a comment."""


@dataclass(frozen=True, slots=True)
class NodePool:
    """Nodes that are alike."""

    kind: str
    """Accelerator as the site spells it."""
    gpus: int
    """Per node."""
    nodes: int
    in_service: int
    cpus: float
    memory_bytes: float


@dataclass(frozen=True, slots=True)
class TierOfNodes:
    """One level of switches."""

    name: str
    switches: int
    nodes: int
    """Nodes below one switch: the median; unlike ones are told by ``least`` and ``most``."""
    least: int
    most: int


def node_pools(nodes: Sequence[Node]) -> list[NodePool]:
    """Nodes with accelerators, by kind and number; cores and memory are the most frequent. Largest pool first."""
    groups: dict[tuple[str, int], list[Node]] = {}
    for node in nodes:
        if node.gpus:
            groups.setdefault((node.accelerator, node.gpus), []).append(node)
    pools = [
        NodePool(
            kind,
            gpus,
            len(its),
            sum(node.state in IN_SERVICE for node in its),
            Counter(node.cpus for node in its).most_common(1)[0][0],
            Counter(node.memory_bytes for node in its).most_common(1)[0][0],
        )
        for (kind, gpus), its in groups.items()
    ]
    return sorted(pools, key=lambda pool: (-pool.nodes * pool.gpus, pool.kind))


def network_tiers(switches: Sequence[Switch], nodes: Sequence[Node] = ()) -> list[TierOfNodes]:
    """Levels from the nodes up: of switches, of blocks, or of the places that nodes name (racks, blocks)."""
    switches = list(switches) or places_as_switches(nodes)
    first = switches[0].topology if switches else ""
    switches = [switch for switch in switches if switch.topology == first]
    below = nodes_below(switches)
    names = ("leaf", "spine", "core")
    found = []
    for height, level in enumerate(levels(switches)):
        sizes = [len(below[switch.name]) for switch in level if below[switch.name]]
        if not sizes:
            continue
        kind = level[0].kind
        name = kind if kind != "switch" else names[height] if height < len(names) else f"tier-{height + 1}"
        found.append(TierOfNodes(name, len(sizes), int(median(sizes)), min(sizes), max(sizes)))
    return found


def places_as_switches(nodes: Sequence[Node]) -> list[Switch]:
    """The labels of nodes (block, rack) as a tree."""
    children: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    members: dict[tuple[str, ...], list[str]] = {}
    for node in nodes:
        for depth in range(1, len(node.place) + 1):
            children.setdefault(node.place[:depth], set())
            if depth > 1:
                children[node.place[: depth - 1]].add(node.place[:depth])
        if node.place:
            members.setdefault(node.place, []).append(node.name)
    return [
        Switch(
            "/".join(path), "switch", tuple(members.get(path, ())), tuple(sorted("/".join(c) for c in below))
        )
        for path, below in sorted(children.items())
    ]


def match_accelerator(kind: str, known: Mapping[str, Accelerator]) -> str | None:
    """The one catalogue key that a site's spelling (``NVIDIA-H100-80GB-HBM3``) means; None if none or several."""
    words = set(re.findall(r"[a-z0-9]+", re.sub(r"sxm\d", "sxm", kind.lower()))) - {
        "nvidia",
        "amd",
        "tesla",
        "gpu",
        "instinct",
    }
    plain = kind.lower()
    if plain in known:
        return known[plain].key
    names: dict[str, set[str]] = {}
    for name, entry in known.items():
        text = f"{name} {entry.key} {entry.name}".lower()
        names.setdefault(entry.key, set()).update(re.findall(r"[a-z0-9]+", re.sub(r"sxm\d", "sxm", text)))
    words -= {word for word in words if re.fullmatch(r"hbm\w*", word)}
    forms = {"pcie", "nvl"} - words  # a name without its form is a module
    fits = [key for key, have in names.items() if words and words <= have and not forms & have]
    return fits[0] if len(fits) == 1 else None


def to_scenario(imported: Imported, known: Mapping[str, Accelerator], jobs_file: str = "") -> str:
    """TOML text: ``[[cluster.pools]]``, ``[cluster.fabric]``, ``jobs.trace``; what is not said stands in comments."""
    lines = [f"name = {_quoted(f'cluster from {imported.kind}')}", ""]
    if jobs_file:
        lines += ["[jobs]", f"trace = {_quoted(jobs_file)}", ""]
    for pool in node_pools(imported.nodes):
        lines += _pool(pool, known)
    lines += _fabric(network_tiers(imported.switches, imported.nodes))
    lines += _quotas(imported.quotas)
    if imported.settings:
        lines += ["# Settings of the scheduler, in its own words:"]
        lines += [
            f"#   {key} = {' '.join(value.split())}" for key, value in sorted(imported.settings.items())
        ]
    return "\n".join(lines).rstrip() + "\n"


def _pool(pool: NodePool, known: Mapping[str, Accelerator]) -> list[str]:
    if not pool.in_service:
        return [
            f"# {pool.nodes} nodes of {pool.gpus} x {pool.kind or 'gpu'} are drained, down or under maintenance.",
            "",
        ]
    key = match_accelerator(pool.kind, known)
    lines = [
        "[[cluster.pools]]",
        f"name = {_quoted(pool.kind or 'gpu')}",
        f"nodes = {pool.in_service}",
    ]
    if pool.in_service < pool.nodes:
        lines.append(f"# {pool.nodes - pool.in_service} more nodes are drained, down or under maintenance.")
    lines.append(f"# A node has {pool.cpus:g} cores and {pool.memory_bytes / 2**30:.0f} GiB of memory.")
    lines.append("# NICs are not in the files: complete nics_per_node and nic, or name a catalogue system.")
    if key is None:
        lines.append(f"# {pool.kind or 'no name'!s}: no one accelerator of the catalogue; put its name here.")
    lines.append(
        f"system = {{ accelerator = {_quoted(key or pool.kind or 'unknown')}, gpus_per_node = {pool.gpus} }}"
    )
    return [*lines, ""]


def _fabric(tiers: Sequence[TierOfNodes]) -> list[str]:
    if not tiers:
        return []
    lines = [
        "[cluster.fabric]",
        'topology = "fat-tree"',
        "# Oversubscription and latency are not in the files: defaults hold.",
        "tiers = [",
    ]
    for number, tier in enumerate(tiers, 1):
        top = number == len(tiers) and tier.switches == 1
        size = "" if top else f", nodes = {max(tier.nodes, 1)}"
        unlike = "" if tier.least == tier.most else f" of {tier.least} to {tier.most} nodes"
        lines.append(f"  {{ name = {_quoted(tier.name)}{size} }},  # {tier.switches} of them{unlike}")
    return [*lines, "]", ""]


def _quotas(quotas: Sequence[Quota]) -> list[str]:
    """``[[policy.quotas]]`` for queues and cohorts; quotas of accounts, partitions and service classes, which the
    policy does not know, stand as comments."""
    known = [quota for quota in quotas if quota.kind in ("cluster queue", "cohort", "queue")]
    rest = [quota for quota in quotas if quota not in known]
    lines = ["# Quotas (name, kind, above it; own share, ceiling, weight, priority):"] if rest else []
    for quota in rest:
        share, ceiling = ("-" if n is None else f"{n:g}" for n in (quota.nominal_gpus, quota.ceiling_gpus))
        lines.append(
            f"#   {quota.name} {quota.flavor}, {quota.kind}, {quota.parent or '-'}; "
            f"{share}, {ceiling}, {quota.weight:g}, {quota.priority:g}"
        )
    if known:
        lines += ["", "[policy]", 'name = "quota"', ""]
    for name, flavors in _by_name(known).items():
        lines += _quota(name, flavors)
    parents = {quota.parent for quota in known if quota.parent} - {quota.name for quota in known}
    for name in sorted(parents):  # a cohort that is only named in its queues has nothing of its own
        lines += ["[[policy.quotas]]", f"name = {_quoted(name)}", ""]
    return [*lines, ""] if lines else []


def _by_name(quotas: Sequence[Quota]) -> dict[str, list[Quota]]:
    found: dict[str, list[Quota]] = {}
    for quota in quotas:
        found.setdefault(quota.name, []).append(quota)
    return found


RECLAIM = {"Never": "never", "LowerPriority": "lower-priority", "Any": "any"}
WITHIN = {"LowerPriority": "lower-priority", "LowerOrNewerEqualPriority": "lower-or-newer-equal-priority"}


def _quota(name: str, flavors: Sequence[Quota]) -> list[str]:
    """One queue; its flavors are added up (a policy's quotas do not tell kinds of device apart)."""
    first = flavors[0]
    lines = ["[[policy.quotas]]", f"name = {_quoted(name)}"]
    if len(flavors) > 1:
        lines.append(f"# sum of the flavors {', '.join(quota.flavor for quota in flavors)}")
    if first.parent:
        lines.append(f"parent = {_quoted(first.parent)}")
    for key in ("nominal_gpus", "borrow_limit_gpus", "lend_limit_gpus", "ceiling_gpus"):
        values = [getattr(quota, key) for quota in flavors]
        if all(value is not None for value in values):
            lines.append(f"{key} = {sum(values):g}")
    if "guarantee_gpus" in first.rules and first.nominal_gpus is not None:  # Volcano: never lent
        lend = max(first.nominal_gpus - float(first.rules["guarantee_gpus"]), 0.0)
        lines.append(f"lend_limit_gpus = {lend:g}")
    if first.weight > 0 and first.weight != 1:
        lines.append(f"weight = {first.weight:g}")
    if first.kind == "cluster queue":  # Kueue takes nothing back unless it is told to
        lines.append(
            f"reclaim = {_quoted(RECLAIM.get(first.rules.get('reclaimWithinCohort', 'Never'), 'never'))}"
        )
        within = WITHIN.get(first.rules.get("withinClusterQueue", "Never"))
        if within:
            lines.append(f"within = {_quoted(within)}")
    return [*lines, ""]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
