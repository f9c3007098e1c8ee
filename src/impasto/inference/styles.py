"""Which of the published networks knows a style."""

from impasto.choices import IMAGE_SUFFIXES
from impasto.networks import published_styles
from impasto.networks.styles import style_parts
from impasto.spelling import did_you_mean


def network_of(style: str) -> str:
    """The published network that knows a style, or all of a mixture; of several, that of the fewest styles.

    Raises:
        ValueError: none of them does.
    """
    known = published_styles()
    every = sorted({name for names in known.values() for name in names})
    wanted = style_parts(style, every)
    if unknown := [name for name in wanted if name not in every]:
        meant = did_you_mean(unknown[0], every)
        raise ValueError(
            f"style {unknown[0]!r} is unknown: {meant}published are {', '.join(every)}{_if_picture(unknown[0])}"
        )
    fitting = [name for name, names in known.items() if wanted.keys() <= {*names}]
    if not fitting:
        knowing = "; ".join(
            f"{network} knows {', '.join(names)}" for network, names in known.items()
        )
        raise ValueError(f"style {style!r}: no published network knows all of these: {knowing}")
    return min(fitting, key=lambda name: (len(known[name]), name))


def elsewhere(name: str) -> str:
    """What to do with a style that a network does not know: the published networks that do, or how to paint a file."""
    others = [network for network, styles in published_styles().items() if name in styles]
    return f"; {' and '.join(others)} would know it" if others else _if_picture(name)


def _if_picture(name: str) -> str:
    """What to do with a painting of one's own, where a style is named like a picture's file."""
    if not name.lower().endswith(IMAGE_SUFFIXES):
        return ""
    return f"; a painting of your own is painted with `impasto optimize PHOTO {name}`, or learned with `impasto train`"
