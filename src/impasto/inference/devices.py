"""Choosing the device, and reporting that its memory does not suffice."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_NO_MEMORY = ("out of memory", "not enough memory", "DefaultCPUAllocator", "overflow")


def find_device(device: str) -> torch.device:
    """Return the device of a name: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.

    Raises:
        ValueError: another name, or a device that this machine does not have.
    """
    if device == "auto":
        without_cuda = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else without_cuda
    if not (match := re.fullmatch(r"cpu|mps|cuda(?::(\d+))?", device)):
        raise ValueError(f"device {device!r}: must be auto, cpu, cuda, cuda:N or mps")
    there = torch.backends.mps.is_available() if device == "mps" else True
    if device.startswith("cuda"):
        there = torch.cuda.is_available() and int(match[1] or 0) < torch.cuda.device_count()
    if not there:
        raise ValueError(f"device {device}: torch finds none on this machine; use cpu or auto")
    return torch.device(device)


@contextmanager
def memory_explained(said: str) -> Iterator[None]:
    """Turn an error about too little memory into a ValueError with the message `said`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not of_memory(error):
            raise
        raise ValueError(said) from error


def of_memory(error: Exception) -> bool:
    """Whether an error, of any library, says that memory does not suffice."""
    plain = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return plain or any(text in str(error) for text in _NO_MEMORY)
