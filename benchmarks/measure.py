"""Shared by the benchmarks: interleaved timing of variants, and peak memory in a separate process."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def medians(variants: Mapping[str, Callable[[], object]], runs: int, cpu_time: bool = False) -> dict[str, float]:
    """Median seconds of each variant, all in turns so that a noisy machine disturbs them alike; one run warms up.

    The order turns with each round, since caches favour who comes after a like one. ``cpu_time`` counts the time of
    this process instead of the clock's, for a machine with other work.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    for run in range(runs + 1):
        order.append(order.pop(0))
        for name in order:
            begin = clock()
            variants[name]()
            if run > 0:
                seconds[name].append(clock() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def status(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def peak_growth(work: Callable[[], object]) -> int:
    """Bytes by which the resident size of this process is larger at its peak during ``work`` than before."""
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # resets the peak to the present size
    work()
    return status("VmHWM") - before


def header(text: str, runs: int, cpu_time: bool) -> str:
    clock = "processor time" if cpu_time else "time"
    return f"{text}, {torch.get_num_threads()} threads, torch {torch.__version__}, median {clock} of {runs} in turns"
