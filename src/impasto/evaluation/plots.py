"""Loss curves, as pictures."""

import io
import logging
from collections.abc import Mapping, Sequence
from itertools import cycle

STROKES = {"content": "-", "style": ":", "loss": "--"}
_LOG = logging.getLogger("impasto")


def plot_terms(runs: Mapping[str, Sequence[Mapping[str, int | float]]]) -> bytes:
    """Draws the terms of each run over its steps, one colour a run, content solid, style dotted, their sum dashed.

    Args:
        runs: rows by name of the run: `step`, and the terms as fractions.

    Returns:
        A PNG; nothing, and says why, where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        _LOG.warning("no plot of the terms: pip install 'impasto[report]' brings what draws it")
        return b""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="fraction (1: nothing of the style, or of the content)")
    colors = dict(zip(runs, cycle(f"C{number}" for number in range(10)), strict=False))
    for name, rows in runs.items():
        for term, stroke in STROKES.items():
            # A term of weight 0 is in no row; one that is 0, as the content's at a start from the photo, has no log.
            values = [row.get(term) or float("nan") for row in rows]
            axes.semilogy([row["step"] for row in rows], values, stroke, color=colors[name])
    legend = [axes.plot([], [], color=color, label=name)[0] for name, color in colors.items()]
    legend += [axes.plot([], [], stroke, color="black", label=term)[0] for term, stroke in STROKES.items()]
    figure.legend(handles=legend, loc="outside right upper", fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
