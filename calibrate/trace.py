"""Any torch model as a list of kernels: a dress rehearsal on the meta device, where shapes flow and no value does.

A dispatch mode sees every operation of one forward pass just above the kernels, writes down its sizes and counts its
FLOP. Parameters are counted once however many modules share them. Nothing is allocated: a model of any size is traced
in seconds on a laptop.
"""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibrate.environment import import_torch

PRODUCTS = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2)}
"""Operation -> which arguments are the factors."""
FUSED_ATTENTION = ("scaled_dot_product", "_fused_sdp", "_flash_attention", "_efficient_attention")
FREE = {
    "view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "slice", "select", "split", "unbind",
    "alias", "detach", "unsqueeze", "squeeze", "as_strided", "arange", "empty", "empty_like", "split_with_sizes",
    "chunk", "unfold", "zeros", "ones", "full", "scalar_tensor", "lift_fresh", "_to_copy", "_reshape_alias",
    "new_empty",
}  # fmt: skip
"""Operations that move no data (views, allocations) or only once per model (constants)."""


GUESSED_BATCH = 64


class TraceError(ValueError):
    """A model that cannot be traced; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Op:
    """One kernel of the forward pass, by its sizes."""

    kind: str
    """``gemm``, ``conv``, ``attention``, ``lookup`` or ``pass`` (a pass over memory)."""
    name: str
    sizes: tuple[tuple[str, Any], ...]
    """Named sizes: gemm batch, m, n, k; conv in_channels, out_channels, size, kernel, stride, padding, groups; ..."""
    flop: float

    def row(self, calls: int) -> str:
        """As a row of the workload file, in the words of ``sim.spec.kernel_list``."""
        words = {name: value if isinstance(value, tuple) else (int(value),) for name, value in self.sizes}
        sizes = " ".join(f"{name}={'x'.join(map(str, value))}" for name, value in words.items())
        return f"{self.kind} calls={calls} {sizes} flop={self.flop!r}"


@dataclass(frozen=True, slots=True)
class Traced:
    """What one forward pass consists of."""

    name: str
    parameters: int
    """Trained weights; shared ones once."""
    buffers: int
    samples: int
    """Samples of the example inputs: the first size of the first of them."""
    ops: tuple[tuple[Op, int], ...]
    """Distinct kernels in order of their first call, each with the number of calls."""

    @property
    def flop(self) -> float:
        """FLOP of the matrix products, convolutions and attention of one forward pass."""
        return sum(op.flop * calls for op, calls in self.ops)


def load_target(target: str) -> Any:
    """The callable of ``module:function``.

    Raises:
        TraceError: not of that form, or the module or function is not there.
    """
    module, _, function = target.partition(":")
    if not module or not function:
        raise TraceError(f"{target!r}: expected module:function, such as mymodels.gpt:build")
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as fault:
        raise TraceError(f"{target!r}: {fault}") from None
    except AttributeError:
        raise TraceError(f"{target!r}: module {module} has no {function!r}") from None


def trace(build: Any, name: str = "") -> Traced:
    """Trace what ``build()`` returns: (module, example inputs), made and run on the meta device.

    Raises:
        TraceError: ``build`` returns something else, or the model looks at values (data-dependent shapes).
        TorchMissingError: torch does not import.
    """
    torch = import_torch()
    with torch.device("meta"):
        made = build()
        if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module)):
            raise TraceError(
                f"{name or build}: expected (torch.nn.Module, inputs), found {type(made).__name__}"
            )
        model, inputs = made
        model = model.to("meta")
        recorder = _recorder(torch)
        arguments = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        try:
            with torch.no_grad(), recorder:
                model(*arguments)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as fault:
            first = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
            raise TraceError(
                f"{name or build}: the forward pass does not run on the meta device: {first}"
            ) from None
    parameters = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() for b in model.buffers())
    counts = Counter(recorder.ops)
    tensors = [one for one in arguments if isinstance(one, torch.Tensor) and one.dim()]
    samples = int(tensors[0].shape[0]) if tensors else 1
    return Traced(name or type(model).__name__, parameters, buffers, samples, tuple(counts.items()))


def _recorder(torch: Any) -> Any:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Writes down each operation that reaches the kernels."""

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.ops: list[Op] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            out = func(*args, **(kwargs or {}))
            name = str(func.overloadpacket.__name__).rstrip("_")  # in place or not, the same kernel
            self.ops += _seen(name, args, out, torch)
            return out

    return Recorder()


