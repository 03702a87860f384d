"""The parts of a calibration and their share of its time: the chapter list of the field book.

Standard library alone, so that ``--help`` works on a node that has nothing else.
"""

from __future__ import annotations

PARTS = {
    "matmul": 0.19, "memory": 0.13, "attention": 0.10, "layer": 0.17, "launch": 0.02, "convolution": 0.06,
    "embedding": 0.05, "optimizer": 0.04, "copies": 0.03, "collective": 0.13, "overlap": 0.02, "loader": 0.01,
    "storage": 0.02, "security": 0.01, "compression": 0.01, "power": 0.01,
}  # fmt: skip
"""Parts of a run and their share of the budget."""
TABLE_OF = {"matmul": "gemm", "collective": "collectives"}
"""Table of a part that does not have its name."""
BY_POINT = (
    "matmul", "memory", "attention", "layer", "launch", "convolution", "embedding", "optimizer", "copies",
    "compression", "collective",
)  # fmt: skip
"""Parts that a killed run takes up in the middle, point by point. The others take seconds and begin again
(``overlap`` compares two points, which belong in one sitting); so does ``collective`` where others started its
ranks."""
WITH_RANKS = ("layer", "collective", "overlap")
"""Parts that start ranks."""
