"""The path of the data from storage to the device, and how long a step stands still for it.

Like a kitchen behind a restaurant: storage, cook and waiter each work on another plate, a few plates stand ready, and
guests only wait when the slowest of the three is slower than they eat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.parameters import complete
from sim.cost.security import SECURITY_PARAMETERS, storage_goodput_bytes_per_s
from sim.cost.storage import STORAGE_PARAMETERS, Loading, Storage, loader_wait_s, loading
from sim.spec.copies import replicas
from sim.spec.device import Device
from sim.spec.profile import Fit
from sim.spec.scenario import Cluster
from sim.spec.workload import Loader, Training
from sim.training.node_rates import NodeRates, node_rates
from sim.training.program_parts import Options, StepCost

Floats = NDArray[np.float64]
UNMEASURED = NodeRates()


def file_system(
    cluster: Cluster,
    clients_per_node: int = 1,
    *,
    encrypted: bool = False,
    rates: NodeRates = UNMEASURED,
) -> Storage:
    """The storage that a cluster reads and writes: its own aggregate rates, without limit where it names none.

    A node is one client with a port of its own, or with the rates measured on it, which ``clients_per_node`` processes
    share; encryption at rest leaves a share of every rate.
    """
    own = cluster.storage
    if own is None:
        return Storage(float("inf"), float("inf"))
    known = complete(STORAGE_PARAMETERS, {})
    kept = complete(SECURITY_PARAMETERS, {})["storage_rate_frac"] if encrypted else 1.0
    storage = Storage(
        float(storage_goodput_bytes_per_s(own.read_bytes_per_s, kept)),
        float(storage_goodput_bytes_per_s(own.write_bytes_per_s, kept)),
        kept * known["client_read_bytes_per_s"] / clients_per_node,
        kept * known["client_write_bytes_per_s"] / clients_per_node,
        known["metadata_per_s"],
        known["latency_s"],
    )
    return rates.of(storage, kept_frac=kept, clients=clients_per_node)


def device_batch(
    loader: Loader, storage: Storage, device: Device, samples: ArrayLike, devices: ArrayLike
) -> Loading:
    """Seconds that ``samples`` for one device spend in each stage while all ``devices`` load theirs.

    Read: a fair share of the storage. Decode: ``workers`` cores a device. Copy: the device's host link.
    """
    return loading(
        storage,
        samples,
        loader.sample_bytes,
        clients=devices,
        preprocess_s_per_sample=loader.sample_cpu_s,
        cores=loader.workers,
        device_bytes_per_sample=loader.sample_device_bytes,
        host_to_device_bytes_per_s=device.host_bytes_per_s or float("inf"),
    )


def staged(loader: Loader | None) -> bool:
    """Whether the loader is described by its stages (not by a serial path, or not at all)."""
    if loader is None:
        return False
    return loader.sample_bytes + loader.sample_cpu_s + loader.sample_device_bytes + loader.hiccup_s > 0


def serial_s(training: Training, data: int) -> float:
    """Seconds of one micro-batch of every copy on a path that serves one sample at a time."""
    loader = training.loader
    return loader.sample_serial_s * training.plan.micro_batch * data if loader else 0.0


def step_wait_s(
    training: Training, cluster: Cluster, data: int, step_s: float, fits: Sequence[Fit] = ()
) -> float:
    """Seconds a step of ``step_s`` waits for data in a long run.

    One device in each tensor group and first stage reads a copy's samples; so ``data`` clients share the storage. Of
    copies on unlike pools the latest decides; each is taken to read the mean share. ``fits`` know what was measured
    of files and copies.
    """
    loader = training.loader
    if loader is None or not staged(loader):
        return 0.0
    encrypted = training.run is not None and training.run.security.encrypted_storage
    waits = []
    for kind in replicas(cluster, training.plan):
        pool = kind.pools[0]
        together = max(pool.system.gpus_per_node // training.plan.model_ranks, 1)
        device = pool.accelerator.device()
        rates = node_rates(fits, device)
        storage = file_system(cluster, together, encrypted=encrypted, rates=rates)
        batch = device_batch(loader, storage, rates.on(device), training.global_batch / data, data)
        wait = loader_wait_s(step_s, batch, loader.prefetch, loader.hiccup_s, loader.steps_between_hiccups)
        waits.append(float(wait))
    return max(waits)


def with_wait(cost: StepCost, options: Options, wait_s: float) -> tuple[StepCost, Options]:
    """The same step with its mean wait for data put before the first pass."""
    share = wait_s / options.micro_batches
    return replace(cost, load_s=share), replace(options, prefetch=0)


def waits_s(load_s: Sequence[float], step_s: float, prefetch: int) -> Floats:
    """Waits of successive steps, played batch by batch: what ``loader_wait_s`` tells the mean of.

    The loader keeps at most ``prefetch`` finished batches in store and works on one more; a step takes its batch from
    the store when it starts. With 0 loading starts when the step before has ended. The first batch's wait is the start
    of the run, not of the long run.

    Args:
        load_s: seconds that the loader needs for each batch (its slowest stage).
    """
    begun: list[float] = []
    waits = np.zeros(len(load_s))
    loaded = ended = 0.0
    for number, seconds in enumerate(load_s):
        free = begun[number - prefetch - 1] if 0 < prefetch < number else 0.0
        loaded = (max(loaded, free) if prefetch else ended) + seconds
        start = max(ended, loaded)
        waits[number] = start - ended
        begun.append(start)
        ended = start + step_s
    return waits
