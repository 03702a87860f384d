"""What the nodes of a run drew, in three gears: computing, standing with a job, idle. Like a taxi's fuel bill."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sim.results.cluster_log import ClusterLog
from sim.spec.prices import Prices, general
from sim.spec.scenario import Cluster

J_PER_KWH = 3.6e6
LEVELS = ("low", "mid", "high")
STATES = ("compute", "stall", "idle")
USED = (*(f"power_{state}_frac" for state in STATES), "pue", "energy_usd_per_kwh")


def energy(log: ClusterLog, cluster: Cluster, prices: Prices | None = None) -> dict[str, Any]:
    """Energy by state in kWh of IT, of the site, and its price, each as low, mid and high.

    compute: useful work, work done in vain, and waiting for neighbours on the same device, which works meanwhile.
    stall: checkpoints, restarts, preemption, faults nobody had noticed, waiting for shared links.
    idle: the rest of the time in service; nodes out of service draw nothing. Shares of the nodes' maximum power, PUE
    and price are the catalogue's intervals or the scenario's ``[prices]``; ``low`` has all of them low, ``high`` all
    high. Pools whose maximum power the catalogue does not know are named in ``unknown`` and left out.
    """
    device_s = _device_seconds(log, cluster)
    assumed = general(prices)
    unknown = [pool.system.name for pool in cluster.pools if not pool.system.node_power_w]
    sums = {state: [0.0, 0.0, 0.0] for state in STATES}
    for number, pool in enumerate(cluster.pools):
        watts = (pool.system.node_power_w or 0.0) / pool.system.gpus_per_node
        for state in STATES:
            share = assumed[f"power_{state}_frac"].value
            for i, level in enumerate(LEVELS):
                sums[state][i] += watts * getattr(share, level) * device_s[number, state] / J_PER_KWH
    it_kwh = [sum(sums[state][i] for state in STATES) for i in range(3)]
    site_kwh = [it_kwh[i] * getattr(assumed["pue"].value, level) for i, level in enumerate(LEVELS)]
    usd = [
        site_kwh[i] * getattr(assumed["energy_usd_per_kwh"].value, level) for i, level in enumerate(LEVELS)
    ]
    return {
        "kwh_by_state": sums,
        "it_kwh": it_kwh,
        "site_kwh": site_kwh,
        "usd": usd,
        "unknown": unknown,
        "assumptions": [
            {"name": one.name, "value": str(one.value), "kind": one.kind, "source": one.source}
            for one in (assumed[name] for name in USED)
        ],
    }


def _device_seconds(log: ClusterLog, cluster: Cluster) -> dict[tuple[int, str], float]:
    """Device-seconds by (pool, state)."""
    found: dict[tuple[int, str], float] = defaultdict(float)
    pool_of = [number for number, pool in enumerate(cluster.pools) for _ in range(pool.nodes)]
    size = [pool.system.gpus_per_node for pool in cluster.pools]
    for number, pool in enumerate(cluster.pools):
        found[number, "idle"] = pool.devices * log.span_s
    for row in log.segments:
        number, worked_s = row.placed.pool, row.useful_s + row.lost_s + row.interference_s
        held_s = row.end_s - row.start_s
        found[number, "compute"] += row.gpus * worked_s
        found[number, "stall"] += row.gpus * (held_s - worked_s)
        found[number, "idle"] -= row.gpus * held_s
    for away in log.downtimes:
        number = pool_of[away.node]
        found[number, "idle"] -= size[number] * (away.end_s - away.start_s)
    return found
