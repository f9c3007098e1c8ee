"""Seconds, and memory at its peak, also of a process of its own."""

import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import track

Found = TypeVar("Found")

MEBIBYTE = 2**20
# How a process is begun that has done nothing yet but import; elsewhere than on Windows each but the first at once.
FRESH = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CLEAR_PEAK = Path("/proc/self/clear_refs")  # of Linux: 5 forgets the most memory a process has had


def now(device: str) -> float:
    """Seconds on a clock, when the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(job: Callable[[], object], device: str) -> float:
    """What one call takes."""
    began = now(device)
    job()
    return now(device) - began


def measured_peak(job: Callable[[], object], device: str, before: float) -> float:
    """MiB that a call takes at its peak, above `before`, what was in use (`in_use`) earlier."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR_PEAK.exists():
        CLEAR_PEAK.write_text("5")  # what building the networks took for a moment does not count
    job()
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / MEBIBYTE - before
    return resident(peak=True) - before


def in_use(device: str) -> float:
    """MiB of the device's memory that this process has now."""
    return torch.cuda.memory_allocated() / MEBIBYTE if device.startswith("cuda") else resident()


def resident(peak: bool = False) -> float:
    """Memory of this process in MiB: now, or the most it has had. Outside Linux only the latter is known."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def turns(rounds: int, what: str) -> Iterator[int]:
    """Round after round, told of on standard error: by a bar on a terminal, elsewhere by a line each."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(range(rounds), what, console=console, transient=True)
        return
    for number in range(rounds):
        print(f"{what}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        yield number


def alone(function: Callable[..., Found], *arguments: object) -> Found:
    """What a function of a module gives in a fresh process, with as many threads."""
    context = multiprocessing.get_context(FRESH)
    if FRESH == "forkserver":
        context.set_forkserver_preload([function.__module__, "torchvision"])  # imported once, for all processes
    threads = torch.get_num_threads()
    with _ctrl_c_left_to_this_process():
        pool = context.Pool(1, torch.set_num_threads, (threads,))
    with pool:
        return pool.apply(function, arguments)


@contextmanager
def _ctrl_c_left_to_this_process() -> Iterator[None]:
    """What is begun meanwhile is not interrupted, and prints no traceback; the end of its pool ends it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # it is begun with the first pool otherwise, and would let signals through again
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
