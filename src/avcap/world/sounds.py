"""A Scene becomes its sound track: voices of eSpeak NG, notes and noises of a SoundFont, at 16 kHz.

A sound of second k begins 0.02 to 0.10 s into it and is over by k + 0.95, but for its reverberation. What has no words
(voice, pitch, speed, loudness, onset, background noise, room) is drawn from the scene's seed. Domains whose sounds are
"unseen" draw from voices and pitches that training never hears.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from avcap.world.domains import get_domain
from avcap.world.scene import DIFFICULTIES, Scene, SoundAtom
from avcap.world.soundfont import load_recordings
from avcap.world.speech import SAMPLE_RATE_HZ, resample, speak

# Left out because their samples depend on what was said before: en-gb-scotland (its rolled r), and the variants
# announcer, caleb, edward, klatt, klatt3 and Reed.
ACCENTS = ("en-us", "en-us-nyc", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
TRAINING_VARIANTS = (
    "Alicia",
    "Andy",
    "Annie",
    "AnxiousAndy",
    "Denis",
    "Diogo",
    "Gene",
    "Gene2",
    "Henrique",
    "Hugo",
    "Jacky",
    "Lee",
    "Marco",
    "Mike",
    "Mr serious",
    "Nguyen",
    "Storm",
    "Tweaky",
    "adam",
    "anika",
    "antonio",
    "aunty",
    "benjamin",
    "boris",
    "ed",
    "f1",
    "f3",
    "f4",
    "f5",
    "grandma",
    "ian",
    "iven",
    "kaukovalta",
    "linda",
    "m1",
    "m2",
    "m4",
    "m5",
    "m6",
    "m7",
    "m8",
    "marcelo",
    "max",
    "michel",
    "miguel",
    "norbert",
    "paul",
    "quincy",
    "rob",
    "robert",
    "sandro",
    "shelby",
    "steph",
    "victor",
    "zac",
)
UNSEEN_VARIANTS = (
    "Andrea",
    "Mario",
    "Michael",
    "belinda",
    "david",
    "f2",
    "grandpa",
    "gustave",
    "m3",
    "pablo",
    "pedro",
    "travis",
)
TRAINING_VOICES = tuple(f"{accent}+{variant}" for accent in ACCENTS for variant in TRAINING_VARIANTS)
UNSEEN_VOICES = tuple(f"{accent}+{variant}" for accent in ACCENTS for variant in UNSEEN_VARIANTS)

TRAINING_PITCHES = tuple(float(semitones) for semitones in range(-6, 7))
UNSEEN_PITCHES = tuple(semitones + 0.5 for semitones in range(-6, 6))

ONSET_S = (0.02, 0.10)
END_S = 0.95
FADE_S = 0.04
GAIN = (0.3, 1.0)
LOUDNESS = 0.15  # root mean square of a sound before its gain; percussive ones are limited by their peak instead
PEAK = 0.9

SPEED_WPM = (150, 260)
VOICE_PITCH = (30, 70)
SPEECH_S = END_S - ONSET_S[1]

STROKE_GAP_S = (0.19, 0.235)
STROKE_JITTER_S = 0.008

NOISE_AMPLITUDE = (0.0002, 0.04)  # root mean square; the upper end times the difficulty's noise
REVERBERATION_LEVEL = (0.05, 0.25)  # root mean square of the echoes against that of the sound
REVERBERATION_S = (0.15, 0.7)  # time to fall by 60 dB, times the difficulty's noise


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """How a SoundFont recording becomes a sound of the world."""

    samples: tuple[str, ...]  # names in the SoundFont: different notes, one is drawn
    shift: float = 0.0  # semitones from the recorded pitch to a natural register
    decay_s: float | None = None  # time to fall to 1/e; None: as recorded
    held: bool = True  # the recording's loop goes on; False: struck once
    vibrato: bool = False


INSTRUMENTS = {
    "flute": Instrument(samples=("FluteA#5", "FluteC#6", "FluteG6")),
    "trumpet": Instrument(samples=("TrumpD#5", "TrumpG5", "TrumpA#5")),
    "piano": Instrument(samples=("Piano Db2", "Piano Ab2", "Piano Db3"), shift=-7, decay_s=0.5),
    "violin": Instrument(samples=("Violin D3", "Violin G3", "Violin C4"), shift=-3, vibrato=True),
    "guitar": Instrument(samples=("N Guitar D2", "N Guitar Gb2", "N Guitar B2"), shift=-7, decay_s=0.3),
    "bird": Instrument(samples=("Bird",)),
    "cymbal": Instrument(samples=("Med Crash Cymbal",), decay_s=0.3),
    "bell": Instrument(samples=("TubeBell",), decay_s=0.15),
    "drum": Instrument(samples=("Acoustic Tom", "Taiko Drum"), shift=-3, decay_s=0.1, held=False),
    "knock": Instrument(samples=("Wood Block",), shift=-5, decay_s=0.03, held=False),
}
HELD_S = (END_S - ONSET_S[0]) * 2**0.5  # enough of a recording when it is played 6 semitones higher
NUM_TAKES = 3  # of each noise


def render_audio(scene: Scene) -> np.ndarray:
    """Scene -> its sound track, float32 (duration_s * 16000,) in [-1, 1]. Same scene, same samples."""
    rng = np.random.default_rng([scene.seed, *b"sound"])
    noise = DIFFICULTIES[scene.difficulty].noise
    unseen = get_domain(scene.domain).unseen_sounds
    track_S = np.zeros(scene.duration_s * SAMPLE_RATE_HZ, dtype=np.float32)
    for atom in scene.sounds:
        waveform_S, start = _render_atom(atom, unseen=unseen, rng=rng)
        track_S[start : start + len(waveform_S)] += waveform_S
    if noise > 0:
        track_S = _add_room(track_S, noise=noise, rng=rng)
        track_S += _draw_background(len(track_S), noise=noise, rng=rng)
    return track_S / max(1.0, float(np.abs(track_S).max()))


def second_truth(scene: Scene) -> list[SoundAtom | None]:
    """Scene -> for every second its first sound, or None where nothing is heard."""
    slots: list[SoundAtom | None] = [None] * scene.duration_s
    for atom in reversed(scene.sounds):
        slots[atom.second] = atom
    return slots


def _render_atom(atom: SoundAtom, *, unseen: bool, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Atom -> its dry waveform, and the sample of the clip at which it begins."""
    onset_s = rng.uniform(*ONSET_S)
    gain = np.float32(rng.uniform(*GAIN))
    if atom.kind == "say":
        waveform_S = _say(atom, unseen=unseen, rng=rng)
    elif atom.kind == "counted":
        waveform_S = _strike(atom, unseen=unseen, rng=rng)
    else:
        waveform_S = _draw_note(atom, unseen=unseen, rng=rng)
    num_samples = int((END_S - onset_s) * SAMPLE_RATE_HZ)
    return gain * _fade_out(waveform_S[:num_samples]), int((atom.second + onset_s) * SAMPLE_RATE_HZ)


