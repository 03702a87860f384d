"""Matrix products over a designed grid of shapes: like test loads hung on a crane, small, large and awkward.

``TN`` is a forward product (weights stored n x k), ``NN`` the gradient of its input, ``NT`` that of its weights;
``batch`` > 1 is one product for each expert. Shapes fill the space of (m, n, k) evenly in the logarithm, with a few
anchors (squares for the peak, one row for weight streaming, odd sizes for alignment), and none takes longer than its
share of the budget.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from calibrate.blocks import device_block
from calibrate.environment import Machine, import_torch
from calibrate.measure import Block, Point, Warn
from calibrate.microbenchmarks.common import ENGINE, REFUSALS, Earlier, in_turn, rows_of
from calibrate.microbenchmarks.ranks import first_line

Shape = tuple[int, int, int]

PLAIN = {"float32": "float32", "tf32": "float32", "bfloat16": "bfloat16", "float16": "float16"}
"""Formats of the ordinary product, with torch's name of what the operands are."""
TORCH_NAMES = ("float32", "tf32", "bfloat16", "float16", "fp8", "int8")
"""Number formats tried, as measurement files name them; those the device refuses are left out."""
VALUE_BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2, "fp8": 1, "int8": 1}
LAYOUTS = ("TN", "TN", "NN", "NT")
"""In turn over the shapes of a format; forward twice, because serving has nothing else."""
GROUPED = (
    (8, 64, 512, 256), (8, 128, 1024, 512), (16, 256, 2816, 1024), (64, 256, 2816, 2048), (8, 2048, 14336, 4096),
)  # fmt: skip
"""(experts, rows of each, n, k), from toys to Mixtral's up projection (arXiv 2401.04088)."""
FEW_ROWS = 16
"""Products of so few rows stream their weights: a CPU is given others each time, as a step would."""
SLOWEST_FRAC = 0.5
"""A 16- or 8-bit format slower than this share of float32 has no unit of its own: nobody would use it."""
SECONDS_PER_POINT = 0.25
FEWEST, MOST = 8, 120
"""Shapes per format; fewer cannot be fitted."""
LEAST_CALL_S = 1e-3
"""A call may take so long however short the budget: smaller products tell nothing of large ones."""
LARGEST = 16384
PLASTIC = 1.2207440846057596
"""Root of x**4 = x + 1, the base of the additive recurrence in three dimensions."""


