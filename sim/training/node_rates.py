"""What a profile knows of a node beside its kernels: its doors, its pantry, its kitchen and its locks.

Copies between host and device, files, decoding, encryption and what sending costs computing. What was measured on
the very accelerator takes the place of what is assumed; what was not stays assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from sim.cost.storage import Storage
from sim.spec.device import Device
from sim.spec.model import Model
from sim.spec.profile import Constant, Fit, find
from sim.spec.scenario import Cluster
from sim.spec.workload import Training

PICTURES = ("cnn", "vit", "detector")
"""Kinds of models that are fed decoded pictures, which is what the loader's benchmark measures."""


@dataclass(frozen=True, slots=True)
class NodeRates:
    """Measured constants of a node; None = not measured."""

    host_to_device_bytes_per_s: Constant | None = None
    """Pinned copies."""
    device_to_host_bytes_per_s: Constant | None = None
    client_read_bytes_per_s: Constant | None = None
    """One node reading and writing files."""
    client_write_bytes_per_s: Constant | None = None
    storage_latency_s: Constant | None = None
    """Opening a file."""
    decode_bytes_per_s: Constant | None = None
    """Compressed bytes of pictures that one core decodes and normalises."""
    overlap_slowdown_frac: Constant | None = None
    """How much longer a product takes beside an all-reduce."""
    host_aes_bytes_per_s: Constant | None = None
    """AES-GCM on one core."""

    def on(self, device: Device) -> Device:
        """The device with the measured rate of copies to it."""
        rate = self.host_to_device_bytes_per_s
        return device if rate is None else replace(device, host_bytes_per_s=rate.value)

    def of(self, storage: Storage, *, kept_frac: float = 1.0, clients: int = 1) -> Storage:
        """The storage with what one node of ``clients`` processes reaches of it; ``kept_frac`` as encrypted at rest."""
        share, known = kept_frac / clients, {}
        if self.client_read_bytes_per_s is not None:
            known["client_read_bytes_per_s"] = self.client_read_bytes_per_s.value * share
        if self.client_write_bytes_per_s is not None:
            known["client_write_bytes_per_s"] = self.client_write_bytes_per_s.value * share
        if self.storage_latency_s is not None:
            known["latency_s"] = self.storage_latency_s.value
        return replace(storage, **known)


def node_rates(fits: Iterable[Fit], device: Device, ranks: int = 1) -> NodeRates:
    """What ``fits`` know of nodes with this accelerator; ``ranks`` that compute at once, for their overlap."""
    own = [fit for fit in fits if fit.key.get("accelerator") == device.key]

    def found(op: str, parameter: str, **key: str) -> Constant | None:
        some = [fit for fit in own if all(fit.key.get(name) == word for name, word in key.items())]
        fit = find(some, op, (("ranks", str(ranks)),))
        return None if fit is None else fit.parameters.get(parameter)

    return NodeRates(
        found("copies", "bytes_per_s", of="host_to_device", pinned="1"),
        found("copies", "bytes_per_s", of="device_to_host", pinned="1"),
        found("storage", "bytes_per_s", of="read"),
        found("storage", "bytes_per_s", of="checkpoint"),
        found("storage", "latency_s", of="open"),
        found("loader", "bytes_per_s", of="decode", engine="pillow jpeg"),
        found("overlap", "overlap_slowdown_frac"),
        found("security", "bytes_per_s", of="encrypt", engine="aes-256-gcm"),
    )


def as_measured(training: Training, rates: NodeRates) -> Training:
    """The job with measured figures where it states none: slowdown beside messages, cores' time a picture."""
    slower, decode, plan = rates.overlap_slowdown_frac, rates.decode_bytes_per_s, training.plan
    if slower is not None and plan.overlap_slowdown_frac == 0:
        training = replace(training, plan=replace(plan, overlap_slowdown_frac=slower.value))
    if decode is not None and training.loader is not None and _decodes(training):
        seconds = training.loader.sample_bytes / decode.value
        training = replace(training, loader=replace(training.loader, sample_cpu_s=seconds))
    return training


def _decodes(training: Training) -> bool:
    """Whether samples are pictures of a known size whose decoding the scenario does not time."""
    model, loader = training.model, training.loader
    pictures = isinstance(model, Model) and model.kind in PICTURES
    return pictures and loader is not None and loader.sample_bytes > 0 and loader.sample_cpu_s == 0


def used(rates: NodeRates, training: Training, cluster: Cluster) -> dict[str, Constant]:
    """The measured constants that a prediction of this job leans on, by name."""
    loader, run, plan = training.loader, training.run, training.plan
    copied = bool(loader and loader.sample_device_bytes > 0)
    saved = bool(run and run.checkpoint_every)
    offloads = plan.offload_optimizer or plan.offload_activations > 0
    read = cluster.storage is not None and bool(loader and loader.sample_bytes > 0)
    wanted: Sequence[tuple[str, bool]] = (
        ("host_to_device_bytes_per_s", copied or plan.offload_activations > 0),
        ("device_to_host_bytes_per_s", saved or offloads),
        ("client_read_bytes_per_s", read),
        ("client_write_bytes_per_s", cluster.storage is not None and saved),
        ("storage_latency_s", cluster.storage is not None and (read or saved)),
        ("decode_bytes_per_s", _decodes(training)),
        ("overlap_slowdown_frac", plan.overlap_slowdown_frac == 0 and cluster.devices > 1),
        ("host_aes_bytes_per_s", bool(run and run.security.confidential)),
    )
    known = {field.name: getattr(rates, field.name) for field in fields(rates)}
    return {name: known[name] for name, applies in wanted if applies and known[name] is not None}
