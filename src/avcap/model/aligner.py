"""From sound features to vectors of the language model's width, in every family: ours, around a stock Q-Former."""

# K sound chunks  P positions of a chunk  A sound width  W windows  I positions of a window  U audio tokens
# Q Q-Former width  D language-model width

from typing import Any, Protocol

import torch
from torch import nn
from transformers import Blip2QFormerModel


class AudioAlignerConfig(Protocol):
    """What a family's configuration says of it: widths of its neighbours, and windows."""

    @property
    def text_config(self) -> Any: ...
    @property
    def qformer_config(self) -> Any: ...
    @property
    def audio_config(self) -> Any: ...
    @property
    def num_queries(self) -> int: ...
    @property
    def window_positions(self) -> int: ...
    @property
    def window_stride_positions(self) -> int: ...


class AudioAligner(nn.Module):
    """Windows of the sound encoder's output, each summed up by a Q-Former, then projected."""

    def __init__(
        self,
        config: AudioAlignerConfig,
        *,
        input_norm: bool = False,
        final_layers: bool = False,
        output_norm: bool = False,
    ) -> None:
        """Config and which parts there are besides: norms of what comes in and goes out, Linear-GELU-Linear."""
        super().__init__()
        width, query_width = config.text_config.hidden_size, config.qformer_config.hidden_size
        self.window_positions, self.stride_positions = config.window_positions, config.window_stride_positions
        self.input_norm = nn.LayerNorm(config.audio_config.d_model) if input_norm else nn.Identity()
        self.query_tokens = nn.Parameter(torch.empty(1, config.num_queries, query_width))
        self.qformer = Blip2QFormerModel(config.qformer_config)
        self.proj = nn.Linear(query_width, width)
        self.final: nn.Module = nn.Identity()
        if final_layers:
            self.final = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width) if output_norm else nn.Identity()

    def windows(self, audio_KPA: torch.Tensor) -> torch.Tensor:
        """Encoder output of chunks (K, P, A) -> windows of all chunks in order (W, I, A)."""
        windows_KWAI = audio_KPA.unfold(1, self.window_positions, self.stride_positions)
        return windows_KWAI.transpose(2, 3).flatten(0, 1)

    def qform(self, windows_WIA: torch.Tensor) -> torch.Tensor:
        """Windows -> (W * queries, Q). Windows do not see each other, so any subset may be given."""
        queries_WUQ = self.query_tokens.expand(len(windows_WIA), -1, -1)
        output = self.qformer(query_embeds=queries_WUQ, encoder_hidden_states=self.input_norm(windows_WIA))
        return output.last_hidden_state.flatten(0, 1)

    def project(self, queries_UQ: torch.Tensor) -> torch.Tensor:
        """Q-Former output -> audio tokens (U, D), before segment positions and norm."""
        return self.final(self.proj(queries_UQ))
