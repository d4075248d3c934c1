"""The salmonn2_plus family: a stock vision-language backbone with the audio branch, interleaved by time.

    frames   -> vision_tower (two frames a grid) -> vision_aligner (merger) ----+
                                                                                +-> one vision block -> language model
    log-mel  -> audio_encoder -> audio_aligner (Q-Former, a token a half second)-+

No backbone code is ours: tower, merger and language model are modules of `transformers`. What the published code did
to stock Qwen2.5-VL is in the order of the tokens (`outline`) and in their positions (`mrope`).
"""

# B batch  L tokens  X position axes (3)  T frames, or temporal grids (of _TNV)  C channels  H, W pixels
# N tokens of a grid  V numbers of a token before the merger  M media tokens of a clip  R rows of all clips
# D language-model width  U audio tokens

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel, Qwen2_5_VLTextModel, Qwen3VLTextModel, Qwen3VLVisionModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avcap.model.aligner import AudioAligner
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaFeatures, MediaTokens, Outline, Positions, VisionGrid
from avcap.model.interleave import AUDIO_ID, VISUAL_ID, num_real_windows
from avcap.model.salmonn2_plus import mrope
from avcap.model.salmonn2_plus.configuration import Salmonn2PlusConfig
from avcap.model.salmonn2_plus.patches import normalize_patches, to_patches
from avcap.model.transformers_renames import cache_argument, cache_of

VISION_TOWERS = {
    "qwen2_5_vl_vision": Qwen2_5_VisionTransformerPretrainedModel,
    "qwen3_vl_vision": Qwen3VLVisionModel,
}


class DeepTextModel(Qwen3VLTextModel):
    """Takes embeddings that are wider than it: what is over is added to the output of its first layers, one by one.

    So a visual token carries all that a Qwen3-VL tower says of it (DeepStack), wherever embeddings go; of text that
    part is zero.
    """

    def forward(  # type: ignore[override]
        self, *, inputs_embeds: torch.Tensor | None = None, attention_mask: Any = None, **kwargs: Any
    ) -> BaseModelOutputWithPast:
        width = self.config.hidden_size
        if inputs_embeds is not None and inputs_embeds.shape[-1] > width:
            inputs_embeds, *deep = inputs_embeds.split(width, dim=-1)
            kwargs |= {
                "visual_pos_masks": torch.ones(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device),
                "deepstack_visual_embeds": [part_BLD.flatten(0, 1) for part_BLD in deep],
            }
        # a packed row brings its own layout, and says so by a mask for each kind of layer (train.packing)
        mask = None if isinstance(attention_mask, dict) else attention_mask
        return super().forward(inputs_embeds=inputs_embeds, attention_mask=mask, **kwargs)


TEXT_MODELS = {"qwen2_5_vl_text": Qwen2_5_VLTextModel, "qwen3_vl_text": DeepTextModel}


class Mergers(nn.Module):
    """The mergers of a tower that has several: of its last layer, and of those that DeepStack takes."""

    def __init__(self, mergers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.mergers = nn.ModuleList(mergers)

    def forward(self, rows_RV: torch.Tensor, *, width: int) -> torch.Tensor:
        """Rows of TokenRows for each merger, side by side, of patches of `width` -> (R, mergers * D)."""
        parts = rows_RV.chunk(len(self.mergers), dim=-1)
        merged = [merger(part.reshape(-1, width)) for merger, part in zip(self.mergers, parts, strict=True)]
        return torch.cat(merged, dim=-1)


class TokenRows(nn.Module):
    """Stands in a tower in its merger's place: the patches of each token side by side, to be merged later.

    The tower is frozen and the merger trains, so what lies between them is what can be kept.
    """

    def __init__(self, patches_per_token: int) -> None:
        super().__init__()
        self.patches_per_token = patches_per_token

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(patches, width) -> (tokens, patches of a token * width)."""
        return hidden.reshape(-1, self.patches_per_token * hidden.shape[-1])


class LanguageModel(PreTrainedModel):
    """A backbone's text model with a head: a causal language model that takes positions on three axes."""

    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012  (transformers reads it)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = TEXT_MODELS[config.model_type](config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self, labels: torch.Tensor | None = None, logits_to_keep: int | torch.Tensor = 0, **kwargs: Any
    ) -> CausalLMOutputWithPast:
        """What the text model takes -> logits, of the last `logits_to_keep` positions (0: all); loss if `labels`."""
        output = self.model(**kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept, :])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            **cache_argument(cache_of(output)),
        )


