"""What an iteration of the reference costs, compared with that of the usual recipe."""

import statistics
from collections.abc import Callable, Iterator

import torch

from impasto.benchmark.cost import Cost, cost_of_plain_recipe, cost_of_reference
from impasto.benchmark.measure import turns
from impasto.choices import LossOptions, OptimizeOptions
from impasto.reference import Reference


def reference_table(device: str, size: int, rounds: int) -> Iterator[str]:
    """Yield the lines of a Markdown table: milliseconds an iteration and peak memory, with vgg19.

    Every round measures each way once, in a fresh process; medians over the rounds are shown.
    """
    loss = LossOptions(balance="fixed", weights="random")
    plain, checkpointed = (
        Reference(OptimizeOptions(checkpointing=less), loss) for less in (False, True)
    )
    jobs: dict[str, Callable[[], Cost]] = {
        "usual recipe": lambda: cost_of_plain_recipe("vgg19", size, device),
        "impasto optimize": lambda: cost_of_reference(plain, size, device),
        "with --checkpointing": lambda: cost_of_reference(checkpointed, size, device),
    }
    yield f"{device}, {torch.get_num_threads()} threads, {size} pixels, vgg19, float32\n"
    yield "| reference | an iteration of L-BFGS, ms (× faster) | peak memory, MiB (share) |"
    yield "|---|---|---|"
    costs: dict[str, list[Cost]] = {name: [] for name in jobs}
    for _ in turns(rounds, "reference"):
        for name, job in jobs.items():
            costs[name].append(job())
    first = statistics.median(cost.seconds for cost in costs["usual recipe"])
    whole = statistics.median(cost.mebibytes for cost in costs["impasto optimize"])
    for name, found in costs.items():
        seconds = statistics.median(cost.seconds for cost in found)
        memory = statistics.median(cost.mebibytes for cost in found)
        yield (
            f"| {name} | {seconds * 1e3:.0f} ({first / seconds:.2f}) "
            f"| {memory:.0f} ({memory / whole:.2f}) |"
        )
    yield ""
