"""Frames of a camera, painted one after another in real time."""

from pathlib import Path

import numpy as np
import torch

from impasto.inference.frozen import Frame, FrozenPainter, unfrozen
from impasto.inference.steady import light_changed
from impasto.networks import TransformNet, load_network
from impasto.networks.styles import Number, Style

_LOOKED_AT = 8  # every so many pixels, to tell whether the light has changed


class LivePainter:
    """Paints frames with a frozen network: `painter = LivePainter("realtime", "great_wave")`.

    The network is frozen anew when the style, the size or the light of the frames changes. That
    takes as long as some five frames.

    Args:
        network: a published name, a file, or a network.
        style: a style or a mixture; None is allowed where there is one only.
        strength: from 0, the frame, to 1, fully stylized; may be changed at any time.
        threads: of ONNX Runtime; 0: as many as it takes.

    Raises:
        ValueError: the network or the style cannot be found, or the network cannot be frozen.
    """

    def __init__(
        self,
        network: TransformNet | str | Path,
        style: Style | None = None,
        strength: Number = 1.0,
        threads: int = 0,
    ) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(
                f"strength {strength}: must be from 0 (the frame) to 1 (fully stylized)"
            )
        loaded = network if isinstance(network, TransformNet) else load_network(network)
        if what := unfrozen(loaded) or ("no styles of its own" if loaded.any_picture else ""):
            raise ValueError(f"network {network}: has {what}; `impasto live` needs another")
        self.network, self.strength, self.threads = loaded, float(strength), threads
        self._frozen: FrozenPainter | None = None
        self._look = torch.zeros(2, 3)
        self._shape: tuple[int, ...] = ()
        self.set_style(style)

    @property
    def styles(self) -> list[str]:
        """Names of the network's styles."""
        return self.network.styles

    def set_style(self, style: Style | None) -> None:
        """Paint in another style or mixture from the next frame on.

        Raises:
            ValueError: an unknown style or a bad weight.
        """
        self._code = self.network.encode_style(style)
        self._frozen = None

    def __call__(self, frame: Frame) -> Frame:
        """Return the painted frame, H×W×3 levels of sRGB."""
        look = _look(frame)
        if self._frozen is None or self._shape != frame.shape or light_changed(self._look, look):
            self._frozen = FrozenPainter(self.network, self._code, frame, self.threads)
            self._look, self._shape = look, frame.shape
        stylized = self._frozen(frame)
        if self.strength == 1:
            return stylized
        share = round(256 * self.strength)
        mixed = stylized.astype(np.uint16) * share + frame.astype(np.uint16) * (256 - share)
        levels: Frame = ((mixed + 128) >> 8).astype(np.uint8)
        return levels


def _look(frame: Frame) -> torch.Tensor:
    """Return mean and deviation of each channel, 2×3 in [0, 1]."""
    few = torch.tensor(frame[::_LOOKED_AT, ::_LOOKED_AT].reshape(-1, 3)).float() / 255
    return torch.stack([few.mean(0), few.std(0, correction=0)])
