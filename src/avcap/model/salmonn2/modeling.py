"""The salmonn2 family: stock vision tower, sound encoder and language model, joined by our aligners.

    frames   -> encode_frames -+
                               +-> align -> MediaTokens -> embed (splice into the prompt) -> language model
    log-mel  -> encode_audio  -+

The encoders are frozen in every stage of the method, so their output (`MediaFeatures`) can be kept; what trains
begins at `align`.
"""

# B batch  L tokens  T frames  C channels  H, W pixels  N patches or cells of a frame  V vision width
# K sound chunks  M (of mel_KMF) mel bins  F mel frames  P encoder positions of a chunk  A sound width
# U audio tokens  Q Q-Former width  R rows of all clips  M (of _MD, _M) media tokens of a clip  D language-model width

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import torch
from torch import nn
from transformers import Qwen2ForCausalLM, Qwen3ForCausalLM, SiglipVisionModel
from transformers import initialization as init
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avcap.model.aligner import AudioAligner
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaFeatures, MediaTokens, Outline
from avcap.model.interleave import (
    AUDIO_ID,
    VISUAL_ID,
    TokenOrder,
    lay_out,
    num_real_windows,
    plan_official,
    plan_true_time,
)
from avcap.model.salmonn2.aligner import TokenTags, VisionAligner, pool_cells, segment_positions, token_types
from avcap.model.salmonn2.configuration import Salmonn2Config

LANGUAGE_MODELS = {"qwen2": Qwen2ForCausalLM, "qwen3": Qwen3ForCausalLM}


@dataclass(frozen=True, kw_only=True)
class Salmonn2Outline(Outline):
    """With the row of each token: of [visual tokens of all frames, the leading audio tokens that are used]."""

    rows: list[int]
    num_visual_rows: int
    num_audio_rows: int


