"""Plots of the terms of the loss."""

import io
import logging
from collections.abc import Mapping, Sequence
from itertools import cycle

STROKES = {"content": "-", "style": ":", "loss": "--"}  # matplotlib's line styles
_LOG = logging.getLogger("impasto")


def plot_terms(runs: Mapping[str, Sequence[Mapping[str, int | float]]]) -> bytes:
    """Plot the terms of each optimization over its steps, on a logarithmic scale.

    Each run has a colour. Content is solid, style dotted, and the loss dashed.

    Args:
        runs: by name of the run, a row for each step: `step`, the terms as fractions, and `loss`.

    Returns:
        A PNG file. Without matplotlib it is empty, and a warning is logged.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        _LOG.warning("no plot of the terms: pip install 'impasto[report]' brings what draws it")
        return b""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot(
        xlabel="step", ylabel="fraction (1: nothing of the style, or of the content)"
    )
    colors = dict(zip(runs, cycle(f"C{number}" for number in range(10)), strict=False))
    for name, rows in runs.items():
        for term, stroke in STROKES.items():
            # Two cases have no logarithm and are left out: a term of weight 0 is in no row, and
            # the content term is 0 where the optimization starts from the photo.
            values = [row.get(term) or float("nan") for row in rows]
            axes.semilogy([row["step"] for row in rows], values, stroke, color=colors[name])
    legend = [axes.plot([], [], color=color, label=name)[0] for name, color in colors.items()]
    legend += [
        axes.plot([], [], stroke, color="black", label=term)[0] for term, stroke in STROKES.items()
    ]
    figure.legend(handles=legend, loc="outside right upper", fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
