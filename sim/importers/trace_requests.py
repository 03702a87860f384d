"""Calls of served models: when each came and how many tokens it had.

| kind | columns |
|---|---|
| Azure LLM inference | TIMESTAMP, ContextTokens, GeneratedTokens (Azure/AzurePublicDataset; Patel, ISCA 2024) |
| Mooncake | JSON lines: timestamp (ms), input_length, output_length, hash_ids (kvcache-ai/Mooncake, FAST 2025) |
| either as a plain table | arrival_s, input_tokens, output_tokens, prefix_block_hash_ids |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from sim.importers.imported import Parts, Request, Tally
from sim.importers.moments import amount, moment
from sim.importers.sources import Source, refuse, table


def read_requests(sources: Sequence[Source], tally: Tally) -> Parts:
    """Requests in order of arrival, the first at 0 s.

    Raises:
        ScenarioError: a file in none of the forms.
    """
    found: list[Request] = []
    for source in sources:
        reader = _objects if source.text.lstrip()[:1] == "{" else _rows
        for place, arrival, row in reader(source):
            tally.records += 1
            tokens = [amount(row.get(name)) for name in ("input", "output")]
            if arrival is None or tokens[0] is None or tokens[1] is None or min(tokens[0], tokens[1]) < 0:
                tally.skip("time or number of tokens is not readable", place)
                continue
            blocks = tuple(int(word) for word in str(row.get("blocks") or "").split() if word.isdigit())
            found.append(Request(arrival, int(tokens[0]), int(tokens[1]), blocks))
    late = sum(b.arrival_s < a.arrival_s for a, b in pairwise(found))
    if late:
        tally.note("out of order of arrival: sorted", count=late)
    first = min((one.arrival_s for one in found), default=0.0)
    moved = [
        Request(one.arrival_s - first, one.input_tokens, one.output_tokens, one.prefix_blocks)
        for one in found
    ]
    return Parts(requests=sorted(moved, key=lambda one: one.arrival_s), dated=False)


Told = Iterator[tuple[str, float | None, Mapping[str, Any]]]


def _rows(source: Source) -> Told:
    header, rows = table(source)
    forms = {
        "TIMESTAMP": ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        "arrival_s": ("arrival_s", "input_tokens", "output_tokens"),
    }
    names = next((form for key, form in forms.items() if key in header), None)
    missing = [name for name in names if name not in header] if names else ["TIMESTAMP or arrival_s"]
    if names is None or missing:
        raise refuse(
            source.name,
            f"is no table of requests: missing columns {', '.join(missing)}",
            ",".join(header)[:60],
        )
    clock = moment if names[0] == "TIMESTAMP" else amount
    for line, cells in rows:
        row = dict(zip(header, cells, strict=False))
        yield (
            source.place(line),
            clock(row.get(names[0], "")),
            {
                "input": row.get(names[1]),
                "output": row.get(names[2]),
                "blocks": row.get("prefix_block_hash_ids"),
            },
        )


def _objects(source: Source) -> Told:
    for number, line in source.lines():
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError:
            item = None
        item = item if isinstance(item, Mapping) else {}
        hashes = item.get("hash_ids")
        milliseconds = amount(item.get("timestamp"))
        yield (
            source.place(number),
            None if milliseconds is None else milliseconds / 1000,
            {
                "input": item.get("input_length"),
                "output": item.get("output_length"),
                "blocks": " ".join(str(block) for block in hashes) if isinstance(hashes, list) else "",
            },
        )
