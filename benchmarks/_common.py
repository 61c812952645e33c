"""What the benchmarks share: times, the machine's matrix rate, Markdown and one command line."""

import argparse
import os
import platform
import statistics
import time

import torch


def timed(call, repeats=5, warm_up=True):
    """Return the median wall time of a call, in seconds, and what it returned last."""
    if warm_up:
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), value


def peak_rate(dtype, size=1500):
    """Return the machine's rate of matrix products, in Flop/s."""
    a = torch.ones(size, size, dtype=dtype)
    return 2 * size**3 / timed(lambda: a @ a)[0]


def header(*names):
    """Print the head of a Markdown table."""
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names))


def row(*cells):
    """Print one row, at once: some take a minute to come."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def describe_machine():
    """Print what the times depend on."""
    rates = [f"{peak_rate(dtype) / 1e9:.0f}" for dtype in (torch.float64, torch.float32)]
    print(
        f"{os.cpu_count()} CPUs, {torch.get_num_threads()} torch threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}; matrix products at {rates[0]} (float64) and "
        f"{rates[1]} (float32) GFlop/s.",
        flush=True,
    )


def full_requested():
    """Read --quick or --full from the command line."""
    parser = argparse.ArgumentParser()
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes; the default")
    size.add_argument("--full", action="store_true", help="all sizes, less extrapolated")
    return parser.parse_args().full


def run_sections(sections):
    """Run the sections named on the command line, or all of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", choices=[[], *sections], help="default: all")
    for name in parser.parse_args().names or sections:
        print()
        sections[name]()
