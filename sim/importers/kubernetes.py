"""Kubernetes objects of any mix: nodes, pods, jobs, and the queues of Kueue, Volcano and KAI, in YAML or JSON.

``kubectl get nodes,pods,workloads -A -o json`` is read as it comes: a List is its items, documents are parted by
``---``, a document that cannot be parsed is counted and the others are read. Sources: the API references of
Kubernetes, Kueue (v1beta1, v1beta2), Volcano (v1alpha1, v1beta1) and KAI-Scheduler (scheduling.run.ai/v2).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from sim.importers.imported import Node, Parts, Switch, Tally
from sim.importers.kubernetes_gangs import Candidate, jobs_from
from sim.importers.kubernetes_jobs import candidates
from sim.importers.kubernetes_quotas import quotas_from
from sim.importers.kubernetes_values import DEVICE, items, mapping, quantity
from sim.importers.sources import Source, refuse

_PLACES = (
    "topology.kubernetes.io/region", "topology.kubernetes.io/zone", "cloud.provider.com/topology-block",
    "cloud.provider.com/topology-rack", "network.topology.nvidia.com/spine", "network.topology.nvidia.com/block",
    "network.topology.nvidia.com/accelerator", "cloud.google.com/gce-topology-block",
    "cloud.google.com/gce-topology-subblock", "topology.k8s.aws/network-node-layer-1",
    "topology.k8s.aws/network-node-layer-2", "topology.k8s.aws/network-node-layer-3", "volcano.sh/hypernode",
    "volcano.sh/tor",
)  # fmt: skip
"""Labels that tell a node's place, widest first; a Kueue Topology among the objects goes before them."""
_PRODUCTS = (
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "amd.com/gpu.product-name",
    "accelerator",
)
_FINE = ("kubernetes.io/hostname",)

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_kubernetes(sources: Sequence[Source], tally: Tally, assume_duration_s: float | None = None) -> Parts:
    """Nodes, gangs, quotas and topology. ``assume_duration_s`` is the run time of jobs that only say what they ask for.

    Raises:
        ScenarioError: a file in which nothing is a Kubernetes object.
    """
    objects: list[tuple[str, Mapping[str, Any]]] = []
    for source in sources:
        found = list(_objects(source, tally))
        if not found:
            raise refuse(
                source.name, "holds no Kubernetes object: expected YAML or JSON with apiVersion and kind"
            )
        objects += found
    parts = Parts()
    priorities = {
        str(mapping(one.get("metadata")).get("name")): quantity(one.get("value")) or 0.0
        for _, one in objects
        if one.get("kind") in ("PriorityClass", "WorkloadPriorityClass")
    }
    places = _levels(one for _, one in objects) or _PLACES
    work: list[Candidate] = []
    for place, one in objects:
        tally.records += 1
        kind = str(one.get("kind", ""))
        if kind == "Node":
            parts.nodes.append(_node(one, places))
        elif kind == "HyperNode":
            parts.switches.append(_hyper_node(one))
        elif kind in ("PriorityClass", "WorkloadPriorityClass", "Topology"):
            continue
        elif kind == "ResourceFlavor":
            name, labels = _name(one), mapping(mapping(one.get("spec")).get("nodeLabels"))
            parts.settings[f"flavor.{name}"] = ",".join(f"{key}={value}" for key, value in labels.items())
        elif quotas := quotas_from(one):
            parts.quotas += quotas
        elif (its := candidates(one, place, priorities)) is not None:
            work += its
        else:
            tally.skip(f"{kind or 'object without a kind'} is not used", place)
    parts.jobs, parts.dated = jobs_from(work, assume_duration_s, tally)
    return parts


def _name(one: Mapping[str, Any]) -> str:
    return str(mapping(one.get("metadata")).get("name", ""))


