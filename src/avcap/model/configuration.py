"""What the configurations of the families share: the released chat and sound encoder, and how sound is cut."""

from typing import Any

WHISPER_POSITIONS_PER_S = 50  # one encoder position is two mel frames of 10 ms
MEL_FRAMES_PER_POSITION = 2

CHATML_V1 = {
    "system_prefix": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
    "user_prefix": "<|im_start|>user\n",
    # The released model was trained with both newlines: one closes the media, one opened every question of its data.
    "media_suffix": "\n\n",
    "user_suffix": "<|im_end|>\n<|im_start|>assistant\n",
    "answer_suffix": "<|im_end|>\n",
}

RELEASED_AUDIO = {
    "num_mel_bins": 128,
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
}


class AudioWindows:
    """What follows from how a config cuts sound: its `audio_config`, `window_s`, `window_stride_s`, `num_queries`."""

    audio_config: Any
    window_s: float
    window_stride_s: float
    num_queries: int

    @property
    def chunk_s(self) -> float:
        """Seconds of one sound chunk: the encoder takes exactly this much."""
        return self.audio_config.max_source_positions / WHISPER_POSITIONS_PER_S

    @property
    def mel_frames_per_chunk(self) -> int:
        return self.audio_config.max_source_positions * MEL_FRAMES_PER_POSITION

    @property
    def window_positions(self) -> int:
        """Encoder positions under one window."""
        return round(self.window_s * WHISPER_POSITIONS_PER_S)

    @property
    def window_stride_positions(self) -> int:
        return round(self.window_stride_s * WHISPER_POSITIONS_PER_S)

    @property
    def windows_per_chunk(self) -> int:
        return (self.audio_config.max_source_positions - self.window_positions) // self.window_stride_positions + 1

    @property
    def audio_tokens_per_chunk(self) -> int:
        return self.windows_per_chunk * self.num_queries

    def check_windows(self) -> None:
        """Raises ValueError for windows that do not fit into a chunk or do not move on."""
        if not 0 < self.window_positions <= self.audio_config.max_source_positions:
            raise ValueError(f"window_s: got {self.window_s}, expected more than 0 and at most {self.chunk_s} s")
        if self.window_stride_positions < 1:
            raise ValueError(f"window_stride_s: got {self.window_stride_s}, expected at least 0.02 s")
