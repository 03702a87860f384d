"""The host's own work beside a job: reading, decoding, writing checkpoints, encrypting.

Like the kitchen behind a restaurant: no guest sees it until it is slow. Everything here is one core's work,
on a scratch folder that is removed afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from calibrate.blocks import wall_block
from calibrate.environment import Machine, import_torch
from calibrate.measure import Point, StopRule, Warn
from calibrate.microbenchmarks.common import rows_of

FILE_BYTES, MOST_FILE_BYTES = 2**25, 2**28
IMAGE = (375, 500, 3)
"""Height, width and channels of an average ImageNet picture (Russakovsky et al. 2015, arXiv 1409.0575)."""
FILES = 64
RULE = StopRule(block_s=0.005, max_blocks=30, warm_up_blocks=2, max_calls=64)


def storage(machine: Machine, budget_s: float, seed: int, warn: Warn) -> Iterator[dict[str, Any]]:
    """Rows of table ``storage``: write, read (asked not to come from memory), small files, a checkpoint.

    ``op`` is ``write``, ``read``, ``create`` (one small file: made, written, named), ``open`` or ``checkpoint``
    (torch.save of a state of so many bytes, synced).
    """
    torch = import_torch()
    size = int(min(max(FILE_BYTES, 5e7 * budget_s), MOST_FILE_BYTES))
    with tempfile.TemporaryDirectory(prefix="rackcast-") as name:
        folder = Path(name)
        free = os.statvfs(folder)
        if free.f_bavail * free.f_frsize < 8 * size:
            warn(f"storage: less than {8 * size:.3g} bytes free in {tempfile.gettempdir()}, left out")
            return
        state = {"weights": torch.randn(size // 4)}
        content = os.urandom(size)
        (folder / "read").write_bytes(content)
        calls: dict[str, tuple[int, Callable[[], Any]]] = {
            "write": (size, lambda: _write(folder / "write", content)),
            "read": (size, lambda: _read(folder / "read")),
            "create": (4096, _creator(folder)),
            "open": (4096, lambda: (folder / "read").open("rb").close()),
            "checkpoint": (size, lambda: _checkpoint(torch, folder / "checkpoint", state)),
        }
        points = [
            Point({"op": op, "bytes": moved, "engine": "posix"}, lambda call=call: wall_block(call))
            for op, (moved, call) in calls.items()
        ]
        yield from rows_of(machine, points, budget_s, seed, warn, rule=RULE)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> None:
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(2**22):
            pass


def _creator(folder: Path) -> Callable[[], None]:
    turn = iter(range(1 << 62))

    def call() -> None:
        number = next(turn) % FILES
        path = folder / f"small-{number}"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        path.write_bytes(b"x" * 4096)

    return call


def _checkpoint(torch: Any, path: Path, state: Any) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def loader(machine: Machine, budget_s: float, seed: int, warn: Warn) -> Iterator[dict[str, Any]]:
    """Rows of table ``loader``: one core's time to decode and normalise one picture.

    JPEG where Pillow is there, else zlib, which the engine column and a warning say.
    """
    torch = import_torch()
    pixels = torch.randint(0, 256, IMAGE, dtype=torch.uint8)
    smooth = pixels.float().mean(2, keepdim=True).expand(IMAGE).byte().contiguous()
    if importlib.util.find_spec("PIL"):
        decode, engine, size = _jpeg(torch, smooth)
    else:
        warn("loader: no Pillow here, so zlib stands in for JPEG")
        packed = zlib.compress(smooth.numpy().tobytes())
        engine, size = "zlib", len(packed)

        def decode() -> Any:
            flat = torch.frombuffer(bytearray(zlib.decompress(packed)), dtype=torch.uint8)
            return flat.view(IMAGE)

    def call() -> Any:
        picture = decode().permute(2, 0, 1)[None].float()
        small = torch.nn.functional.interpolate(picture, (224, 224), mode="bilinear", align_corners=False)
        return small.div_(255).sub_(0.45).div_(0.22)

    columns = {"op": "decode", "bytes": size, "values": 3 * 224 * 224, "engine": engine}
    yield from rows_of(machine, [Point(columns, lambda: wall_block(call))], budget_s, seed, warn, rule=RULE)


def _jpeg(torch: Any, pixels: Any) -> tuple[Callable[[], Any], str, int]:
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=90)
    packed = buffer.getvalue()

    def decode() -> Any:
        return torch.from_numpy(np.array(Image.open(io.BytesIO(packed)).convert("RGB")))

    return decode, "pillow jpeg", len(packed)


def security(machine: Machine, budget_s: float, seed: int, warn: Warn) -> Iterator[dict[str, Any]]:
    """Rows of table ``security``: one core encrypting (AES-GCM), or hashing where that library is absent."""
    content = os.urandom(2**22)
    call, engine = _cipher(content)
    if engine == "sha256":
        warn("security: no cryptography library here, so SHA-256 stands in for AES-GCM")
    points = [
        Point({"op": "encrypt", "bytes": len(content), "engine": engine}, lambda: wall_block(call)),
    ]
    yield from rows_of(machine, points, budget_s, seed, warn, rule=RULE)


def _cipher(content: bytes) -> tuple[Callable[[], Any], str]:
    if importlib.util.find_spec("cryptography"):
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            cipher, nonce = AESGCM(os.urandom(32)), os.urandom(12)
            return lambda: cipher.encrypt(nonce, content, None), "aes-256-gcm"
        except ImportError:
            pass
    return lambda: hashlib.sha256(content).digest(), "sha256"
