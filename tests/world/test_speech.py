"""Speech: the same arguments give the same samples, whatever was said before and in whichever process."""

import hashlib
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from avcap.errors import UserError
from avcap.world.sounds import ACCENTS, TRAINING_VOICES, UNSEEN_VOICES
from avcap.world.speech import SAMPLE_RATE_HZ, resample, speak

DIGEST_OF_LEMON = """
import hashlib
from avcap.world.speech import speak
print(hashlib.sha256(speak("lemon tiger", voice="en-us+f3", speed_wpm=200, pitch=50).tobytes()).hexdigest())
"""


def digest(text: str = "lemon tiger", *, voice: str = "en-us+f3") -> str:
    return hashlib.sha256(speak(text, voice=voice, speed_wpm=200, pitch=50).tobytes()).hexdigest()


def send_digest(results: "multiprocessing.SimpleQueue[str]") -> None:
    results.put(digest())


def test_speech_is_trimmed_and_as_loud_as_it_can_be():
    waveform_S = speak("lemon tiger", voice="en-us+f3", speed_wpm=200, pitch=50)
    assert waveform_S.dtype == np.float32
    assert np.abs(waveform_S).max() == pytest.approx(1)
    assert 0.4 < len(waveform_S) / SAMPLE_RATE_HZ < 1.0
    assert min(np.abs(waveform_S[0]), np.abs(waveform_S[-1])) > 0.01


def test_voice_speed_pitch_and_text_are_all_heard():
    def heard(text="lemon", voice="en-us+f3", speed_wpm=200, pitch=50):
        return speak(text, voice=voice, speed_wpm=speed_wpm, pitch=pitch).tobytes()

    different = {heard(), heard(text="tiger"), heard(voice="en-us+m1"), heard(voice="en-029+f3"), heard(pitch=70)}
    assert len(different) == 5
    assert len(heard(speed_wpm=150)) > 1.2 * len(heard(speed_wpm=250))


@pytest.mark.parametrize("voice", ["nowhere+f3", "en-us+nobody", "en-us"])
def test_unknown_voice_is_refused_by_name(voice):
    with pytest.raises(UserError, match=f"no voice '{voice}'".replace("+", r"\+")):
        speak("lemon", voice=voice, speed_wpm=200, pitch=50)


def test_what_was_said_before_leaves_no_trace():
    before = digest()
    for voice in ("en-gb-x-rp+m1", "en-us+Storm", "en-029+f5"):
        speak("wizard rabbit window", voice=voice, speed_wpm=233, pitch=30)
        assert digest() == before


def test_a_fresh_process_and_a_forked_one_say_the_same():
    here = digest()
    fresh = subprocess.run([sys.executable, "-c", DIGEST_OF_LEMON], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == here
    context = multiprocessing.get_context("fork")
    results: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    child = context.Process(target=send_digest, args=(results,))
    child.start()
    assert results.get() == here
    child.join()
    assert digest() == here  # the child's end took nothing from its parent


def test_every_voice_loads_and_no_two_variants_are_one():
    voices = TRAINING_VOICES + UNSEEN_VOICES
    digests = {voice: digest(voice=voice) for voice in voices}
    for accent in ACCENTS:
        of_accent = [digests[voice] for voice in voices if voice.split("+")[0] == accent]
        assert len(set(of_accent)) == len(of_accent) == len(voices) // len(ACCENTS)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(22_050, 16_000), (11_025, 16_000), (16_000 * 2 ** (1 / 24), 16_000)])
def test_resampling_keeps_a_tone(from_hz, to_hz):
    hz, duration_s = 1000.0, 0.5
    tone_S = np.sin(2 * np.pi * hz * np.arange(int(duration_s * from_hz)) / from_hz).astype(np.float32)
    expected_S = np.sin(2 * np.pi * hz * np.arange(int(duration_s * to_hz)) / to_hz)
    resampled_S = resample(tone_S, from_hz=from_hz, to_hz=to_hz)
    assert abs(len(resampled_S) - len(expected_S)) <= 1
    middle = slice(500, 7500)  # a tone that starts at once rings at its ends
    assert np.abs(resampled_S[middle] - expected_S[middle]).max() < 0.01


def test_resampling_takes_out_what_the_lower_rate_cannot_hold():
    tone_S = np.sin(2 * np.pi * 9000 * np.arange(22_050) / 22_050).astype(np.float32)  # 9 kHz > 16 kHz / 2
    assert np.abs(resample(tone_S, from_hz=22_050, to_hz=16_000)[500:-500]).max() < 0.01
