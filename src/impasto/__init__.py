"""impasto: fast neural style transfer that is trained, measured and shipped properly."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impasto.choices import LossOptions, OptimizeOptions
    from impasto.inference import Stylizer
    from impasto.networks import load_network, save_network
    from impasto.perceptual.loss import PerceptualLoss
    from impasto.reference import optimize_image

_HOMES = {
    "Stylizer": "impasto.inference",
    "load_network": "impasto.networks",
    "save_network": "impasto.networks",
    "LossOptions": "impasto.choices",
    "PerceptualLoss": "impasto.perceptual.loss",
    "OptimizeOptions": "impasto.choices",
    "optimize_image": "impasto.reference",
}
__all__ = [
    "LossOptions", "OptimizeOptions", "PerceptualLoss", "Stylizer",
    "load_network", "optimize_image", "save_network",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the module of a public name on first use, so that `import impasto` is quick."""
    if name == "__version__":
        from importlib import metadata  # slower to import than everything else here

        return metadata.version("impasto")
    if name not in _HOMES:
        raise AttributeError(f"module 'impasto' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
