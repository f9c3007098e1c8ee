"""Convert the colours of clips to sRGB and back: other primaries and transfer functions, and HDR.

PQ and HLG are those of ITU-R BT.2100. The tone curve is the EETF of ITU-R BT.2390, which leaves
dark and middle tones as they are and rolls highlights off. SDR's white is HDR's reference white,
203 cd/m² (ITU-R BT.2408).
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, UInt8, UInt16

from impasto.images.cicp import (
    GAMMAS,
    HDR_WHITE,
    HLG,
    LIKE_SRGB,
    PQ,
    PRIMARIES,
    linear_light,
    pq_signal,
    xyz_matrix,
)

_PEAK = 1000.0  # cd/m², the brightest light that keeps detail; most HDR is mastered up to it
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020's red, green and blue
# Codes of the primaries of BT.709, which are sRGB's, and of two transfer functions.
_BT709, _SRGB = 1, 13
_WIDE = (9, 11, 12)  # those of BT.2020, DCI-P3 and Display P3
# Wide primaries in which a painting is written. White of DCI-P3 is greenish, and shown as white.
# BT.2020 is not among them: the standard has 10 bits or more, and 8 would show as bands. In 8 bits
# of its R'G'B', levels of sRGB are off by up to 15, and by 8 in Display P3.
_HELD = (11, 12)


def is_wide(primaries: int) -> bool:
    """Whether primaries, by their code in H.273, have colours far outside sRGB."""
    return primaries in _WIDE


def is_srgb(transfer: int, primaries: int) -> bool:
    """Whether colours are shown as sRGB's are, by their codes in H.273.

    An unspecified or unknown code counts as sRGB's.
    """
    return transfer not in (PQ, HLG, *GAMMAS) and not _differ(primaries)


def space_of_painting(transfer: int, primaries: int) -> tuple[int, int]:
    """Return the primaries and the transfer function, codes of H.273, for the result of a clip.

    They are the clip's own if it is SDR in DCI-P3 or Display P3, else those of BT.709. A transfer
    function that differs from sRGB's, or is not named, becomes sRGB's.
    """
    if primaries not in _HELD or transfer in (PQ, HLG):
        return _BT709, _BT709
    return primaries, transfer if transfer in LIKE_SRGB else _SRGB


def from_srgb(levels: UInt8[np.ndarray, "h w 3"], primaries: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return levels of sRGB in other primaries, with the transfer function of sRGB."""
    if not _differ(primaries):
        return levels
    return _of_light(_light(_SRGB, 255)[levels] @ np.linalg.inv(_to_bt709(primaries)).T)


def to_srgb(
    signal: UInt16[np.ndarray, "h w 3"],
    transfer: int,
    primaries: int,
    white: int = 65535,
    black: int = 0,
) -> UInt8[np.ndarray, "h w 3"]:
    """Return levels of sRGB.

    Args:
        signal: R'G'B', full range.
        transfer: code of H.273; see `is_srgb`.
        primaries: code of H.273; see `is_srgb`.
        white: the signal that stands for 1.
        black: the signal that stands for 0.
    """
    light = _light(transfer, white, black)[signal]
    if transfer == HLG:  # the system gamma of BT.2100 for a screen of 1000 cd/m²
        light *= _PEAK * np.power(light @ _LUMA, 0.2)[..., None]
    if transfer in (PQ, HLG):
        # BT.2390 applies the curve to each channel, among other ways. One factor for all three
        # channels keeps the hue.
        grid, factors = _roll_off()
        light *= np.interp(light.max(-1), grid, factors).astype(np.float32)[..., None]
    if _differ(primaries):
        light = light @ _to_bt709(primaries).T
    return _of_light(light)


def _of_light(light: Float32[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return levels, by the transfer function of sRGB, of linear light; 1 is white."""
    return _levels()[(light.clip(0, 1) * 65535 + 0.5).astype(np.uint16)]


def _differ(primaries: int) -> bool:
    return primaries in PRIMARIES and primaries != _BT709


@lru_cache(8)
def _to_bt709(primaries: int) -> Float32[np.ndarray, "3 3"]:
    """Return the matrix from other primaries to those of BT.709, in linear light."""
    matrix = np.linalg.solve(xyz_matrix(PRIMARIES[_BT709]), xyz_matrix(PRIMARIES[primaries]))
    return matrix.astype(np.float32)


@lru_cache(4)
def _light(transfer: int, white: int, black: int = 0) -> Float32[np.ndarray, "65536"]:
    """Return the light of every signal; see `linear_light`."""
    values = ((np.arange(65536) - black) / (white - black)).clip(0, 1)
    return linear_light(values, transfer).astype(np.float32)


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
    peak, white = pq_signal(np.array([_PEAK, HDR_WHITE]))
    signal, white = np.minimum(pq_signal(light) / peak, 1), white / peak
    knee = 1.5 * white - 0.5
    t = (signal - knee) / (1 - knee)
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * white
    )
    shown = linear_light(np.where(signal < knee, signal, curve) * peak, PQ)
    factors = np.full_like(light, 1 / HDR_WHITE)
    np.divide(shown, light * HDR_WHITE, out=factors, where=light > 1e-3)
    return light, factors
