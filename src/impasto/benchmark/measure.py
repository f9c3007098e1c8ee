"""Measurement of time and of peak memory, in this process or in a fresh one."""

import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track

Found = TypeVar("Found")

MEBIBYTE = 2**20
# How fresh processes are started. They have imported modules, but done nothing else. A fork server,
# which Windows lacks, imports only once and then starts each process without delay.
FRESH = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CLEAR_PEAK = Path("/proc/self/clear_refs")  # Linux only; a 5 written here resets the peak memory


def now(device: str) -> float:
    """Wait until the device has finished its work and return the time in seconds."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(job: Callable[[], object], device: str) -> float:
    """Return the seconds that one call of `job` takes."""
    began = now(device)
    job()
    return now(device) - began


def measured_peak(job: Callable[[], object], device: str, before: float) -> float:
    """Return the peak memory of one call, in MiB above `before`.

    Args:
        job: what is called.
        device: the device whose memory counts: a GPU's, or this process's.
        before: the MiB that were in use before (`in_use`).
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR_PEAK.exists():
        CLEAR_PEAK.write_text("5")  # do not count an earlier peak, while networks were built
    job()
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / MEBIBYTE - before
    return resident(peak=True) - before


def in_use(device: str) -> float:
    """Return the MiB of the device's memory that this process has in use now."""
    return torch.cuda.memory_allocated() / MEBIBYTE if device.startswith("cuda") else resident()


def resident(peak: bool = False) -> float:
    """Return the memory of this process in MiB, now or at its peak.

    Outside Linux the peak is returned in both cases, as the present value is not known.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def turns(rounds: int, what: str) -> Iterator[int]:
    """Yield the numbers of the rounds and report progress on standard error.

    On a terminal this is a bar, elsewhere a line for each round.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(range(rounds), what, console=console, transient=True)
        return
    for number in range(rounds):
        print(f"{what}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        yield number


def alone(function: Callable[..., Found], *arguments: object) -> Found:
    """Return the result of a function that is called in a fresh process.

    The process has as many torch threads as this one.

    Args:
        function: a function at the top level of a module.
        arguments: its arguments, which are pickled.

    Raises:
        ValueError: the process was ended from outside, as by a system that is short of memory.
    """
    context: Any = multiprocessing.get_context(FRESH)  # its type lacks `Process`
    if FRESH == "forkserver":
        # The fork server imports these once, for all processes.
        context.set_forkserver_preload([function.__module__, "torch"])
    here, there = context.Pipe(duplex=False)
    work = (there, torch.get_num_threads(), function, arguments)
    process = context.Process(target=_answer, args=work, daemon=True)
    with _ctrl_c_left_to_this_process():
        process.start()
    there.close()
    try:
        found, error = here.recv()
    except EOFError:
        process.join()
        raise ValueError(
            f"the process that measured was ended, with status {process.exitcode}; is there too "
            f"little memory?"
        ) from None
    finally:
        process.kill()
        process.join()
    if error:
        raise error
    return found


def _answer(
    there: Connection, threads: int, function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    """Send what the function returns, or raises."""
    torch.set_num_threads(threads)
    try:
        there.send((function(*arguments), None))
    except Exception as error:
        there.send((None, error))


@contextmanager
def _ctrl_c_left_to_this_process() -> Iterator[None]:
    """Make processes that start meanwhile ignore Ctrl-C.

    Otherwise each would print a traceback. This process ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # Starting the tracker unblocks SIGINT. Start it now, or the first process starts it.
    resource_tracker.ensure_running()
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
