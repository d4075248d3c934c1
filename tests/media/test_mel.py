"""Our log-mel against the Whisper feature extractor of transformers, which stays the definition."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from avcap.media.mel import chunk_waveform, log_mel, mel_filters

SILENCE = np.zeros(16000 * 30, np.float32)
SINE = (0.5 * np.sin(np.arange(16000 * 30) * 0.1)).astype(np.float32)
NOISE = np.random.default_rng(0).normal(0, 0.1, 16000 * 30).astype(np.float32)
NOISE_THEN_SILENCE = np.concatenate([NOISE[: 16000 * 2], SILENCE[16000 * 2 :]])
# A quiet bin is a small sum of large terms, which kernels add in other orders for other numbers of waveforms: rounding
# that the logarithm magnifies, up to 1.3e-5 with the AVX-512 kernels of some CPUs.
ROUNDING = 5e-5


@pytest.mark.parametrize("num_mel_bins", [80, 128])
def test_log_mel_equals_whispers(num_mel_bins):
    extractor = WhisperFeatureExtractor(feature_size=num_mel_bins)
    waveforms = [SILENCE, SINE, NOISE, NOISE_THEN_SILENCE]
    expected_BMF = torch.cat([extractor(w, sampling_rate=16000, return_tensors="pt").input_features for w in waveforms])
    mel_BMF = log_mel(torch.from_numpy(np.stack(waveforms)), num_mel_bins=num_mel_bins)
    assert mel_BMF.shape == (4, num_mel_bins, 3000)  # 30 s of 10 ms frames
    torch.testing.assert_close(mel_BMF, expected_BMF, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("num_mel_bins", [80, 128])
def test_filters_equal_whispers(num_mel_bins):
    expected = WhisperFeatureExtractor(feature_size=num_mel_bins).mel_filters.T
    np.testing.assert_allclose(mel_filters(num_mel_bins=num_mel_bins), expected, atol=1e-8)


def test_one_loud_item_does_not_change_its_neighbours():
    quiet_S, loud_S = torch.from_numpy(NOISE[:16000]) * 0.01, torch.from_numpy(NOISE[:16000])
    together_BMF = log_mel(torch.stack([quiet_S, loud_S]), num_mel_bins=80)
    alone_BMF = log_mel(quiet_S[None], num_mel_bins=80)
    torch.testing.assert_close(together_BMF[:1], alone_BMF, atol=ROUNDING, rtol=0)


def test_frames_are_whole_hops():
    # 16 159 samples hold 100 whole hops of 160
    assert log_mel(torch.zeros(1, 16159), num_mel_bins=80).shape == (1, 80, 100)


def test_chunks_are_padded_to_whole_ones():
    waveform_S = torch.arange(1, 26, dtype=torch.float32)
    chunks_KS = chunk_waveform(waveform_S, chunk_s=1.0, sample_rate_hz=10)  # 25 samples in chunks of 10: 10 + 10 + 5
    assert chunks_KS.shape == (3, 10)
    assert torch.equal(chunks_KS.flatten()[:25], waveform_S)
    assert torch.equal(chunks_KS[2, 5:], torch.zeros(5))


@pytest.mark.parametrize(("num_samples", "min_s", "num_chunks"), [(0, 1.0, 2), (3, 1.0, 2), (5, 0.0, 1), (0, 0.0, 1)])
def test_short_audio_is_padded_to_the_least_length(num_samples, min_s, num_chunks):
    # chunks of 0.5 s = 5 samples; a least length of 1 s = 10 samples = 2 chunks
    chunks_KS = chunk_waveform(torch.ones(num_samples), chunk_s=0.5, sample_rate_hz=10, min_s=min_s)
    assert chunks_KS.shape == (num_chunks, 5)
    assert chunks_KS.sum() == num_samples
