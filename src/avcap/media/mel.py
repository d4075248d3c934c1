"""16 kHz sound -> Whisper's log-mel spectrogram, in torch, for whole batches and on any device.

B batch   S samples   M mel bins   F mel frames (10 ms each)   K chunks
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F

SAMPLE_RATE_HZ = 16000
FFT_SIZE = 400
HOP_SIZE = 160
# Slaney's mel scale: linear up to 1 kHz, logarithmic above.
LINEAR_HZ_PER_MEL = 200 / 3
BREAK_HZ = 1000.0
BREAK_MEL = BREAK_HZ / LINEAR_HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27


def log_mel(waveform_BS: torch.Tensor, *, num_mel_bins: int) -> torch.Tensor:
    """Waveform (B, S) float32 -> log-mel (B, M, F) with F = S // 160, scaled as Whisper expects it."""
    filters_MN, window_N = _constants(num_mel_bins=num_mel_bins, device=waveform_BS.device)
    spectrum_BNF = torch.stft(waveform_BS, FFT_SIZE, HOP_SIZE, window=window_N, return_complex=True)
    power_BNF = spectrum_BNF[..., :-1].abs() ** 2  # the last frame is past the end of the sound
    log_BMF = (filters_MN @ power_BNF).clamp(min=1e-10).log10()
    loudest_B11 = log_BMF.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(log_BMF, loudest_B11 - 8.0) + 4.0) / 4.0  # 80 dB below the loudest is silence


def chunk_waveform(
    waveform_S: torch.Tensor, *, chunk_s: float, sample_rate_hz: int = SAMPLE_RATE_HZ, min_s: float = 1.0
) -> torch.Tensor:
    """Waveform (S,) -> (K, chunk samples), with zeros to at least `min_s` and to whole chunks; K >= 1."""
    chunk_samples = round(chunk_s * sample_rate_hz)
    needed_samples = max(len(waveform_S), round(min_s * sample_rate_hz), 1)
    num_chunks = -(-needed_samples // chunk_samples)
    return F.pad(waveform_S, (0, num_chunks * chunk_samples - len(waveform_S))).view(num_chunks, chunk_samples)


@functools.cache
def _constants(*, num_mel_bins: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """-> mel filters (M, N frequencies) and window (N,) on the device, made once."""
    filters_MN = torch.from_numpy(mel_filters(num_mel_bins=num_mel_bins)).to(device)
    return filters_MN, torch.hann_window(FFT_SIZE, device=device)


def mel_filters(*, num_mel_bins: int) -> np.ndarray:
    """-> (M, 201) float32: triangles evenly spaced on Slaney's mel scale from 0 to 8 kHz, each of area 1."""
    fft_hz_N = np.linspace(0, SAMPLE_RATE_HZ / 2, FFT_SIZE // 2 + 1)
    edges_hz = _mel_to_hz(np.linspace(0, _hz_to_mel(SAMPLE_RATE_HZ / 2), num_mel_bins + 2))
    lower_hz, centre_hz, upper_hz = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising_MN = (fft_hz_N - lower_hz) / (centre_hz - lower_hz)
    falling_MN = (upper_hz - fft_hz_N) / (upper_hz - centre_hz)
    triangles_MN = np.maximum(0.0, np.minimum(rising_MN, falling_MN))
    return (triangles_MN * 2.0 / (upper_hz - lower_hz)).astype(np.float32)


def _hz_to_mel(hz: float) -> float:
    """Frequency at or above 1 kHz -> mels."""
    return BREAK_MEL + np.log(hz / BREAK_HZ) / LOG_STEP


def _mel_to_hz(mels: np.ndarray) -> np.ndarray:
    """Mels -> frequencies."""
    return np.where(mels < BREAK_MEL, mels * LINEAR_HZ_PER_MEL, BREAK_HZ * np.exp((mels - BREAK_MEL) * LOG_STEP))