def _seen(name: str, args: Sequence[Any], out: Any, torch: Any) -> Iterator[Op]:
    """The kernel of one operation; none for views and allocations."""
    if name in PRODUCTS:
        a, b = (tuple(args[at].shape) for at in PRODUCTS[name])
        batch, m, k, n = (a[0] if len(a) == 3 else 1), a[-2], a[-1], b[-1]
        sizes = (("batch", batch), ("m", m), ("n", n), ("k", k))
        yield Op("gemm", name, sizes, 2.0 * batch * m * n * k)
    elif name == "convolution":
        yield _convolution(args, out)
    elif any(mark in name for mark in FUSED_ATTENTION):
        query, key, value = (tuple(one.shape) for one in args[:3])
        pairs = math.prod(query[:-1]) * key[-2]
        shapes = (("query", query), ("key", key), ("value_dim", value[-1]))
        yield Op("attention", name, shapes, 2.0 * pairs * (query[-1] + value[-1]))
    elif name == "embedding":
        rows, dim = tuple(args[0].shape)
        yield Op("lookup", name, (("rows", rows), ("dim", dim), ("lookups", int(args[1].numel()))), 0.0)
    elif name not in FREE:
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        written = (
            out
            if isinstance(out, torch.Tensor)
            else next((o for o in out if isinstance(o, torch.Tensor)), None)
        )
        if written is not None and tensors:
            moved = sum(one.numel() * one.element_size() for one in [*tensors, written])
            yield Op("pass", name, (("values", int(written.numel())), ("bytes", int(moved))), 0.0)


def _convolution(args: Sequence[Any], out: Any) -> Op:
    """2 x taps x channels in (of a group) x values out; a transposed one is counted from its input."""
    x, weight, _, stride, padding, _, transposed, _, groups = args[:9]
    taps = math.prod(weight.shape[1:])
    places = x.numel() if transposed else out.numel()
    inside, outside = (int(x.shape[1]), int(out.shape[1]))
    sizes = (
        ("batch", int(x.shape[0])),
        ("in_channels", inside),
        ("out_channels", outside),
        ("size", tuple(map(int, x.shape[2:]))),
        ("kernel", tuple(map(int, weight.shape[2:]))),
        ("stride", tuple(map(int, stride))),
        ("padding", tuple(map(int, padding))),
        ("groups", int(groups)),
        ("transposed", bool(transposed)),
    )
    return Op("conv", "convolution", sizes, 2.0 * taps * places)


def to_toml(traced: Traced, target: str, system: str = "dgx-h100", nodes: int = 1) -> str:
    """A scenario that trains the traced model: the model is what was traced, all else is a first guess to change."""
    rows = "\n".join(f"  {json.dumps(op.row(calls))}," for op, calls in traced.ops)
    return f"""\
# The model is as traced; cluster, batch, optimizer and precision are first guesses to change.
name = {json.dumps(f"{traced.name} on {system}")}

[[cluster.pools]]
name = "pool"
system = {json.dumps(system)}
nodes = {nodes}

[training]
global_batch = {GUESSED_BATCH}
optimizer = "adamw"
precision = "bf16"

[training.plan]
micro_batch = 1

[training.model]
kind = "kernels"
name = {json.dumps(traced.name)}
source = {json.dumps(f"traced from {target}")}
params_total = {traced.parameters}
kernel_samples = {traced.samples}
# one forward pass of kernel_samples samples: {traced.flop:.6g} FLOP
kernels = [
{rows}
]
"""


def summary(traced: Traced) -> Mapping[str, Any]:
    """Counts by kind, for people and for ``--json``."""
    kinds = {kind: sum(calls for op, calls in traced.ops if op.kind == kind) for kind in _KINDS}
    return {
        "name": traced.name,
        "parameters": traced.parameters,
        "forward_flop": traced.flop,
        "kernels": kinds,
    }


_KINDS = ("gemm", "conv", "attention", "lookup", "pass")
