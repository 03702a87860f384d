"""Raw outputs of the tools that SuperBench runs: gpu-copy, GPU STREAM, nvbandwidth, InfiniBand loopback.

Four dialects of the same sentence, "so many bytes a second from here to there"; each reader is a function from text
to rows of table ``readings``. Formats as the tools print them; all figures are GB/s (1e9), InfiniBand MB/s (1e6).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from calibrate.importers.common import Row, reading


def copies(text: str, gpu: str, source: str) -> list[Row]:
    """gpu-copy: ``gpu0_to_gpu1_write_by_dma 279.287``."""
    found = re.findall(r"^(\w+_by_(?:sm|dma)\w*)\s+([\d.]+)\s*$", text, re.MULTILINE)
    return [
        reading(gpu, f"copy {name.replace('_', ' ')}", float(v) * 1e9, "B/s", source) for name, v in found
    ]


def streams(text: str, gpu: str, source: str) -> list[Row]:
    """GPU STREAM: ``STREAM_COPY_double_gpu_0_buffer_4294967296_block_128  6711.67 81.93``."""
    names = dict(re.findall(r'^Device (\d+): "([^"]+)"', text, re.MULTILINE))
    pattern = r"^STREAM_(\w+?)_(\w+?)_gpu_(\d+)_buffer_(\d+)_block_(\d+)\s+([\d.]+)"
    return [
        reading(
            gpu if gpu != "unknown" else names.get(device, gpu),
            f"stream {op.lower()} {dtype}, block {block}",
            float(value) * 1e9,
            "B/s",
            source,
            device=int(device),
        )
        for op, dtype, device, _, block, value in re.findall(pattern, text, re.MULTILINE)
    ]


def bandwidth_matrices(text: str, gpu: str, source: str) -> list[Row]:
    """nvbandwidth: a matrix for every test, rows are sources (or the CPU), columns devices."""
    names = dict(re.findall(r"^Device (\d+): (.+?) \(", text, re.MULTILINE))
    gpu = gpu if gpu != "unknown" else names.get("0", gpu)
    rows: list[Row] = []
    test = ""
    columns: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if found := re.match(r"Running (\w+)\.", line):
            test, columns = found[1], []
        elif test and not columns and words and all(word.isdigit() for word in words):
            columns = words
        elif columns and len(words) == len(columns) + 1 and words[0].isdigit():
            for column, value in zip(columns, words[1:]):  # noqa: B905 - lengths were compared
                if re.fullmatch(r"[\d.]+", value):  # N/A on the diagonal
                    name = f"{test.replace('_', ' ')}, {words[0]} to {column}"
                    unit, factor = ("s", 1e-9) if "latency" in test else ("B/s", 1e9)
                    rows.append(reading(gpu, name, float(value) * factor, unit, source))
        elif not words:
            columns = []
    return rows


def loopbacks(text: str, gpu: str, source: str) -> list[Row]:
    """perftest (``ib_write_bw -a``): size, iterations, peak and average MB/s."""
    verb = (re.findall(r"RDMA_(\w+) BW Test", text) or ["Write"])[0].lower()
    card = (re.findall(r"Device\s+: (\S+)", text) or [""])[0]
    seen: dict[int, float] = {}
    for size, average in re.findall(r"^\s*(\d+)\s+\d+\s+[\d.]+\s+([\d.]+)\s+[\d.]+\s*$", text, re.MULTILINE):
        seen.setdefault(int(size), float(average))  # server and client print the same line
    return [
        reading(gpu, f"InfiniBand {verb} loopback, {size} bytes, {card}", value * 1e6, "B/s", source)
        for size, value in seen.items()
    ]


LOGS: Mapping[str, tuple[str, Callable[[str, str, str], list[Row]]]] = {
    "gpu-copy": (r"^\w+_to_\w+_by_(?:sm|dma)", copies),
    "GPU STREAM": (r"^STREAM (?:Benchmark|_)", streams),
    "nvbandwidth": (r"^nvbandwidth Version", bandwidth_matrices),
    "ib_write_bw": (r"RDMA_\w+ BW Test", loopbacks),
}
"""Tool -> (what its output is known by, its reader)."""
