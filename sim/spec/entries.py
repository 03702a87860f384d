"""Names in a scenario, resolved from the catalogue: a name, a name with changes, or a whole entry written out.

Like a tailor's order: a size off the rack, the same taken in at the waist, or cut to measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.spec.catalog import Catalog, UnknownName, load_catalog
from sim.spec.scenario import as_document

UNRESOLVED = "(of the system)"
"""Stands for the accelerator of a system that is not known; its fault is told once, at the system."""
_WRITTEN_OUT = {"key": "inline", "name": "written in the scenario", "source": "the scenario file"}
INLINE: Mapping[str, Mapping[str, Any]] = {
    "accelerator": {
        **_WRITTEN_OUT,
        "kind": "assumed",
        "vendor": "",
        "generation": "unknown",
        "year": 0,
        "sm_count": 100.0,
        "scale_up_fabric": "pcie",
        "scale_up_domain_size": 1,
        "host_link_bytes_per_s": 16e9,
        "assumed": ["sm_count", "scale_up_fabric", "host_link_bytes_per_s"],
    },
    "system": {
        **_WRITTEN_OUT,
        "kind": "assumed",
        "accelerator": "inline",
        "nics_per_node": 1,
        "nic_bytes_per_s": 1.25e9,
        "fabric": "ethernet",
        "fabric_name": "10 Gbit/s Ethernet",
        "topology": "one switch",
        "scale_up_domain_size": 1,
        "assumed": ["nics_per_node", "nic_bytes_per_s", "fabric"],
    },
    "model": {
        **_WRITTEN_OUT,
        "family": "inline",
        "kind": "decoder",
        "params_total": 0,
        "params_kind": "derived",
    },
}
"""What a table written out in a scenario may leave unsaid, and then is marked ``assumed``.

The cores of a device set how many thread blocks run at once: 100 is between a V100's 80 and a B200's 148, and between
them kernels of training sizes hardly differ; with too few of them no small device could keep its memory busy.
"""


def catalogue_entry(kind: str, value: Any) -> Any:
    """The table that ``value`` stands for.

    Raises:
        ValueError: no such name in the catalogue, or neither a name nor a table.
    """
    catalog: Catalog = load_catalog()
    if value == UNRESOLVED:
        raise ValueError("is the system's own, and the system is not known")
    lookup = {"accelerator": catalog.accelerator, "system": catalog.system, "model": catalog.model}[kind]
    if isinstance(value, str):
        return _spread(lookup, value, {})
    if isinstance(value, Mapping) and "base" in value:
        changes = {key: item for key, item in value.items() if key != "base"}
        return _spread(lookup, value["base"], changes)
    if isinstance(value, Mapping):
        return _written_out(kind, value)
    raise ValueError(f"expected the name of a catalogue {kind} or a table")


def _written_out(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A whole entry with what it leaves unsaid; links with a rate of their own are no PCIe, but as NVLink."""
    entry = {**INLINE[kind], **value}
    if kind == "accelerator" and "scale_up_bytes_per_s" in value:
        entry["scale_up_fabric"] = value.get("scale_up_fabric", "nvlink")
    if "assumed" in entry and "assumed" not in value:
        entry["assumed"] = [name for name in entry["assumed"] if name not in value]
    return entry


def own_accelerator(pool: Any) -> Any:
    """A pool that names no accelerator has the one of its system."""
    if not isinstance(pool, Mapping) or "system" not in pool:
        return pool
    system = pool["system"]
    name = system.get("base", system.get("accelerator")) if isinstance(system, Mapping) else system
    if isinstance(system, Mapping) and "accelerator" in system:
        own = system["accelerator"]
    else:
        try:
            own = load_catalog().system(str(name)).accelerator
        except UnknownName:
            return pool if "accelerator" in pool else {**pool, "accelerator": UNRESOLVED}
    wanted = pool.get("accelerator", own)
    if isinstance(wanted, Mapping) and "base" not in wanted and "flop_per_s" not in wanted:
        wanted = {"base": own, **wanted}
    return {**pool, "accelerator": wanted}


def _spread(lookup: Any, name: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    try:
        noun = lookup(str(name))
    except UnknownName as fault:
        raise ValueError(str(fault)) from None
    values = {key: item for key, item in as_document(noun).items() if item is not None}
    if changes:
        values["source"] = f"{values.get('source', '')} (changed here: {', '.join(changes)})"
    nested = {
        key: {"base": values[key], **item}
        if isinstance(values.get(key), str) and isinstance(item, Mapping)
        else {**values[key], **item}
        if isinstance(values.get(key), dict) and isinstance(item, Mapping)
        else item
        for key, item in changes.items()
    }
    return {**values, **nested}
