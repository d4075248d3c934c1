"""HDR frames (BT.2100: PQ or HLG) -> SDR frames (BT.709) as a viewer with an ordinary screen should see them.

H, W pixels  C = 3 colours (RGB)

The curves are those of BT.2100, reference white is the 203 cd/m2 of BT.2408 and becomes nearly white; what is brighter
is rolled off into the rest, by the brightest of the three colours, so that hues stay.
"""

import functools
from typing import Literal

import numpy as np

Curve = Literal["PQ", "HLG"]
REFERENCE_WHITE_NITS = 203.0
HLG_PEAK_NITS, HLG_SYSTEM_GAMMA = 1000.0, 1.2
# Up to here brightness (1: reference white) stays as it is; above, it comes the nearer to 1 the brighter it is.
KNEE = 0.8
SDR_GAMMA = 2.4  # BT.1886
ROWS_AT_ONCE = 128  # float32 copies of a whole 4K frame would be hundreds of megabytes
# Linear light in these primaries -> in those of BT.709 (BT.2087 for BT.2020; P3 with the white of D65).
TO_BT709 = {
    "BT.709": np.eye(3, dtype=np.float32),
    "BT.2020": np.array(
        [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
    ),
    "P3": np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]], np.float32),
}
LUMINANCE_BT2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)


def to_sdr(codes_HWC: np.ndarray, *, curve: Curve, primaries: str = "BT.2020") -> np.ndarray:
    """Full-range R'G'B' as uint16 -> uint8, for an SDR screen."""
    sdr_HWC = np.empty(codes_HWC.shape, np.uint8)
    for top in range(0, len(codes_HWC), ROWS_AT_ONCE):
        rows = slice(top, top + ROWS_AT_ONCE)
        light_HWC = _light(codes_HWC[rows], curve=curve) @ TO_BT709[primaries].T
        np.maximum(light_HWC, 0.0, out=light_HWC)  # colours that BT.709 does not have
        brightest_HW1 = light_HWC.max(axis=-1, keepdims=True)
        over_HW1 = np.maximum(0.0, brightest_HW1 - KNEE) / (1 - KNEE)
        rolled_HW1 = KNEE + (1 - KNEE) * over_HW1 / (1 + over_HW1)
        light_HWC *= np.where(over_HW1 > 0, rolled_HW1 / np.maximum(brightest_HW1, KNEE), 1.0)
        sdr_HWC[rows] = np.rint(255.0 * np.minimum(light_HWC, 1.0) ** (1 / SDR_GAMMA))
    return sdr_HWC


def _light(codes_HWC: np.ndarray, *, curve: Curve) -> np.ndarray:
    """Coded colours -> light on the screen, 1 being reference white."""
    if curve == "PQ":
        return _pq_table()[codes_HWC]
    scene_HWC = _hlg_table()[codes_HWC]
    scene_luminance_HW1 = (scene_HWC @ LUMINANCE_BT2020)[..., None]
    return scene_HWC * scene_luminance_HW1 ** (HLG_SYSTEM_GAMMA - 1) * np.float32(HLG_PEAK_NITS / REFERENCE_WHITE_NITS)


@functools.cache
def _pq_table() -> np.ndarray:
    """-> for every 16-bit code the light that PQ means by it, 1 being reference white."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = np.linspace(0, 1, 65536) ** (1 / m2)
    nits = 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return (nits / REFERENCE_WHITE_NITS).astype(np.float32)


@functools.cache
def _hlg_table() -> np.ndarray:
    """-> for every 16-bit code the light of the scene that HLG means by it, 1 being its peak."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    code = np.linspace(0, 1, 65536)
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)