def _objects(source: Source, tally: Tally) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for line, document in _documents(source, tally):
        flat = items(document.get("items")) if "items" in document else [document]
        kind = str(document.get("kind", "List")).removesuffix("List")
        for index, one in enumerate(flat):
            place = f"{source.name}:{line}" if len(flat) == 1 else f"{source.name}: items.{index}"
            if "kind" not in one and kind and "items" in document:  # a NodeList leaves its items' kind out
                one = {**one, "kind": kind}
            if "kind" in one:
                yield place, one
            else:
                tally.records += 1
                tally.skip("document is no Kubernetes object", place)


def _documents(source: Source, tally: Tally) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if source.text.lstrip()[:1] in ("{", "["):
        try:
            document = json.loads(source.text)
        except (json.JSONDecodeError, RecursionError):
            pass  # YAML in braces, or several documents
        else:
            yield from ((1, one) for one in (document if isinstance(document, list) else [document]) if one)
            return
    line = 1
    for part in re.split(r"^---.*$", source.text, flags=re.M):
        start, line = line, line + part.count("\n")
        try:
            document = yaml.load(part, Loader=Loader)
        except (yaml.YAMLError, RecursionError) as fault:
            tally.records += 1
            tally.skip(f"document is not YAML: {str(fault).splitlines()[0][:80]}", source.place(start))
            continue
        for one in document if isinstance(document, list) else [document]:
            if isinstance(one, Mapping):
                yield start, one
            elif one is not None:
                tally.records += 1
                tally.skip("document is no Kubernetes object", source.place(start))


def _levels(objects: Iterator[Mapping[str, Any]]) -> tuple[str, ...]:
    """Node labels of the first Kueue Topology, widest first, without the host itself."""
    for one in objects:
        if one.get("kind") == "Topology":
            labels = [str(level.get("nodeLabel")) for level in items(mapping(one.get("spec")).get("levels"))]
            return tuple(label for label in labels if label not in _FINE)
    return ()


def _node(one: Mapping[str, Any], places: Sequence[str]) -> Node:
    """Allocatable before capacity: what pods can have."""
    labels = mapping(mapping(one.get("metadata")).get("labels"))
    status, spec = mapping(one.get("status")), mapping(one.get("spec"))
    room = {**mapping(status.get("capacity")), **mapping(status.get("allocatable"))}
    capacity = mapping(status.get("capacity"))
    product = next((str(labels[label]) for label in _PRODUCTS if label in labels), "")
    devices = []
    for name, value in room.items():
        if DEVICE.fullmatch(str(name)):
            count = int(quantity(value) or 0) or int(
                quantity(capacity.get(name)) or 0
            )  # allocatable 0: unhealthy
            kind = str(name).removeprefix("nvidia.com/mig-") if "/mig-" in str(name) else product
            devices += [(kind, count)] if count else []
    ready = {str(c.get("type")): str(c.get("status")) for c in items(status.get("conditions"))}.get(
        "Ready", "True"
    )
    state = "down" if ready != "True" else "drained" if spec.get("unschedulable") else "up"
    roles = tuple(
        sorted(key.partition("/")[2] for key in labels if key.startswith("node-role.kubernetes.io/"))
    )
    return Node(
        name=_name(one),
        devices=tuple(devices),
        cpus=quantity(room.get("cpu", 0)) or 0.0,
        memory_bytes=quantity(room.get("memory", 0)) or 0.0,
        state=state,
        partitions=roles,
        features=tuple(str(labels[key]) for key in ("node.kubernetes.io/instance-type",) if key in labels),
        place=tuple(str(labels[label]) for label in places if label in labels),
    )


def _hyper_node(one: Mapping[str, Any]) -> Switch:
    """Volcano's HyperNode; members named one by one (patterns name nothing that could be checked)."""
    nodes: list[str] = []
    children: list[str] = []
    for member in items(mapping(one.get("spec")).get("members")):
        name = mapping(mapping(member.get("selector")).get("exactMatch")).get("name")
        if name:
            (children if member.get("type") == "HyperNode" else nodes).append(str(name))
    return Switch(_name(one), "switch", tuple(nodes), tuple(children))