class Salmonn2ForCaptioning(CaptioningModel):
    """A tower that looks at single frames of one size, and positions that count tokens."""

    config_class = Salmonn2Config

    def __init__(self, config: Salmonn2Config) -> None:
        super().__init__(config)
        vision_config = copy.deepcopy(config.vision_config)
        vision_config.num_hidden_layers -= config.vision_layers_dropped
        self.vision_tower = SiglipVisionModel(vision_config)
        self.audio_encoder = WhisperEncoder(config.audio_config)
        self.vision_aligner = VisionAligner(config)
        self.audio_aligner = AudioAligner(
            config,
            input_norm=config.audio_layer_norm,
            final_layers=config.use_final_linear,
            output_norm=config.connector_norm,
        )
        self.tags = TokenTags(config)
        self.language_model = LANGUAGE_MODELS[config.text_config.model_type](config.text_config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VisionAligner) and module.newline is not None:
            init.normal_(module.newline, std=self.config.text_config.initializer_range)

    def normalize_pixels(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        """8-bit frames of the tower's size -> pixel values. This order of operations gives those of the release."""
        return (frames_TCHW.to(torch.float32) / 255.0 - self.config.image_mean) / self.config.image_std

    def encode_video(self, frames_TCHW: torch.Tensor, *, with_grad: bool = False) -> torch.Tensor:
        """8-bit frames of the tower's size -> vision features (T, N, V)."""
        return self.encode_frames(self.normalize_pixels(frames_TCHW), with_grad=with_grad)

    def encode_frames(
        self, pixel_values_TCHW: torch.Tensor, *, micro_batch: int = 32, with_grad: bool = False
    ) -> torch.Tensor:
        """Pixel values -> vision features (T, N, V), pooled already if `pool_position` is "before"."""
        parts = []
        with torch.set_grad_enabled(with_grad and torch.is_grad_enabled()):
            for part_TCHW in pixel_values_TCHW.split(micro_batch):
                patches_TNV = self.vision_tower.embeddings(part_TCHW.to(self.device))
                # the encoder, not the model: last_hidden_state of the model is after post_layernorm
                patches_TNV = self.vision_tower.encoder(inputs_embeds=patches_TNV).last_hidden_state
                if self.config.pool_position == "before":
                    patches_TNV = pool_cells(patches_TNV, stride=self.config.pool_stride, mode=self.config.pool_mode)
                parts.append(patches_TNV)
        return torch.cat(parts)

    def align_batch(
        self, media: Sequence[MediaFeatures], outlines: Sequence[Outline] | None = None
    ) -> list[MediaTokens]:
        """Features of clips -> tokens of each; one projector call and one Q-Former call for all clips together."""
        outlined = [self.outline(one) for one in media] if outlines is None else cast(list[Salmonn2Outline], outlines)
        rows_RD = torch.cat([self._visual_rows(media), self._audio_rows(media, outlined)])
        first_visual = [0, *accumulate(one.num_visual_rows for one in outlined)]
        first_audio = [first_visual[-1] + n for n in (0, *accumulate(one.num_audio_rows for one in outlined))]
        order = [
            first_visual[i] + row if row < one.num_visual_rows else first_audio[i] + row - one.num_visual_rows
            for i, one in enumerate(outlined)
            for row in one.rows
        ]
        seconds_M = self._index([second for one in outlined for second in one.seconds])
        types_M = self._index([kind for one in outlined for kind in one.types])
        content_MD = self.tags.add_type(rows_RD.index_select(0, self._index(order)), types_M=types_M)
        embeds_MD = content_MD
        if self.config.time_vectors:
            words_SD = self.get_input_embeddings()(self._index(self.config.time_token_ids))
            embeds_MD = self.tags.add_time(content_MD, seconds_M=seconds_M, words_SD=words_SD)
        lengths = [len(one.rows) for one in outlined]
        parts = zip(*(tensor.split(lengths) for tensor in (embeds_MD, content_MD, seconds_M, types_M)), strict=True)
        return [
            _media_tokens(outline, *part, num_frames=len(one.frame_times_T))
            for one, outline, part in zip(media, outlined, parts, strict=True)
        ]

    def outline(self, media: MediaFeatures) -> Salmonn2Outline:
        """One clip -> the order of its tokens; raises ValueError where the sound features do not cover the sound."""
        config = self.config
        starts_s = self._window_starts(media)
        official = config.sync == "official"
        num_windows = len(starts_s) if official else num_real_windows(starts_s, audio_seconds=media.audio_seconds)
        audio_times_s = [media.start_s + start for start in starts_s[:num_windows] for _ in range(config.num_queries)]
        if official:
            groups = plan_official(len(media.frame_times_T), len(audio_times_s))
        else:
            groups = plan_true_time(media.frame_times_T, audio_times_s)
        order: TokenOrder = lay_out(
            groups,
            frame_times_s=media.frame_times_T,
            audio_times_s=audio_times_s,
            types=token_types(config),
            time_text_ids=media.time_text_ids,
        )
        num_visual_rows = len(media.frame_times_T) * config.visual_tokens_per_frame
        return Salmonn2Outline(
            ids=order.ids,
            seconds=order.seconds,
            types=order.types,
            rows=order.rows,
            num_visual_rows=num_visual_rows,
            num_audio_rows=len(audio_times_s),
        )

    def _visual_rows(self, media: Sequence[MediaFeatures]) -> torch.Tensor:
        """Clips -> visual tokens of all their frames, one after the other (R, D)."""
        inputs = []
        for clip in media:
            if clip.vision_TNV is not None:
                lead_in_NV = None if clip.lead_in_NV is None else clip.lead_in_NV.to(self.device, self.dtype)
                vision_TNV = clip.vision_TNV.to(self.device, self.dtype)
                inputs.append(self.vision_aligner.input(vision_TNV, lead_in_NV=lead_in_NV))
        if not inputs:
            return self._no_rows()
        return self.vision_aligner(torch.cat(inputs)).flatten(0, 1)

    def _audio_rows(self, media: Sequence[MediaFeatures], outlines: Sequence[Salmonn2Outline]) -> torch.Tensor:
        """Clips -> the audio tokens that their outlines use, one after the other (R, D)."""
        used = [one.num_audio_rows for one in outlines]
        if not sum(used):
            return self._no_rows()
        queries_UQ = self._audio_queries(media, used)
        rows_UD = self.audio_aligner.project(queries_UQ)
        if self.config.segment_positions:
            per_chunk = self.config.audio_tokens_per_chunk
            chunks_U = self._index([token // per_chunk for num_tokens in used for token in range(num_tokens)])
            rows_UD = rows_UD + segment_positions(chunks_U, width=rows_UD.shape[-1]).to(rows_UD.dtype)
        return self.audio_aligner.norm(rows_UD)


def _media_tokens(
    outline: Outline,
    embeds_MD: torch.Tensor,
    content_MD: torch.Tensor,
    seconds_M: torch.Tensor,
    types_M: torch.Tensor,
    *,
    num_frames: int,
) -> MediaTokens:
    """Outline of one clip and its part of the batch's rows -> its tokens."""
    return MediaTokens(
        ids=outline.ids,
        embeds_MD=embeds_MD,
        content_MD=content_MD,
        seconds_M=seconds_M,
        types_M=types_M,
        num_visual=outline.ids.count(VISUAL_ID),
        num_audio=outline.ids.count(AUDIO_ID),
        num_frames=num_frames,
    )
