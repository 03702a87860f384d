"""Is the choice of each plan scenario the same under twenty seeds, or called too close? And how long does a plan take?

``python -m benchmarks.plan_stability [SCENARIO ...]`` prints a table; exit code 1 where a choice moves unannounced.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from sim import load
from sim.planning.capacity.evaluate import remembered
from sim.planning.capacity.plan import make_plan
from sim.planning.capacity.rates import rates
from sim.planning.capacity.trained import trained_by
from sim.spec.profiles import fits_for

SEEDS = 20
SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"


def stability(path: Path) -> tuple[Counter[str], Counter[str], float]:
    """Choices by name, those of them that were called too close, and CPU seconds of the first seed."""
    scenario = load(path)
    if scenario.demand is None or scenario.supply is None:
        raise ValueError(f"{path}: has no [demand] and [supply]")
    rate = remembered(rates(trained_by(fits_for(scenario.profile))))
    chosen, close, first_s = Counter[str](), Counter[str](), 0.0
    for seed in range(SEEDS):
        begun = time.process_time()
        made = make_plan(scenario.demand, scenario.supply, scenario.prices, rate, seed)
        first_s = first_s or time.process_time() - begun
        name = made.chosen.candidate.name
        chosen[name] += 1
        close[name] += made.choice.too_close
    return chosen, close, first_s


def main(paths: list[Path]) -> int:
    """Print a line for each scenario; 1 where a choice moved and was not called close."""
    moved = 0
    for path in paths:
        chosen, close, first_s = stability(path)
        usual = chosen.most_common(1)[0][0]
        told = ", ".join(
            f"{name} {count} ({close[name]} called close)" for name, count in chosen.most_common()
        )
        unsaid = sum(count - close[name] for name, count in chosen.items() if name != usual)
        moved += unsaid > 0
        print(f"{path.stem:28} {first_s:6.1f} s CPU  {told}", flush=True)
    return int(moved > 0)


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]] or sorted(SCENARIOS.glob("plan-*.toml"))))
