"""The salmonn2 family: stock vision tower, sound encoder and language model, joined by our aligners.

    frames   -> encode_frames -+
                               +-> align -> MediaTokens -> embed (splice into the prompt) -> language model
    log-mel  -> encode_sound  -+

The encoders are frozen in every stage of the method, so their output (`MediaFeatures`) can be kept; what trains
begins at `align`.
"""

# B batch  L tokens  T frames  C channels  H, W pixels  N patches or cells of a frame  V vision width
# K sound chunks  M (of mel_KMF) mel bins  F mel frames  P encoder positions of a chunk  A sound width
# U sound tokens  Q Q-Former width  R rows of all clips  M (of _MD, _M) media tokens of a clip  D language-model width

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM, SiglipVisionModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avcap.model.aligner import (
    SoundAligner,
    TokenTags,
    VisionAligner,
    pool_cells,
    segment_positions,
    token_types,
)
from avcap.model.configuration import Salmonn2Config
from avcap.model.features import MediaFeatures, MediaTokens
from avcap.model.interleave import (
    AUDIO_ID,
    EPSILON_S,
    VISUAL_ID,
    ZERO_ID,
    Layout,
    lay_out,
    num_real_windows,
    plan_official,
    plan_true_time,
    window_starts,
)

LANGUAGE_MODELS = {"qwen2": Qwen2ForCausalLM, "qwen3": Qwen3ForCausalLM}


@dataclass(frozen=True)
class _Clip:
    """How one clip of a batch is laid out, and how many leading sound tokens of it are used."""

    layout: Layout
    num_visual_rows: int
    num_sound_rows: int


