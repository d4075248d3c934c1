"""From features to vectors of the language model's width, as this family does it: projector, pooling, token tags."""

# T frames  N patches or pooled cells of a frame  V vision width  G patches per side  C channels
# U audio tokens  M media tokens  D language-model width

import torch
import torch.nn.functional as F
from torch import nn

from avcap.model.interleave import TokenTypes
from avcap.model.salmonn2.configuration import Salmonn2Config

SEGMENT_BASE = 10_000.0


class VisionAligner(nn.Module):
    """Projector, pooling, row newline, norm."""

    def __init__(self, config: Salmonn2Config) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.frame_difference = config.frame_difference
        self.pool_after = config.pool_position == "after"
        self.pool_stride, self.pool_mode = config.pool_stride, config.pool_mode
        self.cells_per_side = config.cells_per_side
        self.projector = _projector(config.vision_config.hidden_size * (1 + config.frame_difference), width, config)
        self.newline = nn.Parameter(torch.empty(width)) if config.row_newline else None
        self.norm = nn.LayerNorm(width) if config.connector_norm else nn.Identity()

    def input(self, vision_TNV: torch.Tensor, *, lead_in_NV: torch.Tensor | None) -> torch.Tensor:
        """Features of one clip -> what `forward` takes; joins the change since the previous frame if configured."""
        if not self.frame_difference:
            return vision_TNV
        before_first_NV = vision_TNV[0] if lead_in_NV is None else lead_in_NV
        previous_TNV = torch.cat([before_first_NV[None], vision_TNV[:-1]])
        return torch.cat([vision_TNV, vision_TNV - previous_TNV], dim=-1)

    def forward(self, vision_TNV: torch.Tensor) -> torch.Tensor:
        """Frames of any number of clips (T, N, V) -> visual tokens (T, tokens per frame, D)."""
        cells_TND = self.projector(vision_TNV)
        if self.pool_after:
            cells_TND = pool_cells(cells_TND, stride=self.pool_stride, mode=self.pool_mode)
        if self.newline is not None:
            rows_TRCD = cells_TND.unflatten(1, (self.cells_per_side, self.cells_per_side))
            newline_TR1D = self.newline.expand(*rows_TRCD.shape[:2], 1, -1)
            cells_TND = torch.cat([rows_TRCD, newline_TR1D], dim=2).flatten(1, 2)
        return self.norm(cells_TND)


def _projector(in_width: int, out_width: int, config: Salmonn2Config) -> nn.Module:
    """Widths -> the projector named by the config."""
    if config.projector == "linear":
        return nn.Linear(in_width, out_width)
    return nn.Sequential(nn.Linear(in_width, out_width), nn.GELU(), nn.Linear(out_width, out_width))


def pool_cells(patches_TNC: torch.Tensor, *, stride: int, mode: str) -> torch.Tensor:
    """Patches of square grids (T, G*G, C) -> pooled cells (T, (G//stride)**2, C); rest rows and columns fall away."""
    side = round(patches_TNC.shape[1] ** 0.5)
    grid_TCGG = patches_TNC.transpose(1, 2).unflatten(2, (side, side))
    pool = F.max_pool2d if mode == "max" else F.avg_pool2d
    return pool(grid_TCGG, kernel_size=stride).flatten(2).transpose(1, 2)


def segment_positions(chunks_U: torch.Tensor, *, width: int) -> torch.Tensor:
    """Chunk number of each token -> (U, width): zeros for chunk 0, for chunk i the interleaved sinusoid of i - 1."""
    frequency_F = SEGMENT_BASE ** (-torch.arange(0, width, 2, device=chunks_U.device, dtype=torch.float32) / width)
    angle_UF = (chunks_U[:, None] - 1) * frequency_F
    table_UD = torch.stack([angle_UF.sin(), angle_UF.cos()], dim=-1).flatten(1)[:, :width]
    return table_UD * (chunks_U > 0)[:, None]


class TokenTags(nn.Module):
    """Says of a media token what its content does not: its second and its place within the second."""

    def __init__(self, config: Salmonn2Config) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.time_norm = nn.LayerNorm(width) if config.time_vectors else None
        self.type_vectors = nn.Embedding(token_types(config).count, width) if config.type_vectors else None
        self.type_norm = nn.LayerNorm(width) if config.type_vectors else None

    def add_type(self, content_MD: torch.Tensor, *, types_M: torch.Tensor) -> torch.Tensor:
        """Connector output -> the same plus the normalised vector of each token's place."""
        if self.type_vectors is None or self.type_norm is None:
            return content_MD
        return content_MD + F.embedding(types_M, self.type_norm(self.type_vectors.weight))

    def add_time(self, content_MD: torch.Tensor, *, seconds_M: torch.Tensor, words_SD: torch.Tensor) -> torch.Tensor:
        """Content and the word embeddings of seconds 0..S-1 -> content plus the normalised word of each second."""
        if self.time_norm is None:
            return content_MD
        return content_MD + F.embedding(seconds_M.clamp(max=len(words_SD) - 1), self.time_norm(words_SD))


def token_types(config: Salmonn2Config) -> TokenTypes:
    """Config -> the numbering of the places a media token can have."""
    return TokenTypes(
        cells_per_side=config.cells_per_side,
        row_newline=config.row_newline,
        windows_per_s=max(1, round(1 / config.window_stride_s)),
        num_queries=config.num_queries,
    )
