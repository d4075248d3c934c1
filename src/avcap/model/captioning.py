"""What captioning models of every family share: encoders, a window Q-Former, a language model, and how they are used.

    frames   -> encode_frames -+
                               +-> align -> MediaTokens -> embed (splice into the prompt) -> language model
    log-mel  -> encode_audio  -+

The rest of avcap (inference, training, stages) knows this class; a family's model says how frames are encoded, in which
order the tokens of a clip stand, and at which positions. What differs beside the model is in `model.family`.
"""

# B batch  L tokens  K sound chunks  M (of mel_KMF) mel bins  F mel frames  P encoder positions of a chunk
# A sound width  U audio tokens  Q Q-Former width  M (of _MD, _M) media tokens of a clip  D language-model width

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from avcap import v0_1
from avcap.model.aligner import AudioAligner
from avcap.model.features import MediaFeatures, MediaTokens, Outline, Positions
from avcap.model.interleave import AUDIO_ID, EPSILON_S, VISUAL_ID, ZERO_ID, window_starts


class CaptioningModel(PreTrainedModel):
    """Frames and sound in, logits of a caption out.

    A family's `__init__` makes `vision_tower`, `audio_encoder`, `audio_aligner` and `language_model` (a causal language
    model with `.model` and `.lm_head`), and offers `vision_aligner`, from which its picture branch trains.
    """

    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    vision_tower: Any
    vision_aligner: Any
    audio_encoder: Any
    audio_aligner: AudioAligner
    language_model: Any

    counts_positions = True
    """Positions count the tokens of a row. False: they are those of `positions`, on several axes."""
    penalty_counts_prompt = False
    """Whether a repetition penalty counts the ids of the prompt too, as the family's published decoding does."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; weights of avcap 0.1 are found under their old names, and saved under those of today."""
        model = super().from_pretrained(*args, **({"key_mapping": v0_1.WEIGHT_PATTERNS} | kwargs))
        (model[0] if isinstance(model, tuple) else model)._weight_conversions = []
        return model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AudioAligner):
            init.normal_(module.query_tokens, std=self.config.text_config.initializer_range)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    @abstractmethod
    def encode_video(self, frames_TCHW: torch.Tensor, *, with_grad: bool = False) -> torch.Tensor:
        """8-bit frames of a size that the family takes -> vision features (T, N, V)."""

    def placeholders(self, media: MediaFeatures) -> list[int]:
        """Features of one clip -> the ids that stand for its tokens in a prompt; computes no token."""
        return self.outline(media).ids

    @abstractmethod
    def outline(self, media: MediaFeatures) -> Outline:
        """Features of one clip -> how its tokens will stand; computes no token."""

    @abstractmethod
    def align_batch(
        self, media: Sequence[MediaFeatures], outlines: Sequence[Outline] | None = None
    ) -> list[MediaTokens]:
        """Features of clips, and their outlines if these are known -> tokens of each, in time order."""

    def align(self, media: MediaFeatures) -> MediaTokens:
        """Features of one clip -> its tokens for the language model, in time order."""
        return self.align_batch([media])[0]

    def positions(self, ids: Sequence[int], media: MediaTokens | Outline | None) -> Positions:
        """Ids of a prompt and its media -> the position of each, and where what is written next goes on."""
        del media
        return Positions(of_ids=torch.arange(len(ids)), following=len(ids))

    @property
    def positions_rule(self) -> str:
        """What decides positions beside the tokens: log-probs under another rule are others. "": nothing."""
        return ""

    def encode_audio(self, mel_KMF: torch.Tensor, *, micro_batch: int = 32, with_grad: bool = False) -> torch.Tensor:
        """Log-mel of chunks, `config.mel_frames_per_chunk` frames each -> sound features (K, P, A)."""
        with torch.set_grad_enabled(with_grad and torch.is_grad_enabled()):
            parts = [
                self.audio_encoder(part_KMF.to(self.device, self.dtype)).last_hidden_state
                for part_KMF in mel_KMF.split(micro_batch)
            ]
        return torch.cat(parts)

    def qform_audio(self, audio_KPA: torch.Tensor) -> torch.Tensor:
        """Sound features of chunks -> Q-Former output of all their windows (U, Q), to be kept while it is frozen."""
        return self.audio_aligner.qform(self.audio_aligner.windows(audio_KPA.to(self.device, self.dtype)))

    def official_ids(self, ids: Sequence[int], media: MediaTokens | None) -> list[int]:
        """Ids with placeholders -> the ids of the published prompt, where each media token has the id of its kind."""
        raise NotImplementedError(f"{type(self).__name__} has no ids for media tokens")

    def batch_positions(self, ids_BL: torch.Tensor, media: Sequence[MediaTokens | None]) -> torch.Tensor | None:
        """Rows of ids, padded on the right, and their media -> position ids, None: those that count tokens."""
        del ids_BL, media
        return None

    def _index(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.device)

    def _window_starts(self, media: MediaFeatures) -> list[float]:
        """One clip -> second of its sound at which each window begins; ValueError if features do not cover it."""
        config = self.config
        num_chunks = self._num_chunks(media)
        if media.audio_seconds > num_chunks * config.chunk_s + EPSILON_S:
            raise ValueError(
                f"audio_seconds: got {media.audio_seconds}, but features of {num_chunks} chunks of {config.chunk_s} s"
            )
        return window_starts(
            num_chunks,
            windows_per_chunk=config.windows_per_chunk,
            chunk_s=config.chunk_s,
            stride_s=config.window_stride_s,
        )

    def _num_chunks(self, media: MediaFeatures) -> int:
        if media.audio_KPA is not None:
            return len(media.audio_KPA)
        if media.audio_queries_UQ is None:
            return 0
        per_chunk = self.config.audio_tokens_per_chunk
        chunks, rest = divmod(len(media.audio_queries_UQ), per_chunk)
        if rest:
            raise ValueError(
                f"audio_queries_UQ: got {len(media.audio_queries_UQ)} rows, expected a multiple of {per_chunk}"
            )
        return chunks

    def _audio_queries(self, media: Sequence[MediaFeatures], used: Sequence[int]) -> torch.Tensor:
        """Clips and how many audio tokens each uses -> Q-Former output of those tokens (U, Q), kept or computed now."""
        windows = [
            self.audio_aligner.windows(clip.audio_KPA.to(self.device, self.dtype))[: n // self.config.num_queries]
            for clip, n in zip(media, used, strict=True)
            if clip.audio_KPA is not None
        ]
        fresh_UQ = self.audio_aligner.qform(torch.cat(windows)) if windows else None
        queries, taken = [], 0
        for clip, num_tokens in zip(media, used, strict=True):
            if clip.audio_queries_UQ is not None:
                queries.append(clip.audio_queries_UQ[:num_tokens].to(self.device, self.dtype))
            elif clip.audio_KPA is not None and fresh_UQ is not None:
                queries.append(fresh_UQ[taken : taken + num_tokens])
                taken += num_tokens
        return torch.cat(queries)

    @property
    def embed_width(self) -> int:
        """Width of what `embed` gives: that of the language model, or a multiple of it (see `salmonn2_plus`)."""
        return self.config.text_config.hidden_size

    def _no_rows(self) -> torch.Tensor:
        return torch.zeros(0, self.config.text_config.hidden_size, device=self.device, dtype=self.dtype)

    def embed(self, input_ids_BL: torch.Tensor, media_tokens: Sequence[MediaTokens | None]) -> torch.Tensor:
        """Token ids with placeholders and the media of each row (None: text only) -> embeddings (B, L, D)."""
        _check_placeholders(input_ids_BL, media_tokens)
        input_ids_BL = input_ids_BL.to(self.device)
        embeds_BLD = self.get_input_embeddings()(input_ids_BL.clamp(min=0))
        # media tokens may carry more than text, for deeper layers
        embeds_BLD = F.pad(embeds_BLD, (0, self.embed_width - embeds_BLD.shape[-1]))
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

        Masks, labels, cache and positions are those of `transformers`' causal language models. Positions follow from
        `input_ids`; on several axes they must be given with `inputs_embeds`, for tokens counted mean something else.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids (with media_tokens) or inputs_embeds")
            media_tokens = media_tokens or [None] * len(input_ids)
            inputs_embeds = self.embed(input_ids, media_tokens)
            if kwargs.get("position_ids") is None:
                kwargs["position_ids"] = self.batch_positions(input_ids, media_tokens)
        elif not self.counts_positions and kwargs.get("position_ids") is None:
            raise ValueError("inputs_embeds without position_ids: give those of batch_positions")
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )


def _check_placeholders(input_ids_BL: torch.Tensor, media_tokens: Sequence[MediaTokens | None]) -> None:
    """Raises ValueError where a row has other placeholders than its media has tokens: nothing is lost silently."""
    if len(input_ids_BL) != len(media_tokens):
        raise ValueError(f"got media for {len(media_tokens)} rows, expected {len(input_ids_BL)}")
    for name, placeholder, expected in (
        ("visual", VISUAL_ID, [0 if tokens is None else tokens.num_visual for tokens in media_tokens]),
        ("audio", AUDIO_ID, [0 if tokens is None else tokens.num_audio for tokens in media_tokens]),
    ):
        got = (input_ids_BL == placeholder).sum(dim=1).tolist()
        for row, (in_prompt, in_media) in enumerate(zip(got, expected, strict=True)):
            if in_prompt != in_media:
                raise ValueError(f"row {row}: {in_prompt} {name} placeholders, but {in_media} {name} tokens")
