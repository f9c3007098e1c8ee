"""Colour spaces by their codes in ITU-T H.273 (coding-independent code points, CICP)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# Chromaticities x, y of white, red, green and blue.
D65 = (0.3127, 0.3290)
PRIMARIES = {
    1: (*D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    5: (*D65, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
# Transfer functions. First, those that are a power, with its exponent.
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
# 13 is sRGB's own. The others are those of video, whose pictures are shown like sRGB.
LIKE_SRGB = (1, 6, 13, 14, 15)
PQ, HLG = 16, 18  # those of HDR
HDR_WHITE = 203.0  # cd/m², reference white of ITU-R BT.2408

D50 = np.array([0.9642, 1.0, 0.8249])  # white of ICC profiles
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_M, _N, _C = 2610 / 16384, 2523 / 32, (3424 / 4096, 2413 / 128, 2392 / 128)  # of PQ


def xyz_matrix(chromaticities: Sequence[float]) -> Float[np.ndarray, "3 3"]:
    """Return the matrix from linear RGB to XYZ under D50, with Bradford's adaptation of the white.

    Args:
        chromaticities: x and y of white, red, green and blue.
    """
    white, *columns = (
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in np.reshape(chromaticities, (4, 2))
    )
    primaries = np.stack(columns, 1)
    primaries = primaries * np.linalg.solve(primaries, white)
    scale = np.diag((_BRADFORD @ D50) / (_BRADFORD @ white))
    adapted: np.ndarray = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ primaries
    return adapted


def linear_light(signal: Float[np.ndarray, "..."], transfer: int) -> Float[np.ndarray, "..."]:
    """Return the linear light of a signal in [0, 1].

    Args:
        signal: values of R', G' or B'.
        transfer: code of the transfer function; one that is not listed here counts as sRGB's.

    Returns:
        For PQ, light of the screen in cd/m²; for HLG, light of the scene in [0, 1] (both ITU-R
        BT.2100); else light relative to white.
    """
    if transfer == PQ:
        root = signal ** (1 / _N)
        return 10_000 * (np.maximum(root - _C[0], 0) / (_C[1] - _C[2] * root)) ** (1 / _M)
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    if transfer in GAMMAS:
        return signal ** GAMMAS[transfer]
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def pq_signal(light: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return the signal of PQ for light in cd/m²."""
    power = (light / 10_000) ** _M
    return ((_C[0] + _C[1] * power) / (1 + _C[2] * power)) ** _N