def _say(atom: SoundAtom, *, unseen: bool, rng: np.random.Generator) -> np.ndarray:
    """Atom -> its two words (S,) by a voice of the domain, spoken faster where they would not fit."""
    assert atom.words is not None
    voices = UNSEEN_VOICES if unseen else TRAINING_VOICES
    voice = voices[int(rng.integers(len(voices)))]
    speed_wpm, pitch = int(rng.integers(*SPEED_WPM)), int(rng.integers(*VOICE_PITCH))
    text = " ".join(atom.words)
    waveform_S = speak(text, voice=voice, speed_wpm=speed_wpm, pitch=pitch)
    too_long = len(waveform_S) / (SPEECH_S * SAMPLE_RATE_HZ)
    if too_long > 1:
        # A little more than the ratio: pauses shrink less than words do. What is still over, a few ms, is faded out.
        waveform_S = speak(text, voice=voice, speed_wpm=int(1.06 * too_long * speed_wpm), pitch=pitch)
    return _level(waveform_S)


def _strike(atom: SoundAtom, *, unseen: bool, rng: np.random.Generator) -> np.ndarray:
    """Atom -> `count` strokes (S,) of the same bell, drum or block, evenly spaced as by hand."""
    assert atom.count is not None
    stroke_S = _draw_note(atom, unseen=unseen, rng=rng)
    gap_s = rng.uniform(*STROKE_GAP_S)
    starts_s = gap_s * np.arange(atom.count) + rng.uniform(0, STROKE_JITTER_S, atom.count)
    gains = rng.uniform(0.85, 1.0, atom.count).astype(np.float32)
    waveform_S = np.zeros(int(END_S * SAMPLE_RATE_HZ), dtype=np.float32)
    for start_s, gain in zip(starts_s, gains, strict=True):
        start = int(start_s * SAMPLE_RATE_HZ)
        rest_S = waveform_S[start:]
        rest_S[: len(stroke_S)] += gain * stroke_S[: len(rest_S)]
    return waveform_S


