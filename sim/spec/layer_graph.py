"""Networks stage by stage: a parts list from which the sizes of every convolution follow.

A stack of equal layers needs one row of numbers; a ResNet or a U-Net needs a table. The tables are in
``scenarios/catalog/layer_graphs.toml``; here they become units (one convolution, pooling or dense layer each) with
their parameters and FLOP.
"""

from __future__ import annotations

import functools
import importlib.resources
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


class LayerGraphError(ValueError):
    """A table that does not make a network; the message names graph and stage."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One operation with weights (or a pooling), on one sample."""

    stage: str
    """Stage and repeat: units of one name form a block."""
    kind: str
    """``conv``, ``transposed``, ``pool`` or ``dense``."""
    in_channels: int
    out_channels: int
    size: tuple[int, ...]
    """Input extent along each dimension."""
    kernel: int
    stride: int
    norm: str = "none"
    """``batch``, ``instance``, ``frozen`` or ``none``."""
    activation: bool = False
    bias: bool = False
    shared: bool = False
    adds: bool = False
    """A shortcut is added to its output."""

    @property
    def padding(self) -> int:
        """Values added on each side so that only the stride changes the size."""
        return (self.kernel - 1) // 2 if self.kind in ("conv", "pool") else 0

    @property
    def out_size(self) -> tuple[int, ...]:
        """Output extent along each dimension."""
        if self.kind == "transposed":
            return tuple(n * self.stride for n in self.size)
        if self.kind == "dense":
            return (1,) * len(self.size)
        return tuple((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in self.size)

    @property
    def in_values(self) -> int:
        """Values of the input."""
        return self.in_channels * math.prod(self.size)

    @property
    def out_values(self) -> int:
        """Values of the output."""
        return self.out_channels * math.prod(self.out_size)

    @property
    def parameters(self) -> int:
        """Trained weights: matrix, bias, scale and shift of the norm; none where shared or pooling."""
        if self.kind == "pool" or self.shared:
            return 0
        inside = self.in_values if self.kind == "dense" else self.in_channels * self.kernel ** len(self.size)
        own = inside * self.out_channels + (self.out_channels if self.bias else 0)
        return own + (2 * self.out_channels if self.norm in ("batch", "instance") else 0)

    @property
    def flop(self) -> float:
        """FLOP of a forward pass of one sample: 2 x taps x channels in x values out."""
        if self.kind == "pool":
            return 0.0
        if self.kind == "dense":
            return 2.0 * self.in_values * self.out_channels
        places = self.in_values if self.kind == "transposed" else self.out_values
        other = self.out_channels if self.kind == "transposed" else self.in_channels
        return 2.0 * math.prod((self.kernel,) * len(self.size)) * other * places


@dataclass(frozen=True, slots=True)
class LayerGraph:
    """All units of a network in order."""

    key: str
    source: str
    units: tuple[Unit, ...]

    @property
    def parameters(self) -> int:
        """Trained weights."""
        return sum(unit.parameters for unit in self.units)

    @property
    def flop(self) -> float:
        """FLOP of a forward pass of one sample."""
        return sum(unit.flop for unit in self.units)

    def blocks(self) -> dict[str, list[Unit]]:
        """Units by block, in order."""
        found: dict[str, list[Unit]] = {}
        for unit in self.units:
            found.setdefault(unit.stage, []).append(unit)
        return found


@functools.cache
def layer_graphs() -> Mapping[str, LayerGraph]:
    """The graphs that ship with rackcast, by the key of their model; read once."""
    folder = importlib.resources.files("scenarios") / "catalog"
    tables = tomllib.loads((folder / "layer_graphs.toml").read_text("utf-8"))
    return {key: graph_from(key, table) for key, table in tables.items() if "stages" in table}


def graph_from(key: str, table: Mapping[str, Any]) -> LayerGraph:
    """The graph of one table.

    Raises:
        LayerGraphError: an unknown kind of stage, or a reference to a stage that is not there.
    """
    channels, *size = table["input"]
    columns, *rows = table["stages"]
    outputs: dict[str, tuple[int, tuple[int, ...]]] = {"": (channels, tuple(size))}
    units: list[Unit] = []
    for row in rows:
        stage = _DEFAULTS | dict(zip(columns, row, strict=True))
        for reference in ("from", "skip"):
            if stage[reference] not in outputs:
                raise LayerGraphError(
                    f"{key}.{stage['name']}: no stage before it is called {stage[reference]!r}"
                )
        if stage["kind"] not in _KINDS:
            raise LayerGraphError(
                f"{key}.{stage['name']}: kind {stage['kind']!r} is not one of {', '.join(_KINDS)}"
            )
        into = outputs[stage["from"]]
        made = list(_units(stage, into, outputs[stage["skip"]][0] if stage["skip"] else 0, table["norm"]))
        units += made
        outputs[stage["name"]] = outputs[""] = made[-1].out_channels, made[-1].out_size
    last = units[-1]
    if last.kind == "dense":
        units[-1] = Unit(last.stage, "dense", last.in_channels, last.out_channels, last.size, 1, 1, bias=True)
    return LayerGraph(key, table["source"], tuple(units))


_KINDS = ("conv", "plain", "bottleneck", "double", "up", "max_pool", "mean_pool", "dense")
_DEFAULTS: dict[str, Any] = {"repeats": 1, "width": 0, "from": "", "skip": "", "shared": 0}


def _units(
    stage: Mapping[str, Any], into: tuple[int, tuple[int, ...]], skip: int, norm: str
) -> Iterator[Unit]:
    """Units of one stage; ``into`` is (channels, size) of its input, ``skip`` the channels joined to it."""
    name, kind, out, stride = stage["name"], stage["kind"], stage["channels"], stage["stride"]
    kernel, (channels, size), shared = stage["kernel"], into, bool(stage["shared"])

    def conv(
        place: str, inside: int, outside: int, extent: tuple[int, ...], k: int, s: int, **more: bool
    ) -> Unit:
        fixed = {"activation": True, "bias": norm == "none", **more}
        return Unit(place, "conv", inside, outside, extent, k, s, norm, shared=shared, **fixed)

    if kind == "max_pool":
        yield Unit(name, "pool", channels, channels, size, kernel, stride)
    elif kind == "mean_pool":
        yield Unit(name, "pool", channels, channels, size, size[0], size[0])
    elif kind == "dense":
        yield Unit(name, "dense", channels, out, size, 1, 1, activation=True, bias=True)
    elif kind == "up":
        yield Unit(name, "transposed", channels, out, size, 2, 2, bias=True)
        whole = tuple(2 * n for n in size)
        yield conv(name, out + skip, out, whole, kernel, 1)
        yield conv(name, out, out, whole, kernel, 1)
    else:
        for repeat in range(2 if kind == "double" else stage["repeats"]):
            step = stride if repeat == 0 else 1
            place = name if kind == "double" or stage["repeats"] == 1 else f"{name}.{repeat + 1}"
            after = tuple(-(-n // step) for n in size)
            if kind == "bottleneck":
                width = stage["width"]
                if repeat == 0:
                    yield conv(place, channels, out, size, 1, step, activation=False)
                yield conv(place, channels, width, size, 1, 1)
                yield conv(place, width, width, size, kernel, step)
                yield conv(place, width, out, after, 1, 1, adds=True)
            elif kind == "plain":
                yield Unit(place, "conv", channels, out, size, kernel, step, bias=True, shared=shared)
            else:
                yield conv(place, channels, out, size, kernel, step)
            channels, size = out, after
