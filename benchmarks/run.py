"""Print every benchmark's table, error and time side by side: what ``make bench`` runs."""

import time

import accuracy
import choices
import classify
import conditional
import criteria
import defaults
import engine
import gpu
import hotspots
import images
import implied_sigma
import imports
import kde
import likelihood
import mass
import memory
import neural
import novelty
import precision
import published
import scaling
import selection
import stacking
import tolerance
import ucurve
from _common import describe_machine, full_requested

# In the order P1 to P9, then where the time goes.
MODULES = (
    engine,
    ucurve,
    images,
    kde,
    selection,
    choices,
    tolerance,
    scaling,
    memory,
    precision,
    imports,
    hotspots,
    gpu,
)
# Those that take minutes each, in full mode only.
SLOW = (
    accuracy,
    likelihood,
    mass,
    defaults,
    criteria,
    conditional,
    stacking,
    classify,
    novelty,
    neural,
    implied_sigma,
    published,
)


def main(full):
    """Print all tables, and how long each took."""
    describe_machine()
    runs = [(module.__name__, lambda module=module: module.run(full)) for module in MODULES]
    if full:
        runs += [(module.__name__, module.run) for module in SLOW]
    for name, call in runs:
        print(f"\n## {name}\n")
        start = time.perf_counter()
        call()
        print(f"\n({time.perf_counter() - start:.0f} s)", flush=True)


# Processes that are spawned for the memory table import this file too.
if __name__ == "__main__":
    main(full_requested())