def _draw_note(atom: SoundAtom, *, unseen: bool, rng: np.random.Generator) -> np.ndarray:
    """Atom -> one note or noise of its name (S,), of a drawn recording at a drawn pitch of the domain."""
    assert atom.name is not None
    pitches = UNSEEN_PITCHES if unseen else TRAINING_PITCHES
    semitones = pitches[int(rng.integers(len(pitches)))]
    num_takes = len(INSTRUMENTS[atom.name].samples) if atom.name in INSTRUMENTS else NUM_TAKES
    return _note(atom.name, take=int(rng.integers(num_takes)), semitones=semitones)


@cache  # about 900 notes of 60 kB when all of both domains have been heard
def _note(name: str, *, take: int, semitones: float) -> np.ndarray:
    """Name of a sound, which recording of it, pitch -> waveform (S,) at 16 kHz, levelled, at most END_S long."""
    factor = 2 ** (semitones / 12)
    if name in INSTRUMENTS:
        waveform_S = _play(INSTRUMENTS[name], take=take, factor=factor)
    else:
        noise_S = NOISES[name](np.random.default_rng([take, *name.encode()]))
        waveform_S = resample(noise_S, from_hz=factor * SAMPLE_RATE_HZ, to_hz=SAMPLE_RATE_HZ)
    waveform_S = _level(waveform_S[: int(END_S * SAMPLE_RATE_HZ)])
    waveform_S.flags.writeable = False
    return waveform_S


def _play(instrument: Instrument, *, take: int, factor: float) -> np.ndarray:
    """Instrument, which of its recordings, factor of frequency -> waveform (S,) at 16 kHz."""
    recording = load_recordings()[instrument.samples[take]]
    factor *= 2 ** (instrument.shift / 12)
    held_S = recording.hold(END_S * factor) if instrument.held else recording.waveform_S
    if instrument.vibrato:
        time_S = np.arange(len(held_S)) / recording.sample_rate_hz
        wobble_S = 0.0006 * np.sin(2 * np.pi * 5.5 / factor * time_S)  # about a third of a semitone, 5.5 times a second
        held_S = np.interp(time_S + wobble_S, time_S, held_S).astype(np.float32)
    waveform_S = resample(held_S, from_hz=factor * recording.sample_rate_hz, to_hz=SAMPLE_RATE_HZ)
    if instrument.decay_s is not None:
        time_S = np.arange(len(waveform_S), dtype=np.float32) / SAMPLE_RATE_HZ
        waveform_S = waveform_S * np.exp(-time_S / np.float32(instrument.decay_s))
    return _fade_out(waveform_S)


