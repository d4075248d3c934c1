"""Text becomes a spoken waveform: the one door to eSpeak NG, which is loaded with ctypes (extra `world`).

eSpeak keeps state from one utterance to the next: random numbers, its gain control, and where it stands in the slow
wobble ("flutter") and the roughness of a voice. The first is seeded before each utterance. The others cannot be reset,
so it speaks too softly for the gain control, from a copy of its voices in which flutter and roughness are zero. What is
spoken then depends on the arguments alone, but for a few voices; those that `sounds` draws from were checked.

One library instance serves a process, one utterance at a time. Fork is safe: it waits for the utterance in progress.
"""

import atexit
import ctypes
import os
import shutil
import tempfile
import threading
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from avcap.errors import UserError

SAMPLE_RATE_HZ = 16_000

SYNCHRONOUS = 2  # output mode: samples go to a callback, before espeak_Synth returns
DONT_EXIT = 0x8000  # by default a failing espeak_Initialize ends the process
CHARS_UTF8 = 1
POSITION_CHARACTER = 1
RATE, VOLUME, PITCH = 1, 2, 3  # parameter numbers
VOLUME_PERCENT = 20  # soft enough never to start the gain control, which is slow and outlasts the utterance
SILENCE_BELOW = 0.01  # of the peak

_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(text: str, *, voice: str, speed_wpm: int, pitch: int) -> np.ndarray:
    """Text -> float32 waveform (S,) at 16 kHz, peak 1, silence trimmed. `voice` is accent+variant, pitch 0 to 99."""
    with _lock:
        engine = _start_engine()
        waveform_S = engine.speak(text, voice=voice, speed_wpm=speed_wpm, pitch=pitch)
        sample_rate_hz = engine.sample_rate_hz
    waveform_S = _trim(resample(waveform_S, from_hz=sample_rate_hz, to_hz=SAMPLE_RATE_HZ))
    return waveform_S / np.abs(waveform_S).max()


def resample(waveform_S: np.ndarray, *, from_hz: float, to_hz: float) -> np.ndarray:
    """float32 waveform (S,) at one rate -> (round(S * to_hz / from_hz),) at the other; nothing above half of either.

    The spectrum is cut or padded. The ratio is rounded to a fraction (error below 1e-6), so that both transforms have
    lengths with small factors.
    """
    ratio = Fraction(to_hz / from_hz).limit_denominator(1000)
    num_out = round(len(waveform_S) * to_hz / from_hz)
    num_units = _smooth_at_least(-(-(len(waveform_S) + 64) // ratio.denominator))  # 64: the filter's ringing must end
    spectrum_F = np.fft.rfft(waveform_S, num_units * ratio.denominator)
    num_kept = num_units * min(ratio.numerator, ratio.denominator) // 2
    spectrum_F = spectrum_F[:num_kept] * _low_pass(num_kept)
    return np.fft.irfft(spectrum_F, num_units * ratio.numerator)[:num_out] * np.float32(float(ratio))


@cache
def _low_pass(num_bins: int) -> np.ndarray:
    """Number of bins -> float32 gains: 1, and a smooth fall over the top twentieth, which keeps the ringing short."""
    gains_F = np.ones(num_bins, dtype=np.float32)
    num_falling = max(1, num_bins // 20)
    gains_F[-num_falling:] = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, num_falling + 1) / (num_falling + 1))
    return gains_F


@cache
def _smooth_at_least(number: int) -> int:
    """The smallest number of the form 2^a 3^b 5^c that is not below `number`."""
    while True:
        rest = number
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return number
        number += 1


def _trim(waveform_S: np.ndarray) -> np.ndarray:
    """Waveform -> the same from its first to its last sample above 1 % of the peak."""
    level_S = np.abs(waveform_S)
    loud = np.flatnonzero(level_S > SILENCE_BELOW * level_S.max())
    assert len(loud), "eSpeak NG spoke nothing"
    return waveform_S[loud[0] : loud[-1] + 1]


class _Engine:
    """eSpeak NG, loaded and initialised. Not thread-safe: callers hold the module's lock."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise UserError("no eSpeak NG: espeakng-loader is not installed; run pip install 'avcap[world]'") from error
        self._pieces: list[np.ndarray] = []
        self._callback = _Callback(self._take)  # kept alive here: the library calls it later
        self._library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        folder = _copy_steady_voices(Path(espeakng_loader.get_data_path()))
        self._variants = {path.name for path in (folder / "espeak-ng-data" / "voices" / "!v").iterdir()}
        self.sample_rate_hz: int = self._library.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(folder), DONT_EXIT)
        assert self.sample_rate_hz > 0, f"espeak_Initialize returned {self.sample_rate_hz} for {folder}"
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: ctypes._Pointer, num_samples: int, events: int | None) -> int:
        if samples and num_samples > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        return 0  # go on

    def speak(self, text: str, *, voice: str, speed_wpm: int, pitch: int) -> np.ndarray:
        """Text -> float32 waveform (S,) at the library's own rate."""
        # The library refuses an unknown accent (and keeps the former voice), but passes over an unknown variant.
        is_known_variant = voice.partition("+")[2] in self._variants
        if not is_known_variant or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"eSpeak NG has no voice {voice!r}; expected accent+variant, for example en-us+f3")
        self._library.espeak_SetParameter(RATE, speed_wpm, 0)
        self._library.espeak_SetParameter(PITCH, pitch, 0)
        self._library.espeak_SetParameter(VOLUME, VOLUME_PERCENT, 0)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._pieces.clear()
        data = text.encode() + b"\0"
        status = self._library.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, POSITION_CHARACTER, 0, CHARS_UTF8, None, None
        )
        assert status == 0 and self._pieces, f"espeak_Synth returned {status} for {text!r}"
        return np.concatenate(self._pieces).astype(np.float32) / 32768


@cache
def _start_engine() -> _Engine:
    """-> this process's engine (a forked process inherits its parent's)."""
    return _Engine()


def _copy_steady_voices(data: Path) -> Path:
    """eSpeak's data folder -> a temporary folder with a copy (1 MB: English only) whose voices do not wobble."""
    folder = Path(tempfile.mkdtemp(prefix="avcap-espeak-"))
    atexit.register(_remove_if_owner, folder, os.getpid())
    copy = folder / "espeak-ng-data"
    (copy / "voices" / "!v").mkdir(parents=True)
    (copy / "lang" / "gmw").mkdir(parents=True)
    for name in ("phondata", "phonindex", "phontab", "intonations", "en_dict"):
        shutil.copyfile(data / name, copy / name)
    for path in (data / "lang" / "gmw").glob("en*"):
        shutil.copyfile(path, copy / "lang" / "gmw" / path.name)
    for path in (data / "voices" / "!v").iterdir():
        (copy / "voices" / "!v" / path.name).write_bytes(path.read_bytes() + b"\nflutter 0\nroughness 0\n")
    return folder


def _remove_if_owner(folder: Path, pid: int) -> None:
    # A forked child inherits the exit handler, and must not pull the folder away from its parent.
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
