"""Small change of Kubernetes: quantities, device resources, and what a pod asks for in all.

Sources: Kubernetes API reference (Quantity), "Pod resource sharing" in the init-container page (effective request is
the larger of the containers' sum and the largest init container), NVIDIA device plugin (resource names).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.importers.moments import amount
from sim.importers.tres import mig_share_frac

DEVICE = re.compile(
    r"(nvidia\.com/(gpu(\.shared)?|mig-.+)|amd\.com/gpu|gpu\.intel\.com/\w+|habana\.ai/gaudi|google\.com/tpu|"
    r"aws\.amazon\.com/neuron(core|device)?|(npu\.)?huawei\.com/.*|volcano\.sh/v?gpu-number|gpu)"
)
"""Resources that are accelerators; ``gpu`` alone is what Kueue's and KAI's own objects say."""

_SUFFIX = {
    "": 1.0,
    "m": 1e-3,
    "n": 1e-9,
    "u": 1e-6,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
} | {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)}


def quantity(value: Any) -> float | None:
    """``500m``, ``1Gi``, ``2e3``, 4: a number; None where it is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    found = re.fullmatch(r"([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|[+-]?\.\d+)([A-Za-z]*)", str(value).strip())
    if not found or found[2] not in _SUFFIX:
        return None
    return float(found[1]) * _SUFFIX[found[2]]


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one: exports leave out and misspell."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> Sequence[Mapping[str, Any]]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class Needs:
    """What one pod holds."""

    gpus: int = 0
    kind: str = ""
    """MIG profile or resource, where it is not a whole NVIDIA GPU."""
    share_frac: float = 1.0
    cpus: float = 0.0
    memory_bytes: float = 0.0


def pod_needs(template: Mapping[str, Any]) -> Needs:
    """Needs of a pod or pod template; KAI's ``gpu-fraction`` annotation is a share of one device."""
    spec = mapping(template.get("spec"))
    main = [_container(item) for item in items(spec.get("containers"))]
    first = [_container(item) for item in items(spec.get("initContainers"))]
    kinds = {kind for asked in main for kind in asked if DEVICE.fullmatch(kind) and asked[kind]}
    totals = {name: sum(asked.get(name, 0.0) for asked in main) for name in {"cpu", "memory", *kinds}}
    totals = {
        name: max(total, *(asked.get(name, 0.0) for asked in first), 0.0) for name, total in totals.items()
    }
    overhead = {name: quantity(value) or 0.0 for name, value in mapping(spec.get("overhead")).items()}
    kind = next(iter(sorted(kinds)), "")
    profile = kind.removeprefix("nvidia.com/mig-") if kind.startswith("nvidia.com/mig-") else ""
    gpus = int(sum(totals[name] for name in kinds))
    annotations = mapping(mapping(template.get("metadata")).get("annotations"))
    share = amount(annotations.get("gpu-fraction"))
    if share and 0 < share < 1:
        gpus = max(gpus, int(amount(annotations.get("gpu-fraction-num-devices", 1)) or 1))
    return Needs(
        gpus=gpus,
        kind=profile,
        share_frac=share if share and 0 < share < 1 else mig_share_frac(profile),
        cpus=totals["cpu"] + overhead.get("cpu", 0.0),
        memory_bytes=totals["memory"] + overhead.get("memory", 0.0),
    )


def _container(container: Mapping[str, Any]) -> dict[str, float]:
    """Requests, and limits where a request is left out (then Kubernetes takes the limit)."""
    resources = mapping(container.get("resources"))
    asked = {**mapping(resources.get("limits")), **mapping(resources.get("requests"))}
    return {str(name): quantity(value) or 0.0 for name, value in asked.items()}
