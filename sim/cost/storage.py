"""Reading and writing files, and feeding a training step: the pantry, the cook and the waiter.

The pantry (shared storage) serves each client up to its own rate and all clients up to the house's; the
cook (CPU cores) prepares batches; the waiter (host-to-device copy) carries them. Prefetching keeps some
plates ready, which hides a slow moment but never a kitchen that is too slow on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.parameters import Parameter

Floats = NDArray[np.float64]

STORAGE_PARAMETERS = (
    Parameter(
        "latency_s",
        "s",
        "first byte of a request",
        1e-3,
        1e-6,
        1.0,
        "assumed: parallel file system over RDMA",
    ),
    Parameter(
        "client_read_bytes_per_s",
        "B/s",
        "one client reading",
        1e10,
        1e7,
        1e12,
        "assumed: one 100 Gbit/s port",
    ),
    Parameter(
        "client_write_bytes_per_s", "B/s", "one client writing", 5e9, 1e7, 1e12, "assumed: half of reading"
    ),
    Parameter(
        "metadata_per_s", "1/s", "files opened, all clients", 1e5, 1e2, 1e7, "assumed: a few metadata servers"
    ),
)


@dataclass(frozen=True, slots=True)
class Storage:
    """Limits of a file system; rates in bytes/s, infinite where there is none."""

    read_bytes_per_s: float
    """All clients together."""
    write_bytes_per_s: float
    client_read_bytes_per_s: float = float("inf")
    client_write_bytes_per_s: float = float("inf")
    metadata_per_s: float = float("inf")
    """Files opened a second, all clients together."""
    latency_s: float = 0.0


def client_bytes_per_s(aggregate: ArrayLike, client: ArrayLike, clients: ArrayLike) -> Floats:
    """Rate of one of ``clients`` that are equally busy: its own limit or its fair share, whichever is
    less."""
    return np.asarray(
        np.minimum(client, np.asarray(aggregate, dtype=float) / np.asarray(clients, dtype=float))
    )


def read_s(
    storage: Storage, bytes_per_client: ArrayLike, clients: ArrayLike = 1, files_per_client: ArrayLike = 1
) -> Floats:
    """Seconds until every client has read its bytes; opening files goes on meanwhile and may be what
    limits."""
    rate = client_bytes_per_s(storage.read_bytes_per_s, storage.client_read_bytes_per_s, clients)
    return _transfer_s(storage, bytes_per_client, clients, files_per_client, rate)


def write_s(
    storage: Storage, bytes_per_client: ArrayLike, clients: ArrayLike = 1, files_per_client: ArrayLike = 1
) -> Floats:
    """Seconds until every client has written its bytes (a blocking checkpoint: the slowest client ends
    it)."""
    rate = client_bytes_per_s(storage.write_bytes_per_s, storage.client_write_bytes_per_s, clients)
    return _transfer_s(storage, bytes_per_client, clients, files_per_client, rate)


def _transfer_s(
    storage: Storage, size: ArrayLike, clients: ArrayLike, files: ArrayLike, rate: Floats
) -> Floats:
    metadata = np.asarray(clients, dtype=float) * np.asarray(files, dtype=float) / storage.metadata_per_s
    return np.asarray(storage.latency_s + np.maximum(np.asarray(size, dtype=float) / rate, metadata))


@dataclass(frozen=True, slots=True)
class Loading:
    """Seconds that one batch of one client spends in each stage of the loader; arrays broadcast together."""

    read_s: Floats
    preprocess_s: Floats
    copy_s: Floats

    @property
    def period_s(self) -> Floats:
        """Batches follow each other at the pace of the slowest stage (stages work on different batches)."""
        return np.asarray(np.maximum(np.maximum(self.read_s, self.preprocess_s), self.copy_s))

    @property
    def latency_s(self) -> Floats:
        """One batch through all stages."""
        return np.asarray(self.read_s + self.preprocess_s + self.copy_s)


def loading(
    storage: Storage,
    samples: ArrayLike,
    sample_bytes: ArrayLike,
    *,
    clients: ArrayLike = 1,
    preprocess_s_per_sample: ArrayLike = 0.0,
    cores: ArrayLike = 1,
    device_bytes_per_sample: ArrayLike = 0.0,
    host_to_device_bytes_per_s: ArrayLike = float("inf"),
) -> Loading:
    """The loader of one client: ``samples`` of ``sample_bytes`` read, prepared on ``cores``, copied to
    the device.

    ``preprocess_s_per_sample`` is on one core; ``device_bytes_per_sample`` what is copied after
    decoding.
    """
    count = np.asarray(samples, dtype=float)
    rate = client_bytes_per_s(storage.read_bytes_per_s, storage.client_read_bytes_per_s, clients)
    read = storage.latency_s + count * np.asarray(sample_bytes, dtype=float) / rate
    prepare = count * np.asarray(preprocess_s_per_sample, dtype=float) / np.asarray(cores, dtype=float)
    copy = (
        count
        * np.asarray(device_bytes_per_sample, dtype=float)
        / np.asarray(host_to_device_bytes_per_s, dtype=float)
    )
    return Loading(np.asarray(read), np.asarray(prepare), np.asarray(copy))


def loader_wait_s(
    step_s: ArrayLike,
    loader: Loading,
    prefetch: ArrayLike = 2,
    hiccup_s: ArrayLike = 0.0,
    steps_between_hiccups: ArrayLike = 1.0,
) -> Floats:
    """Seconds that a step waits for data on average, in the long run.

    Without prefetch each batch is loaded while the step stands still. With it the step waits for the
    mean shortfall of the slowest stage; a hiccup (a slow read of ``hiccup_s`` extra every so many steps)
    hides behind up to ``prefetch`` batches in store, if the loader has time to fill the store again.
    """
    step, depth = np.asarray(step_s, dtype=float), np.asarray(prefetch, dtype=float)
    extra, every = np.asarray(hiccup_s, dtype=float), np.asarray(steps_between_hiccups, dtype=float)
    shortfall = loader.period_s + extra / every - step
    uncovered = (extra - depth * step) / every
    return np.asarray(
        np.where(
            depth > 0, np.maximum(np.maximum(shortfall, uncovered), 0.0), loader.latency_s + extra / every
        )
    )
