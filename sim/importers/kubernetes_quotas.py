"""Queues of Kueue, Volcano and KAI as one kind of quota.

What each calls its own share, its loan and its ceiling, in words of ``Quota``: Kueue ClusterQueue and Cohort:
nominalQuota, borrowingLimit, lendingLimit per flavor (kueue.sigs.k8s.io, ClusterQueue). Volcano Queue: deserved (got
back from others), capability (ceiling), guarantee (never lent), weight (volcano.sh, Queue). KAI Queue: quota, limit
(-1 = no bound), overQuotaWeight (KAI-Scheduler, docs/queues).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sim.importers.imported import Quota
from sim.importers.kubernetes_values import DEVICE, items, mapping, quantity


def quotas_from(one: Mapping[str, Any]) -> list[Quota]:
    """Quotas of one object; empty where it is no queue."""
    kind, group = str(one.get("kind", "")), str(one.get("apiVersion", "")).partition("/")[0]
    name = str(mapping(one.get("metadata")).get("name", ""))
    spec = mapping(one.get("spec"))
    if kind in ("ClusterQueue", "Cohort"):
        return _kueue(name, "cluster queue" if kind == "ClusterQueue" else "cohort", spec)
    if kind == "LocalQueue":
        namespace = str(mapping(one.get("metadata")).get("namespace", ""))
        rules = {"namespace": namespace} if namespace else {}
        weight = quantity(mapping(spec.get("fairSharing")).get("weight", 1))
        parent = str(spec.get("clusterQueue", ""))
        return [Quota(name, "local queue", parent, weight=1.0 if weight is None else weight, rules=rules)]
    if kind == "Queue" and group == "scheduling.run.ai":
        return [_kai(name, spec)]
    if kind == "Queue":
        return [_volcano(name, spec, mapping(mapping(one.get("metadata")).get("annotations")))]
    return []


def _kueue(name: str, kind: str, spec: Mapping[str, Any]) -> list[Quota]:
    parent = str(
        spec.get("cohortName") or spec.get("cohort") or spec.get("parentName") or spec.get("parent") or ""
    )
    weight = quantity(mapping(spec.get("fairSharing")).get("weight", 1))
    preemption, fungibility = mapping(spec.get("preemption")), mapping(spec.get("flavorFungibility"))
    borrow = mapping(preemption.get("borrowWithinCohort"))
    rules = {key: str(value) for key, value in preemption.items() if isinstance(value, str)}
    rules |= {f"borrowWithinCohort.{key}": str(value) for key, value in borrow.items()}
    rules |= {key: str(value) for key, value in fungibility.items()}
    rules |= {key: str(spec[key]) for key in ("queueingStrategy", "stopPolicy") if spec.get(key)}
    base = Quota(name, kind, parent, weight=1.0 if weight is None else weight, rules=rules)
    found: list[Quota] = []
    for group in items(spec.get("resourceGroups")):
        for flavor in items(group.get("flavors")):
            for resource in items(flavor.get("resources")):
                found += _flavored(base, str(flavor.get("name", "")), resource)
    return found or [base]


def _flavored(base: Quota, flavor: str, resource: Mapping[str, Any]) -> list[Quota]:
    """The quota of one flavor; none where the resource is no accelerator."""
    if not DEVICE.fullmatch(str(resource.get("name", ""))):
        return []
    one = replace(
        base,
        flavor=flavor,
        nominal_gpus=quantity(resource.get("nominalQuota", 0)) or 0.0,
        borrow_limit_gpus=_bound(resource.get("borrowingLimit")),
        lend_limit_gpus=_bound(resource.get("lendingLimit")),
    )
    return [one]


def _volcano(name: str, spec: Mapping[str, Any], annotations: Mapping[str, Any]) -> Quota:
    weight = quantity(spec.get("weight", 1))
    guarantee = _devices(mapping(mapping(spec.get("guarantee")).get("resource")))
    rules = {key: str(spec[key]).lower() for key in ("reclaimable", "dequeueStrategy") if key in spec}
    if guarantee is not None:
        rules["guarantee_gpus"] = f"{guarantee:g}"
    rules |= {
        key.rpartition("/")[2]: str(v) for key, v in annotations.items() if key.startswith("volcano.sh/")
    }
    return Quota(
        name,
        "queue",
        str(spec.get("parent") or ""),
        nominal_gpus=_devices(mapping(spec.get("deserved"))),
        ceiling_gpus=_devices(mapping(spec.get("capability"))),
        weight=1.0 if weight is None else weight,
        priority=quantity(spec.get("priority", 0)) or 0.0,
        rules=rules,
    )


def _kai(name: str, spec: Mapping[str, Any]) -> Quota:
    gpu = mapping(mapping(spec.get("resources")).get("gpu"))
    weight = quantity(gpu.get("overQuotaWeight", 1))
    rules = {
        key: str(spec[key])
        for key in ("displayName", "preemptMinRuntime", "reclaimMinRuntime")
        if key in spec
    }
    return Quota(
        name,
        "queue",
        str(spec.get("parentQueue") or ""),
        nominal_gpus=_bound(gpu.get("quota")),
        ceiling_gpus=_bound(gpu.get("limit")),
        weight=1.0 if weight is None else weight,
        priority=quantity(spec.get("priority", 0)) or 0.0,
        rules=rules,
    )


def _devices(resources: Mapping[str, Any]) -> float | None:
    """Devices in a resource list; none where it names none."""
    named = [quantity(value) or 0.0 for name, value in resources.items() if DEVICE.fullmatch(str(name))]
    return sum(named) if named else None


def _bound(value: Any) -> float | None:
    number = None if value is None else quantity(value)
    return None if number is None or number < 0 else number
