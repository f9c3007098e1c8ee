"""Convert wide colours and HDR to sRGB.

PQ and HLG are those of ITU-R BT.2100. The tone curve is the EETF of ITU-R BT.2390, which leaves
dark and middle tones as they are and rolls highlights off. SDR's white is HDR's reference white,
203 cd/m² (ITU-R BT.2408).
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8, UInt16

PQ, HLG = 16, 18  # codes of transfer functions, ITU-T H.273
_WHITE = 203.0  # cd/m²
_PEAK = 1000.0  # cd/m², the brightest light that keeps detail; most HDR is mastered up to it
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020's red, green and blue
# From other primaries (codes of H.273) to those of BT.709, in linear light.
_TO_709 = {
    9: [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    12: [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]],
}


def is_wide(primaries: int) -> bool:
    """Whether primaries, by their code in H.273, are those of BT.2020 or Display P3."""
    return primaries in _TO_709


def to_srgb(
    signal: UInt16[np.ndarray, "h w 3"], transfer: int, primaries: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Return levels of sRGB.

    Args:
        signal: R'G'B', full range.
        transfer: code of H.273: `PQ`, `HLG`; any other is shown like sRGB.
        primaries: code of H.273; see `is_wide`.
    """
    light = _light(transfer)[signal]
    if transfer == HLG:  # the system gamma of BT.2100 for a screen of 1000 cd/m²
        light *= _PEAK * np.power(light @ _LUMA, 0.2)[..., None]
    if transfer in (PQ, HLG):
        # BT.2390 applies the curve to each channel, among other ways. One factor for all three
        # channels keeps the hue.
        grid, factors = _roll_off()
        light *= np.interp(light.max(-1), grid, factors).astype(np.float32)[..., None]
    if is_wide(primaries):
        light = light @ np.array(_TO_709[primaries], np.float32).T
    return _levels()[(light.clip(0, 1) * 65535 + 0.5).astype(np.uint16)]


@lru_cache(4)
def _light(transfer: int) -> Float[np.ndarray, "65536"]:
    """Return the light of every signal: PQ in cd/m², HLG of the scene, others relative to white."""
    signal = np.linspace(0, 1, 65536)
    if transfer == PQ:
        light = _of_pq(signal)
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


@lru_cache(1)
def _levels() -> UInt8[np.ndarray, "65536"]:
    """Return the level of sRGB (IEC 61966-2-1) of linear light in [0, 1]."""
    light = np.linspace(0, 1, 65536)
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * signal).round().astype(np.uint8)


@lru_cache(1)
def _roll_off() -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Return light in cd/m², and the factor that brings it to a screen whose white is 1.

    The formula is that of BT.2390, 5.4.1, with black at 0.
    """
    light = np.concatenate([np.linspace(0, _PEAK, 4096), np.geomspace(_PEAK, 10_000, 256)[1:]])
    signal = np.minimum(_to_pq(light) / _to_pq(_PEAK), 1)
    white = _to_pq(_WHITE) / _to_pq(_PEAK)
    knee = 1.5 * white - 0.5
    t = (signal - knee) / (1 - knee)
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * white
    )
    shown = _of_pq(np.where(signal < knee, signal, curve) * _to_pq(_PEAK))
    factors = np.full_like(light, 1 / _WHITE)
    np.divide(shown, light * _WHITE, out=factors, where=light > 1e-3)
    return light, factors


_M, _N, _C = 2610 / 16384, 2523 / 32, (3424 / 4096, 2413 / 128, 2392 / 128)


def _of_pq(signal: np.ndarray) -> np.ndarray:
    root = signal ** (1 / _N)
    light = np.maximum(root - _C[0], 0) / (_C[1] - _C[2] * root)
    return 10_000 * light ** (1 / _M)


def _to_pq(light: np.ndarray | float) -> np.ndarray | np.float64:
    power = (np.asarray(light) / 10_000) ** _M
    return ((_C[0] + _C[1] * power) / (1 + _C[2] * power)) ** _N