def measure(
    machine: Machine, budget_s: float, seed: int, warn: Warn, earlier: Earlier | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of table ``gemm``: every format the device supports, C[m,n] = A[m,k] B[k,n], device time only.

    Operands are normal random numbers, because zeros draw less power and run faster.
    """
    torch = import_torch()
    torch.manual_seed(seed)
    begin, earlier = time.perf_counter(), earlier or Earlier()
    peaks = {name: rate for name, rate in earlier.rates.items() if name in TORCH_NAMES}
    if not peaks:
        peaks = supported(torch, machine, warn)
        earlier.rates.update(peaks)
    if not peaks:
        warn("matmul: no number format runs on this device")
        return
    whole_s = budget_s
    budget_s = earlier.rate("budget_s", lambda: max(whole_s - (time.perf_counter() - begin), 0.0))
    main = "bfloat16" if machine.is_cuda and "bfloat16" in peaks else next(iter(peaks))
    formats = 1 + (len(peaks) - 1) / 3  # the main one gets most of the shapes
    count = int(min(max(budget_s / formats / SECONDS_PER_POINT, FEWEST), MOST))
    cap_s = max(budget_s / (count * formats) / 8, LEAST_CALL_S)  # warm-up and six blocks fit a point's share
    memory_bytes = machine.memory_bytes / 8
    points = [
        _point(torch, machine, dtype, shape, LAYOUTS[number % len(LAYOUTS)])
        for dtype, peak in peaks.items()
        for number, shape in enumerate(
            shapes(
                count if dtype == main else max(FEWEST, count // 3),
                seed,
                cap_s * peak,
                memory_bytes / VALUE_BYTES[dtype],
            )
        )
        if _takes(dtype, shape)
    ]
    points += [
        _point(torch, machine, main, (m, n, k), "TN", batch)
        for batch, m, n, k in GROUPED
        if 2.0 * batch * m * n * k <= 4 * cap_s * peaks[main]
    ]
    sentinel = _point(torch, machine, next(iter(peaks)), (512, 512, 512))
    least = len(points) if count == FEWEST else 2 * FEWEST
    yield from rows_of(machine, points, budget_s, seed, warn, earlier=earlier, sentinel=sentinel, least=least)


def shapes(count: int, seed: int, most_flop: float, most_values: float) -> list[Shape]:
    """``count`` shapes (m, n, k) of at most ``most_flop`` FLOP and ``most_values`` operand values.

    Even in the logarithm by the additive recurrence R3 (M. Roberts, *The unreasonable effectiveness of
    quasirandom sequences*, 2018); m from 1 to 16384, n and k from 64. Every eighth shape is left unaligned.
    """
    found: dict[Shape, None] = {}
    side = 1 << max(6, int(math.log2(max(most_flop / 2, 1)) / 3))
    for anchor in (
        (side, side, side),
        (side // 2, side, side),
        (1, side, side),
        (side - 1, side - 3, side - 5),
    ):
        if _fits(anchor, most_flop, most_values) and len(found) < count:
            found[anchor] = None
    number = 0
    while len(found) < count and number < 200 * count:
        number += 1
        u = [((seed % 997) * 0.382 + number / PLASTIC**axis) % 1 for axis in (1, 2, 3)]
        m = round(LARGEST ** u[0])
        n, k = (round(64 * (LARGEST / 64) ** share) for share in u[1:])
        if number % 8:
            m, n, k = (m if m < 16 else _to_multiple(m, 8)), _to_multiple(n, 64), _to_multiple(k, 64)
        if _fits((m, n, k), most_flop, most_values):
            found[m, n, k] = None
    return list(found)


def _takes(dtype: str, shape: Shape) -> bool:
    """Whether the 8-bit kernels take the shape: k and n in sixteens (fp8) or eights, and int8 more than 16 rows.

    Source: checks of torch._scaled_mm and torch._int_mm (aten/src/ATen/native/cuda/Blas.cpp).
    """
    m, n, k = shape
    if dtype not in ("fp8", "int8"):
        return True
    return n % 16 == 0 and k % 16 == 0 and (dtype == "fp8" or m > 16)


def normal(torch: Any, rows: int, cols: int, device: str) -> Any:
    """Normal random numbers, repeated beyond a million: drawing gigabytes takes longer than timing them."""
    values = rows * cols
    drawn = torch.randn(min(values, 2**20 + 7), device=device)
    return drawn.repeat(-(-values // len(drawn)))[:values].reshape(rows, cols)


def _to_multiple(value: int, step: int) -> int:
    return max(step, round(value / step) * step)


def _fits(shape: Shape, most_flop: float, most_values: float) -> bool:
    m, n, k = shape
    return 2 * m * n * k <= most_flop and m * k + n * k + m * n <= most_values


def supported(torch: Any, machine: Machine, warn: Warn) -> dict[str, float]:
    """Formats the device multiplies in hardware and their rough FLOP/s on a middling square."""
    size = 2048 if machine.is_cuda else 384
    rates: dict[str, float] = {}
    refused: list[str] = []
    for dtype in TORCH_NAMES:
        try:
            block = _prepare(torch, machine, dtype, (size, size, size))()
            block(1)
            rates[dtype] = 2 * size**3 / max(min(block(1) for _ in range(3)), 1e-9)
        except REFUSALS as fault:
            refused.append(f"{dtype} ({first_line(fault)})")
    if refused:
        warn(f"matmul: not offered here and left out: {', '.join(refused)}")
    slow = [name for name, rate in rates.items() if rate < SLOWEST_FRAC * rates.get("float32", 0.0)]
    for name in slow:
        warn(f"matmul: {name} left out, it reaches only {rates.pop(name):.2g} FLOP/s: emulated here")
    return rates


def _point(
    torch: Any, machine: Machine, dtype: str, shape: Shape, layout: str = "TN", batch: int = 1
) -> Point:
    m, n, k = shape
    if dtype in ("int8", "fp8"):
        layout = "TN"  # the only one that their kernels take
    columns = {"dtype": dtype, "m": m, "n": n, "k": k, "batch": batch, "layout": layout, "engine": ENGINE}
    return Point(columns, _prepare(torch, machine, dtype, shape, layout, batch))


def _prepare(
    torch: Any, machine: Machine, dtype: str, shape: Shape, layout: str = "TN", batch: int = 1
) -> Callable[[], Block]:
    def product() -> Callable[[], Any]:
        if dtype in PLAIN:
            return _plain(torch, machine, dtype, shape, layout, batch)
        return _narrow(torch, machine, dtype, shape)

    return lambda: device_block(product(), machine.device, 4 * machine.cache_bytes)


def _plain(
    torch: Any, machine: Machine, dtype: str, shape: Shape, layout: str, batch: int
) -> Callable[[], Any]:
    """A call that multiplies as a layer does, with the allocation of its result."""
    m, n, k = shape
    kind = getattr(torch, PLAIN[dtype])
    if dtype == "tf32" and not machine.is_cuda:
        raise NotImplementedError("tf32 has no matrix unit on a CPU")
    turned = {"TN": (False, True), "NN": (False, False), "NT": (True, False)}[layout]

    def operand(rows: int, cols: int, transposed: bool) -> Any:
        stored = (cols, batch * rows) if transposed else (batch * rows, cols)
        made = normal(torch, *stored, machine.device).to(kind)
        if batch == 1:
            return made.t() if transposed else made
        return made.reshape(batch, cols, rows).transpose(1, 2) if transposed else made.view(batch, rows, cols)

    a, b = operand(m, k, turned[0]), operand(k, n, turned[1])
    multiply = torch.mm if batch == 1 else torch.bmm

    def call() -> Any:
        return multiply(a, b)

    if not machine.is_cuda and m <= FEW_ROWS and layout == "TN":  # as in decode: weights are read once a step
        another = in_turn(machine, lambda: operand(k, n, turned[1]), float(batch * n * k * kind.itemsize))
        return lambda: multiply(a, another())
    if machine.is_cuda and dtype in ("float32", "tf32"):

        def call_as_told() -> Any:
            torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
            return multiply(a, b)

        return call_as_told
    return call


def _narrow(torch: Any, machine: Machine, dtype: str, shape: Shape) -> Callable[[], Any]:
    """A call in 8 bit; what the device lacks raises here or at the first call."""
    m, n, k = shape
    if not machine.is_cuda:
        raise NotImplementedError(f"{dtype} has no matrix unit on a CPU")
    if dtype == "int8":
        a = torch.randint(-127, 128, (m, k), dtype=torch.int8, device=machine.device)
        weight = torch.randint(-127, 128, (n, k), dtype=torch.int8, device=machine.device).t()
        return lambda: torch._int_mm(a, weight)
    # CDNA3 multiplies the variant without negative zero (AMD Instinct MI300 ISA); later ones the OCP format
    kind = torch.float8_e4m3fnuz if machine.generation == "cdna3" else torch.float8_e4m3fn
    a = normal(torch, m, k, machine.device).to(kind)
    weight = normal(torch, n, k, machine.device).to(kind).t()
    one = torch.ones((), device=machine.device)
    scaled = partial(torch._scaled_mm, a, weight, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    try:  # forward products accumulate fast in training and serving; torch before 2.2 has no such choice
        scaled(use_fast_accum=True)
    except TypeError:
        return scaled
    return partial(scaled, use_fast_accum=True)
