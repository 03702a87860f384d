"""What protection costs: envelopes on messages, guards at doors, marks in the weights.

Never one percentage for everything: encryption adds bytes to frames, slows a link or a core, and takes a
toll each time data cross between host and device, so what is paid depends on how the work moves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.parameters import Parameter

Floats = NDArray[np.float64]

MACSEC_HEADER_BYTES, IPSEC_HEADER_BYTES, TLS_RECORD_BYTES = 32.0, 60.0, 29.0
"""Added per frame (MACsec SecTag and tag, IEEE 802.1AE; ESP in tunnel mode, RFC 4303) or per record (RFC
8446 with its 5-byte header, 8-byte nonce where kept, 16-byte tag)."""

_CC = "arXiv 2606.23969 (B300, confidential mode)"

SECURITY_PARAMETERS = (
    Parameter("frame_bytes", "B", "payload of one frame", 4096.0, 64.0, 65536.0, "RDMA path MTU"),
    Parameter("link_rate_frac", "1", "line rate left while encrypting in the card", 1.0, 0.05, 1.0,
              "in-line engines run at line rate; mis-set BlueField-3: 0.1-0.2 (NVIDIA forum 326522)"),
    Parameter("host_aes_bytes_per_s", "B/s", "TLS or software AES-GCM on one core", 2e9, 2e8, 2e10,
              "assumed: 1-3 GB/s a core with AES-NI"),
    Parameter("compute_frac", "1", "kernel speed left in confidential mode", 0.998, 0.9, 1.0, _CC),
    Parameter("crossing_s", "s", "toll of a host-device copy in confidential mode", 1e-4, 1e-6, 1e-2,
              f"{_CC}: small copies 44 x a few microseconds"),
    Parameter("bounce_bytes_per_s", "B/s", "encrypted bounce buffer between host and device", 3e9, 1e8, 6e10,
              f"{_CC}: model load 34 x slower; assumed, one core encrypting"),
    Parameter("scale_up_bytes_per_s", "B/s", "encrypted NVLink, one way", 5.1e11, 1e10, 9e11, _CC),
    Parameter("storage_rate_frac", "1", "storage rate left with encryption at rest", 0.9, 0.05, 1.0,
              "dm-crypt about 10 %; fast local NVMe arrays fall to 0.1-0.5 (blog.nyman.re, 2025-08)"),
)  # fmt: skip


def wire_bytes(payload_bytes: ArrayLike, header_bytes: ArrayLike, frame_bytes: ArrayLike = 4096.0) -> Floats:
    """Bytes on the wire with a header on every frame: payload x (1 + header / frame)."""
    return np.asarray(
        np.asarray(payload_bytes, dtype=float) * (1 + np.asarray(header_bytes, dtype=float) / frame_bytes)
    )


def goodput_bytes_per_s(
    bytes_per_s: ArrayLike,
    header_bytes: ArrayLike,
    frame_bytes: ArrayLike = 4096.0,
    link_rate_frac: ArrayLike = 1.0,
) -> Floats:
    """Payload rate of an encrypted link: put it in place of the plain rate."""
    rate = np.asarray(bytes_per_s, dtype=float) * np.asarray(link_rate_frac, dtype=float)
    return np.asarray(rate / wire_bytes(1.0, header_bytes, frame_bytes))


def host_encryption_s(
    size_bytes: ArrayLike, cores: ArrayLike = 1, aes_bytes_per_s: ArrayLike = 2e9
) -> Floats:
    """CPU seconds of wall time to encrypt ``size_bytes`` on ``cores``; the transfer may hide it, the
    cores may not."""
    rate = np.asarray(cores, dtype=float) * np.asarray(aes_bytes_per_s, dtype=float)
    return np.asarray(np.asarray(size_bytes, dtype=float) / rate)


def host_copy_s(
    size_bytes: ArrayLike,
    bytes_per_s: ArrayLike,
    crossings: ArrayLike = 1,
    crossing_s: ArrayLike = 0.0,
    bounce_bytes_per_s: ArrayLike = float("inf"),
) -> Floats:
    """Copy between host and device: a toll for each crossing, then bytes at the bus's or the bounce
    buffer's rate.

    With the defaults it is the plain copy; confidential computing sets toll and bounce rate.
    """
    rate = np.minimum(np.asarray(bytes_per_s, dtype=float), bounce_bytes_per_s)
    return np.asarray(
        np.asarray(crossings) * np.asarray(crossing_s) + np.asarray(size_bytes, dtype=float) / rate
    )


def confidential_step_s(
    compute_s: ArrayLike,
    host_bytes: ArrayLike = 0.0,
    crossings: ArrayLike = 0.0,
    *,
    compute_frac: ArrayLike = 0.998,
    crossing_s: ArrayLike = 1e-4,
    bounce_bytes_per_s: ArrayLike = 3e9,
) -> Floats:
    """A step in confidential mode whose host copies are exposed: slower kernels, and what crosses pays.

    Launches count as crossings where each is sent alone; graphs make a step a handful of them.
    """
    copies = host_copy_s(host_bytes, bounce_bytes_per_s, crossings, crossing_s)
    return np.asarray(np.asarray(compute_s, dtype=float) / np.asarray(compute_frac) + copies)


def software_encrypted_collective_s(
    plain_s: ArrayLike, sent_bytes: ArrayLike, buckets: ArrayLike = 1, cores: ArrayLike = 1,
    aes_bytes_per_s: ArrayLike = 2e9, crossing_s: ArrayLike = 1e-4,
) -> Floats:  # fmt: skip
    """A collective whose bytes the host encrypts and decrypts (arXiv 2501.11771: 3-42 x by bucket size).

    Every byte sent is encrypted and every byte received decrypted, and each bucket crosses to the host
    and back.
    """
    tolls = 2 * np.asarray(buckets, dtype=float) * np.asarray(crossing_s)
    return np.asarray(
        np.asarray(plain_s) + host_encryption_s(2 * np.asarray(sent_bytes), cores, aes_bytes_per_s) + tolls
    )


def storage_goodput_bytes_per_s(bytes_per_s: ArrayLike, storage_rate_frac: ArrayLike = 0.9) -> Floats:
    """Rate of storage encrypted at rest."""
    return np.asarray(np.asarray(bytes_per_s, dtype=float) * np.asarray(storage_rate_frac))


def watermark_trigger_s(step_s: ArrayLike, trigger_samples: ArrayLike, batch_samples: ArrayLike) -> Floats:
    """Seconds a step that trigger samples mixed into a batch take: their share of it."""
    return np.asarray(
        np.asarray(step_s, dtype=float) * np.asarray(trigger_samples) / np.asarray(batch_samples)
    )


def watermark_regulariser_s(
    marked_weights: ArrayLike, bits: ArrayLike, memory_bytes_per_s: ArrayLike, flop_per_s: ArrayLike
) -> Floats:
    """Seconds a step that a weight regulariser takes (Uchida et al., arXiv 1701.04082): O(marked weights
    x bits).

    Projection of the marked weights on ``bits`` directions and its gradient, 4 FLOP each; weights read,
    gradients read and written (4 bytes), the projection matrix read twice.
    """
    weights, directions = np.asarray(marked_weights, dtype=float), np.asarray(bits, dtype=float)
    traffic = 12 * weights + 8 * weights * directions
    return np.asarray(
        np.maximum(traffic / memory_bytes_per_s, 4 * weights * directions / np.asarray(flop_per_s))
    )