class Salmonn2ForCaptioning(PreTrainedModel):
    """Frames and sound in, logits of a caption out."""

    config_class = Salmonn2Config
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: Salmonn2Config) -> None:
        super().__init__(config)
        vision_config = copy.deepcopy(config.vision_config)
        vision_config.num_hidden_layers -= config.vision_layers_dropped
        self.vision_tower = SiglipVisionModel(vision_config)
        self.sound_encoder = WhisperEncoder(config.audio_config)
        self.vision_aligner = VisionAligner(config)
        self.sound_aligner = SoundAligner(config)
        self.tags = TokenTags(config)
        self.language_model = LANGUAGE_MODELS[config.text_config.model_type](config.text_config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.text_config.initializer_range
        if isinstance(module, VisionAligner) and module.newline is not None:
            init.normal_(module.newline, std=std)
        elif isinstance(module, SoundAligner):
            init.normal_(module.query_tokens, std=std)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def normalize_pixels(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        """8-bit frames of the tower's size -> pixel values. This order of operations gives those of the release."""
        return (frames_TCHW.to(torch.float32) / 255.0 - self.config.image_mean) / self.config.image_std

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

    def encode_sound(self, mel_KMF: torch.Tensor, *, micro_batch: int = 32, with_grad: bool = False) -> torch.Tensor:
        """Log-mel of chunks, `config.mel_frames_per_chunk` frames each -> sound features (K, P, A)."""
        with torch.set_grad_enabled(with_grad and torch.is_grad_enabled()):
            parts = [
                self.sound_encoder(part_KMF.to(self.device, self.dtype)).last_hidden_state
                for part_KMF in mel_KMF.split(micro_batch)
            ]
        return torch.cat(parts)

    def qform_sound(self, sound_KPA: torch.Tensor) -> torch.Tensor:
        """Sound features of chunks -> Q-Former output of all their windows (U, Q), to be kept while it is frozen."""
        return self.sound_aligner.qform(self.sound_aligner.windows(sound_KPA.to(self.device, self.dtype)))

    def placeholders(self, media: MediaFeatures) -> list[int]:
        """Features of one clip -> the ids that stand for its tokens in a prompt; computes no token."""
        return self._lay_out(media).layout.ids

    def align(self, media: MediaFeatures) -> MediaTokens:
        """Features of one clip -> its tokens for the language model, in time order."""
        return self.align_batch([media])[0]

    def align_batch(self, media: Sequence[MediaFeatures]) -> list[MediaTokens]:
        """Features of clips -> tokens of each; one projector call and one Q-Former call for all clips together."""
        clips = [self._lay_out(clip) for clip in media]
        rows_RD = torch.cat([self._visual_rows(media), self._sound_rows(media, clips)])
        first_visual = [0, *accumulate(clip.num_visual_rows for clip in clips)]
        first_sound = [first_visual[-1] + n for n in (0, *accumulate(clip.num_sound_rows for clip in clips))]
        order = [
            first_visual[i] + row if row < clip.num_visual_rows else first_sound[i] + row - clip.num_visual_rows
            for i, clip in enumerate(clips)
            for row in clip.layout.rows
        ]
        seconds_M = self._index([second for clip in clips for second in clip.layout.seconds])
        types_M = self._index([kind for clip in clips for kind in clip.layout.types])
        content_MD = self.tags.add_type(rows_RD.index_select(0, self._index(order)), types_M=types_M)
        embeds_MD = content_MD
        if self.config.time_vectors:
            words_SD = self.get_input_embeddings()(self._index(self.config.time_token_ids))
            embeds_MD = self.tags.add_time(content_MD, seconds_M=seconds_M, words_SD=words_SD)
        lengths = [len(clip.layout.rows) for clip in clips]
        parts = zip(*(tensor.split(lengths) for tensor in (embeds_MD, content_MD, seconds_M, types_M)), strict=True)
        return [_media_tokens(clip.layout, *part) for clip, part in zip(clips, parts, strict=True)]

    def _index(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.device)

    def _lay_out(self, media: MediaFeatures) -> _Clip:
        """One clip -> the order of its tokens; raises ValueError where the sound features do not cover the sound."""
        config = self.config
        per_chunk, num_queries = config.sound_tokens_per_chunk, config.num_queries
        num_chunks = _num_chunks(media, per_chunk=per_chunk)
        starts_s = window_starts(
            num_chunks,
            windows_per_chunk=config.windows_per_chunk,
            chunk_s=config.chunk_s,
            stride_s=config.window_stride_s,
        )
        if media.audio_seconds > num_chunks * config.chunk_s + EPSILON_S:
            raise ValueError(
                f"audio_seconds: got {media.audio_seconds}, but features of {num_chunks} chunks of {config.chunk_s} s"
            )
        official = config.sync == "official"
        num_windows = len(starts_s) if official else num_real_windows(starts_s, audio_seconds=media.audio_seconds)
        sound_times_s = [media.start_s + start for start in starts_s[:num_windows] for _ in range(num_queries)]
        if official:
            groups = plan_official(len(media.frame_times_T), len(sound_times_s))
        else:
            groups = plan_true_time(media.frame_times_T, sound_times_s)
        layout = lay_out(
            groups,
            frame_times_s=media.frame_times_T,
            sound_times_s=sound_times_s,
            types=token_types(config),
            time_text_ids=media.time_text_ids,
        )
        num_visual_rows = len(media.frame_times_T) * config.visual_tokens_per_frame
        return _Clip(layout=layout, num_visual_rows=num_visual_rows, num_sound_rows=len(sound_times_s))

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

    def _sound_rows(self, media: Sequence[MediaFeatures], clips: Sequence[_Clip]) -> torch.Tensor:
        """Clips -> the sound tokens that their layouts use, one after the other (R, D)."""
        used = [laid_out.num_sound_rows for laid_out in clips]
        if not sum(used):
            return self._no_rows()
        queries_UQ = self._sound_queries(media, used)
        rows_UD = self.sound_aligner.project(queries_UQ)
        if self.config.segment_positions:
            per_chunk = self.config.sound_tokens_per_chunk
            chunks_U = self._index([token // per_chunk for num_tokens in used for token in range(num_tokens)])
            rows_UD = rows_UD + segment_positions(chunks_U, width=rows_UD.shape[-1]).to(rows_UD.dtype)
        return self.sound_aligner.norm(rows_UD)

    def _sound_queries(self, media: Sequence[MediaFeatures], used: Sequence[int]) -> torch.Tensor:
        """Clips and how many sound tokens each uses -> Q-Former output of those tokens (U, Q), kept or computed now."""
        windows = [
            self.sound_aligner.windows(clip.sound_KPA.to(self.device, self.dtype))[: n // self.config.num_queries]
            for clip, n in zip(media, used, strict=True)
            if clip.sound_KPA is not None
        ]
        fresh_UQ = self.sound_aligner.qform(torch.cat(windows)) if windows else None
        queries, taken = [], 0
        for clip, num_tokens in zip(media, used, strict=True):
            if clip.sound_queries_UQ is not None:
                queries.append(clip.sound_queries_UQ[:num_tokens].to(self.device, self.dtype))
            elif clip.sound_KPA is not None and fresh_UQ is not None:
                queries.append(fresh_UQ[taken : taken + num_tokens])
                taken += num_tokens
        return torch.cat(queries)

    def _no_rows(self) -> torch.Tensor:
        return torch.zeros(0, self.config.text_config.hidden_size, device=self.device, dtype=self.dtype)

    def embed(self, input_ids_BL: torch.Tensor, media_tokens: Sequence[MediaTokens | None]) -> torch.Tensor:
        """Token ids with placeholders and the media of each row (None: text only) -> embeddings (B, L, D)."""
        _check_placeholders(input_ids_BL, media_tokens)
        input_ids_BL = input_ids_BL.to(self.device)
        embeds_BLD = self.get_input_embeddings()(input_ids_BL.clamp(min=0))
        rows = [tokens.embeds_MD for tokens in media_tokens if tokens is not None]
        if rows:
            is_media_BL = (input_ids_BL == VISUAL_ID) | (input_ids_BL == AUDIO_ID)
            embeds_BLD = embeds_BLD.masked_scatter(is_media_BL[..., None], torch.cat(rows).to(embeds_BLD.dtype))
        return embeds_BLD.masked_fill((input_ids_BL == ZERO_ID)[..., None], 0.0)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        media_tokens: Sequence[MediaTokens | None] | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Ids with placeholders (B, L) and media, or embeddings (B, L, D) -> output of the language model.

        Masks, labels, cache and positions are those of `transformers`' causal language models.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids (with media_tokens) or inputs_embeds")
            inputs_embeds = self.embed(input_ids, media_tokens or [None] * len(input_ids))
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )


def _num_chunks(media: MediaFeatures, *, per_chunk: int) -> int:
    """One clip -> number of sound chunks behind its features."""
    if media.sound_KPA is not None:
        return len(media.sound_KPA)
    if media.sound_queries_UQ is None:
        return 0
    chunks, rest = divmod(len(media.sound_queries_UQ), per_chunk)
    if rest:
        raise ValueError(f"sound_queries_UQ: got {len(media.sound_queries_UQ)} rows, wanted a multiple of {per_chunk}")
    return chunks


def _media_tokens(
    layout: Layout,
    embeds_MD: torch.Tensor,
    content_MD: torch.Tensor,
    seconds_M: torch.Tensor,
    types_M: torch.Tensor,
) -> MediaTokens:
    """Layout of one clip and its part of the batch's rows -> its tokens."""
    return MediaTokens(
        ids=layout.ids,
        embeds_MD=embeds_MD,
        content_MD=content_MD,
        seconds_M=seconds_M,
        types_M=types_M,
        num_visual=layout.ids.count(VISUAL_ID),
        num_audio=layout.ids.count(AUDIO_ID),
    )


def _check_placeholders(input_ids_BL: torch.Tensor, media_tokens: Sequence[MediaTokens | None]) -> None:
    """Raises ValueError where a row has other placeholders than its media has tokens: nothing is lost silently."""
    if len(input_ids_BL) != len(media_tokens):
        raise ValueError(f"got media for {len(media_tokens)} rows, wanted {len(input_ids_BL)}")
    for name, placeholder, wanted in (
        ("visual", VISUAL_ID, [0 if tokens is None else tokens.num_visual for tokens in media_tokens]),
        ("audio", AUDIO_ID, [0 if tokens is None else tokens.num_audio for tokens in media_tokens]),
    ):
        got = (input_ids_BL == placeholder).sum(dim=1).tolist()
        for row, (in_prompt, in_media) in enumerate(zip(got, wanted, strict=True)):
            if in_prompt != in_media:
                raise ValueError(f"row {row}: {in_prompt} {name} placeholders, but {in_media} {name} tokens")