def _level(waveform_S: np.ndarray) -> np.ndarray:
    """Waveform -> the same at the common loudness, or at the peak where that comes first."""
    loudness = float(np.sqrt(np.mean(np.square(waveform_S))))
    return waveform_S * np.float32(min(LOUDNESS / loudness, PEAK / float(np.abs(waveform_S).max())))


def _fade_out(waveform_S: np.ndarray) -> np.ndarray:
    """Waveform -> a copy whose last FADE_S seconds fall to zero."""
    num_fading = min(len(waveform_S), int(FADE_S * SAMPLE_RATE_HZ))
    faded_S = waveform_S.copy()
    faded_S[len(faded_S) - num_fading :] *= np.linspace(1, 0, num_fading, dtype=np.float32)
    return faded_S


def _white(num_samples: int, *, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(num_samples, dtype=np.float32)


def _coloured(num_samples: int, *, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """-> noise (S,) of root mean square 1 whose amplitude falls with frequency ** exponent (0.5: pink), above 40 Hz."""
    num_padded = -(-num_samples // 8000) * 8000  # a length that is fast to transform
    spectrum_F = np.fft.rfft(_white(num_padded, rng=rng))
    hz_F = np.arange(len(spectrum_F), dtype=np.float32) * np.float32(SAMPLE_RATE_HZ / num_padded)
    noise_S = np.fft.irfft(spectrum_F * np.maximum(hz_F, 40) ** np.float32(-exponent), num_padded)[:num_samples]
    return noise_S / np.sqrt(np.mean(np.square(noise_S)))


def _rain(rng: np.random.Generator) -> np.ndarray:
    """-> rain (S,): hiss, and a few hundred drops, each a short ring of its own high pitch."""
    num_samples = int(HELD_S * SAMPLE_RATE_HZ)
    rain_S = 0.05 * np.diff(_white(num_samples + 1, rng=rng))  # the difference takes the low half out of the hiss
    time_D = np.arange(120, dtype=np.float32) / SAMPLE_RATE_HZ
    for start in rng.integers(0, num_samples - len(time_D), 350):
        drop_D = np.sin(2 * np.pi * rng.uniform(1500, 6000) * time_D) * np.exp(-time_D / 0.0015)
        rain_S[start : start + len(time_D)] += rng.exponential(0.4) * drop_D
    return rain_S.astype(np.float32)


def _applause(rng: np.random.Generator) -> np.ndarray:
    """-> applause (S,): the recorded crowd, and near hands that clap about forty times a second."""
    crowd, hand = (load_recordings()[name] for name in ("Applause", "Claps 808ish"))
    num_samples = int(HELD_S * SAMPLE_RATE_HZ)
    applause_S = 0.5 * resample(crowd.hold(HELD_S), from_hz=crowd.sample_rate_hz, to_hz=SAMPLE_RATE_HZ)[:num_samples]
    for start in rng.integers(0, num_samples - 2000, 55):
        from_hz = hand.sample_rate_hz * rng.uniform(0.8, 1.3)
        clap_S = resample(hand.waveform_S, from_hz=from_hz, to_hz=SAMPLE_RATE_HZ)[:600]
        applause_S[start : start + len(clap_S)] += rng.uniform(0.1, 0.6) * clap_S
    return applause_S


def _waves(rng: np.random.Generator) -> np.ndarray:
    """-> a wave (S,) that swells and runs out: the recorded surf, heard from a drawn place on, under a slow bow."""
    surf = load_recordings()["OceanWaves"]
    num_samples = int(HELD_S * SAMPLE_RATE_HZ)
    from_hz = 0.6 * surf.sample_rate_hz  # slower than recorded: deeper, unlike rain and cymbal
    surf_S = resample(surf.hold(HELD_S), from_hz=from_hz, to_hz=SAMPLE_RATE_HZ)
    start = int(rng.integers(0, num_samples // 4))
    bow_S = np.sin(np.pi * np.linspace(0, 1, num_samples, dtype=np.float32)) ** 2
    return surf_S[start : start + num_samples] * bow_S


def _telephone(rng: np.random.Generator) -> np.ndarray:
    """-> two rings (S,) of an old telephone's bell."""
    ring = load_recordings()["Telephone"]
    ring_S = resample(ring.hold(HELD_S), from_hz=ring.sample_rate_hz, to_hz=SAMPLE_RATE_HZ)
    time_S = np.arange(len(ring_S)) / SAMPLE_RATE_HZ
    silent_from_s = rng.uniform(0.32, 0.38)
    silent = (time_S > silent_from_s) & (time_S < silent_from_s + 0.12)
    return np.where(silent, np.float32(0.02), np.float32(1)) * ring_S


def _helicopter(rng: np.random.Generator) -> np.ndarray:
    """-> rotor blades (S,), ten to thirteen beats a second."""
    rotor = load_recordings()["Helicopter"]
    factor = rng.uniform(0.25, 0.32)  # the recording is four times too fast
    return resample(rotor.hold(HELD_S * factor), from_hz=factor * rotor.sample_rate_hz, to_hz=SAMPLE_RATE_HZ)


NOISES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "rain": _rain,
    "applause": _applause,
    "waves": _waves,
    "telephone": _telephone,
    "helicopter": _helicopter,
}


def _add_room(track_S: np.ndarray, *, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Dry track (S,) -> the same in a drawn room: its echoes follow, well below the sounds themselves."""
    level, duration_s = rng.uniform(*REVERBERATION_LEVEL), rng.uniform(*REVERBERATION_S) * noise
    time_R = np.arange(int(duration_s * SAMPLE_RATE_HZ), dtype=np.float32) / SAMPLE_RATE_HZ
    answer_R = _white(len(time_R), rng=rng) * np.exp(-6.9 / np.float32(duration_s) * time_R)  # e^-6.9 is -60 dB
    answer_R *= np.float32(level) / np.sqrt(np.sum(np.square(answer_R)))
    answer_R[0] = 1
    num_padded = -(-(len(track_S) + len(answer_R)) // 8000) * 8000
    wet_F = np.fft.rfft(track_S, num_padded) * np.fft.rfft(answer_R, num_padded)
    return np.fft.irfft(wet_F, num_padded)[: len(track_S)]


def _draw_background(num_samples: int, *, noise: float, rng: np.random.Generator) -> np.ndarray:
    """-> white noise, pink noise or the hum of the mains (S,), from hardly audible to loud, most often soft."""
    low, high = NOISE_AMPLITUDE[0], NOISE_AMPLITUDE[1] * noise
    amplitude = np.float32(low * (high / low) ** rng.random())
    kind = rng.integers(3)
    if kind == 0:
        return amplitude * _white(num_samples, rng=rng)
    if kind == 1:
        return amplitude * _coloured(num_samples, exponent=0.5, rng=rng)
    return amplitude * _hum(num_samples, mains_hz=(50, 60)[int(rng.integers(2))], rng=rng)


def _hum(num_samples: int, *, mains_hz: int, rng: np.random.Generator) -> np.ndarray:
    """-> hum (S,) of root mean square 1: the mains frequency and its harmonics, of drawn strengths and phases."""
    harmonics_H = np.arange(1, 9)
    strengths_H = rng.uniform(0.2, 1.0, 8) / harmonics_H
    phase_SH = 2 * np.pi * mains_hz * harmonics_H * np.arange(SAMPLE_RATE_HZ // 10)[:, None] / SAMPLE_RATE_HZ
    period_S = np.sin(phase_SH + rng.uniform(0, 2 * np.pi, 8)) @ strengths_H  # a tenth of a second: whole periods
    period_S /= np.sqrt(np.mean(np.square(period_S)))
    return np.resize(period_S.astype(np.float32), num_samples)