@dataclass(frozen=True, kw_only=True)
class PlusOutline(Outline):
    """With the row of each token: of [visual tokens of all grids, audio tokens]."""

    order_M: np.ndarray
    num_visual: int
    num_audio: int


class Salmonn2PlusForCaptioning(CaptioningModel):
    """A tower that looks at two frames of any size at a time, and positions on three axes."""

    config_class = Salmonn2PlusConfig
    counts_positions = False
    penalty_counts_prompt = True

    def __init__(self, config: Salmonn2PlusConfig) -> None:
        super().__init__(config)
        self.vision_tower = VISION_TOWERS[config.vision_config.model_type](config.vision_config)
        self.vision_aligner = _take_mergers(self.vision_tower, config.vision_config.spatial_merge_size**2)
        self.audio_encoder = WhisperEncoder(config.audio_config)
        self.audio_aligner = AudioAligner(config)
        self.language_model = LanguageModel(config.text_config)
        self.post_init()

    @property
    def embed_width(self) -> int:
        mergers = len(self.vision_aligner.mergers) if isinstance(self.vision_aligner, Mergers) else 1
        return self.config.text_config.hidden_size * mergers

    def encode_video(self, frames_TCHW: torch.Tensor, *, with_grad: bool = False) -> torch.Tensor:
        """8-bit frames, sides multiples of `patch_sizes.factor` -> vision features (T grids, N, V)."""
        rows_RE, grid = to_patches(frames_TCHW, self.config.patch_sizes)
        return self.encode_patches(rows_RE, grid, with_grad=with_grad)

    def encode_patches(
        self, rows_RE: torch.Tensor, grid: tuple[int, int, int], *, micro_batch: int = 32, with_grad: bool = False
    ) -> torch.Tensor:
        """8-bit rows of patches and their grid (temporal, height, width) -> vision features (T grids, N, V).

        Temporal grids do not see each other, so `micro_batch` of them at a time give the same.
        """
        num_grids, height, width = grid
        parts = []
        for part_RE in rows_RE.split(micro_batch * height * width):
            pixels_RE = normalize_patches(part_RE, mean=self.config.image_mean, std=self.config.image_std)
            part_grid = torch.tensor([[len(part_RE) // (height * width), height, width]], device=self.device)
            with torch.set_grad_enabled(with_grad and torch.is_grad_enabled()):
                output = self.vision_tower(pixels_RE.to(self.device, self.dtype), grid_thw=part_grid)
            parts.append(torch.cat([output.pooler_output, *getattr(output, "deepstack_features", ())], dim=-1))
        return torch.cat(parts).unflatten(0, (num_grids, -1))

    def align_batch(
        self, media: Sequence[MediaFeatures], outlines: Sequence[Outline] | None = None
    ) -> list[MediaTokens]:
        """Features of clips -> tokens of each; one merger call and one Q-Former call for all clips together."""
        outlined = [self.outline(one) for one in media] if outlines is None else cast(list[PlusOutline], outlines)
        visual_RD, audio_RD = self._visual_rows(media), self._audio_rows(media, outlined)
        visual = visual_RD.split([one.num_visual for one in outlined])
        audio = audio_RD.split([one.num_audio for one in outlined])
        return [
            self._media_tokens(*parts, grid=one.grid)
            for one, *parts in zip(media, outlined, visual, audio, strict=True)
        ]

    def _media_tokens(
        self, outline: PlusOutline, visual_RD: torch.Tensor, audio_RD: torch.Tensor, *, grid: VisionGrid | None
    ) -> MediaTokens:
        order_M = torch.from_numpy(outline.order_M).to(self.device)
        # sound says nothing to deeper layers
        audio_RD = F.pad(audio_RD, (0, visual_RD.shape[-1] - audio_RD.shape[-1]))
        embeds_MD = torch.cat([visual_RD, audio_RD]).index_select(0, order_M)
        return MediaTokens(
            ids=outline.ids,
            embeds_MD=embeds_MD,
            content_MD=embeds_MD,
            seconds_M=self._index(outline.seconds),
            types_M=torch.zeros_like(order_M),
            num_visual=outline.num_visual,
            num_audio=outline.num_audio,
            num_frames=grid.num_frames if grid else 0,
            is_image=grid is not None and grid.is_image,
            places=outline.places,
        )

    def _visual_rows(self, media: Sequence[MediaFeatures]) -> torch.Tensor:
        """Clips -> visual tokens of all their grids, one after the other (R, D)."""
        rows = [clip.vision_TNV.flatten(0, 1) for clip in media if clip.vision_TNV is not None]
        if not rows:
            return torch.zeros(0, self.embed_width, device=self.device, dtype=self.dtype)
        rows_RV = torch.cat([part_RV.to(self.device, self.dtype) for part_RV in rows])
        width = self.config.vision_config.hidden_size
        if isinstance(self.vision_aligner, Mergers):
            return self.vision_aligner(rows_RV, width=width)
        # the merger wants single patches, and puts those of a token together again
        return self.vision_aligner(rows_RV.view(-1, width))

    def _audio_rows(self, media: Sequence[MediaFeatures], outlines: Sequence[PlusOutline]) -> torch.Tensor:
        """Clips -> the audio tokens that their outlines use, one after the other (R, D)."""
        used = [one.num_audio for one in outlines]
        if not sum(used):
            return self._no_rows()
        return self.audio_aligner.project(self._audio_queries(media, used))

    def outline(self, media: MediaFeatures) -> PlusOutline:
        """One clip -> order and positions of its tokens: a grid, then the audio that it lasts, then the next grid."""
        starts_s = self._window_starts(media)
        if not self.config.padded_audio:
            starts_s = starts_s[: num_real_windows(starts_s, audio_seconds=media.audio_seconds)]
        audio_s = np.repeat(np.asarray(starts_s), self.config.num_queries)
        audio_times_U = mrope.audio_times(audio_s)
        grid, num_grids, per_grid = media.grid, 0, 0
        if media.vision_TNV is not None:
            if grid is None or grid.height * grid.width != media.vision_TNV.shape[1]:
                raise ValueError(f"grid: got {grid} for features of {media.vision_TNV.shape[1]} tokens a grid")
            num_grids, per_grid = media.vision_TNV.shape[:2]
        order_M = _by_time(num_grids, per_grid, audio_times_U, seconds_per_grid=grid.seconds_per_grid if grid else 1.0)
        times_s = np.concatenate([np.repeat(np.asarray(media.frame_times_T), per_grid), media.start_s + audio_s])
        num_visual = num_grids * per_grid
        placeholders = [VISUAL_ID if row < num_visual else AUDIO_ID for row in order_M.tolist()]
        return PlusOutline(
            ids=[self.config.vision_start_token_id, *placeholders, self.config.vision_end_token_id],
            seconds=np.floor(times_s[order_M] + 1e-6).astype(np.int64).tolist(),
            types=[0] * len(order_M),
            order_M=order_M,
            num_visual=num_visual,
            num_audio=len(audio_times_U),
            places=self._places(media, num_grids=num_grids, audio_times_U=audio_times_U, order_M=order_M),
        )

    def _places(
        self, media: MediaFeatures, *, num_grids: int, audio_times_U: np.ndarray, order_M: np.ndarray
    ) -> Positions:
        """Positions of the tokens of a clip and of what encloses them, from the first of them on."""
        grid = media.grid if num_grids else None
        sizes = {"height": grid.height if grid else 0, "width": grid.width if grid else 0}
        if self.config.positions == "official_generate":
            places = mrope.official_generate_positions(
                num_grids,
                **sizes,
                num_audio=len(audio_times_U),
                steps_per_grid=self.config.vision_config.tokens_per_second,
            )
        else:
            times_S = mrope.grid_times(num_grids, seconds_per_grid=grid.seconds_per_grid if grid else 1.0)
            places = mrope.train_positions(times_S, **sizes, audio_times_U=audio_times_U, order_M=order_M)
        start_X1, end_X1 = np.zeros((3, 1), np.int64), np.full((3, 1), places.following + 1)
        of_ids = np.concatenate([start_X1, places.of_tokens + 1, end_X1], axis=1)
        return Positions(of_ids=torch.from_numpy(of_ids), following=places.following + 2)

    def positions(self, ids: Sequence[int], media: MediaTokens | Outline | None) -> Positions:
        """Ids of a prompt and its media -> positions (3, L): text counts on, the media have those of `mrope`."""
        order_L = torch.arange(len(ids))
        if media is None or media.places is None:
            return Positions(of_ids=order_L.expand(3, -1), following=len(ids))
        block = media.places
        first = next(index for index, token in enumerate(ids) if token in (VISUAL_ID, AUDIO_ID)) - 1
        end = first + len(media.ids)
        # behind the block, everything moves by what the block takes more or less than one position an id
        shift = block.following - len(media.ids)
        of_ids = torch.cat(
            [order_L[:first].expand(3, -1), first + block.of_ids, (order_L[end:] + shift).expand(3, -1)], dim=1
        )
        return Positions(of_ids=of_ids, following=len(ids) + shift if len(ids) > end else first + block.following)

    @property
    def positions_rule(self) -> str:
        return f"{self.config.positions} positions"

    def batch_positions(self, ids_BL: torch.Tensor, media: Sequence[MediaTokens | None]) -> torch.Tensor:
        """Rows of ids, padded on the right, and their media -> position ids (3, B, L)."""
        placed = [self.positions(ids, one).of_ids for ids, one in zip(ids_BL.tolist(), media, strict=True)]
        return torch.stack(placed, dim=1).to(self.device)

    def official_ids(self, ids: Sequence[int], media: MediaTokens | None) -> list[int]:
        """Ids with placeholders -> the ids of the published prompt, where each media token has the id of its kind."""
        is_image = media is not None and media.is_image
        visual_id = self.config.image_token_id if is_image else self.config.video_token_id
        kinds = {VISUAL_ID: visual_id, AUDIO_ID: self.config.audio_token_id}
        return [kinds.get(token, token) for token in ids]


def _take_mergers(tower: Any, patches_per_token: int) -> nn.Module:
    """Takes the mergers out of a tower, which then gives the rows that they would merge -> them."""
    merger, tower.merger = tower.merger, TokenRows(patches_per_token)
    deep = getattr(tower, "deepstack_merger_list", ())
    if not len(deep):
        return merger
    mergers = Mergers([merger, *deep])
    tower.deepstack_merger_list = nn.ModuleList(TokenRows(patches_per_token) for _ in deep)
    return mergers


def _by_time(num_grids: int, per_grid: int, audio_times_U: np.ndarray, *, seconds_per_grid: float) -> np.ndarray:
    """Counts and times -> (M,): which of [visual tokens of all grids, audio tokens] stands where."""
    num_visual = num_grids * per_grid
    audio_U = num_visual + np.arange(len(audio_times_U))
    if not num_grids:
        return audio_U
    counts = mrope.audio_per_grid(num_grids, audio_times_U, seconds_per_grid=seconds_per_grid)
    ends = list(accumulate(counts))
    visual_SN = np.arange(num_visual).reshape(num_grids, per_grid)
    parts = []
    for grid_N, end, count in zip(visual_SN, ends, counts, strict=True):
        parts += [grid_N, audio_U[end - count : end]]
    return np.concatenate(parts)
