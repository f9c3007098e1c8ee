"""Finding a published network that knows a style."""

from impasto.choices import IMAGE_SUFFIXES
from impasto.networks import published_styles
from impasto.networks.styles import style_parts
from impasto.spelling import did_you_mean


def network_of(style: str) -> str:
    """Return the published network that knows a style, or every style of a mixture.

    If several do, it is the one with the fewest styles.

    Raises:
        ValueError: no published network does.
    """
    known = published_styles()
    every = sorted({name for names in known.values() for name in names})
    wanted = style_parts(style, every)
    if unknown := [name for name in wanted if name not in every]:
        meant = did_you_mean(unknown[0], every)
        raise ValueError(
            f"style {unknown[0]!r} is unknown: {meant}published are {', '.join(every)}"
            f"{_if_picture(unknown[0])}"
        )
    fitting = [name for name, names in known.items() if wanted.keys() <= {*names}]
    if not fitting:
        knowing = "; ".join(
            f"{network} knows {', '.join(names)}" for network, names in known.items()
        )
        raise ValueError(f"style {style!r}: no published network knows all of these: {knowing}")
    return min(fitting, key=lambda name: (len(known[name]), name))


def elsewhere(name: str) -> str:
    """Return the end of a message about an unknown style: what the user can do instead.

    It names the published networks that know the style. If none does and `name` looks like an image
    file, it says how to paint with that file.
    """
    others = [network for network, styles in published_styles().items() if name in styles]
    return f"; {' and '.join(others)} would know it" if others else _if_picture(name)


def _if_picture(name: str) -> str:
    """Return how to use a painting of one's own, if `name` looks like an image file; else ""."""
    if not name.lower().endswith(IMAGE_SUFFIXES):
        return ""
    return (
        f"; a painting of your own is painted with `impasto optimize PHOTO {name}`, "
        "or learned with `impasto train`"
    )
