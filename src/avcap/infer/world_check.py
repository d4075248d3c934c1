"""Whether a video looks and sounds like the world that a model was made for: the embedded model knows no other.

Every frame and every second of sound becomes a few plain statistics. Their mean and covariance over the world say how
far off a frame or second is (Mahalanobis distance), and how far off those of the world itself are says what is too far.
No weights of the model are asked: encoders that never saw anything else find a likeness in everything.

T frames  H, W pixels  C channels  S samples  K seconds of sound  N frames or seconds  F statistics
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from avcap import v0_1
from avcap.errors import UserError
from avcap.media.clip import Clip
from avcap.media.deadline import Check, no_check
from avcap.media.mel import SAMPLE_RATE_HZ, chunk_waveform, log_mel
from avcap.model.checkpoint.weight_files import read_header

CHECK_FILE = "world_check.safetensors"
SHRINKAGE = 0.05  # of the correlations towards none: distances along directions that the world hardly uses stay finite
# Limits are for means over so many frames or seconds in a row: the mean of a long clip strays less than one frame does.
WINDOWS = (1, 2, 4, 8)
QUANTILE = 0.995
# How far beyond the world's own quantile its border is; measured between held-out world clips and other videos.
VIDEO_MARGIN, AUDIO_MARGIN = 1.25, 1.0

# The darker half of brightness, weakest colour and saturation: mostly background, however much the objects cover.
COLOUR_QUANTILES = (0.02, 0.1, 0.25, 0.5)
DETAIL_QUANTILES = (0.25, 0.5, 0.75)
NUM_DETAIL_LEVELS = 4
NUM_MEL_BINS, NUM_BANDS = 80, 20
EDGE_FRAMES = 3, 4  # mel frames of 10 ms at the beginning and the end of a second
NUM_VIDEO_STATISTICS = 3 * len(COLOUR_QUANTILES) + NUM_DETAIL_LEVELS * len(DETAIL_QUANTILES)
NUM_AUDIO_STATISTICS = len(EDGE_FRAMES) * NUM_BANDS
FRAMES_AT_ONCE, SECONDS_AT_ONCE = 64, 600  # of hours of audio at once the spectra would take gigabytes
REMEDY = "delete it, or fit it again: python -m avcap.infer.world_fit FOLDER"


@dataclass(frozen=True, kw_only=True)
class Familiarity:
    """What the statistics of one modality are like in the world."""

    mean_F: torch.Tensor
    scale_F: torch.Tensor
    precision_FF: torch.Tensor
    limits: torch.Tensor
    """Largest mean distance, but for one in 200, over as many frames or seconds in a row as WINDOWS says."""

    @classmethod
    def fit(cls, clips_NF: Sequence[torch.Tensor]) -> "Familiarity":
        """Statistics of each of many clips of the world -> what is familiar."""
        all_NF = torch.cat(list(clips_NF))
        mean_F, scale_F = all_NF.mean(dim=0), all_NF.std(dim=0) + 1e-6
        correlation_FF = torch.corrcoef(((all_NF - mean_F) / scale_F).T).nan_to_num()
        precision_FF = torch.linalg.inv((1 - SHRINKAGE) * correlation_FF + SHRINKAGE * torch.eye(len(mean_F)))
        found = cls(mean_F=mean_F, scale_F=scale_F, precision_FF=precision_FF, limits=torch.ones(len(WINDOWS)))
        distances = [found.distances(clip_NF) for clip_NF in clips_NF]
        limits = [
            torch.cat([d.unfold(0, window, 1).mean(dim=1) for d in distances if len(d) >= window]).quantile(QUANTILE)
            for window in WINDOWS
        ]
        return cls(mean_F=mean_F, scale_F=scale_F, precision_FF=precision_FF, limits=torch.stack(limits))

    def check(self, path: Path, *, name: str, num_statistics: int) -> None:
        """UserError unless the tensors, read from a file, have the shapes and numbers of a check."""
        shapes = {
            "mean_F": (num_statistics,),
            "scale_F": (num_statistics,),
            "precision_FF": (num_statistics, num_statistics),
            "limits": (len(WINDOWS),),
        }
        for key, shape in shapes.items():
            tensor = getattr(self, key)
            if tuple(tensor.shape) != shape:
                raise UserError(f"{path}: got {name}.{key} of {list(tensor.shape)}, expected {list(shape)}; {REMEDY}")
            if not tensor.is_floating_point() or not tensor.isfinite().all():
                raise UserError(f"{path}: got {name}.{key} that is no finite numbers; {REMEDY}")
        if not (self.scale_F > 0).all() or not (self.limits > 0).all():
            raise UserError(f"{path}: got {name}.scale_F or {name}.limits of 0 or less, expected more; {REMEDY}")

    def distances(self, clip_NF: torch.Tensor) -> torch.Tensor:
        """Statistics -> how far each frame or second is from the world's mean (N,); about 1 for those of the world."""
        offset_NF = (clip_NF - self.mean_F) / self.scale_F
        return ((offset_NF @ self.precision_FF * offset_NF).sum(dim=1) / len(self.mean_F)).sqrt()

    def strangeness(self, clip_NF: torch.Tensor) -> float:
        """Statistics of a clip -> mean distance / the limit for its length."""
        longest = max(i for i, window in enumerate(WINDOWS) if window <= len(clip_NF))
        return (self.distances(clip_NF).mean() / self.limits[longest]).item()


@dataclass(frozen=True, kw_only=True)
class WorldCheck:
    video: Familiarity
    audio: Familiarity

    @classmethod
    def fit(cls, clips: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> "WorldCheck":
        """Frames (T, H, W, C) as the model sees them, and waveform (S,), of many clips of the world -> the check."""
        statistics = [(video_statistics(frames), audio_statistics(waveform)) for frames, waveform in clips]
        video_statistics_of, audio_statistics_of = zip(*statistics, strict=True)
        return cls(video=Familiarity.fit(video_statistics_of), audio=Familiarity.fit(audio_statistics_of))

    def score(self, clip: Clip, *, check: Check = no_check) -> float:
        """Clip -> how unlike the world it looks or sounds, whichever is more; above 1 it is not of it.

        `check` is called between pieces of the work, and may end it.
        """
        scores = []
        if len(clip.frames_THWC):
            parts = []
            for part_THWC in torch.from_numpy(clip.frames_THWC).split(FRAMES_AT_ONCE):
                check()
                parts.append(video_statistics(part_THWC))
            statistics_TF = torch.cat(parts)
            scores.append(self.video.strangeness(statistics_TF) / VIDEO_MARGIN)
        if len(clip.waveform_S):
            statistics_KF = audio_statistics(torch.from_numpy(clip.waveform_S), start_s=clip.start_s, check=check)
            scores.append(self.audio.strangeness(statistics_KF) / AUDIO_MARGIN)
        return max(scores)

    def save(self, folder: Path) -> None:
        """Writes the check into a checkpoint folder, which makes its captions carry `in_world`."""
        parts = {"video": self.video, "audio": self.audio}
        tensors = {
            f"{name}.{key}": tensor.clone(memory_format=torch.contiguous_format)
            for name, part in parts.items()
            for key, tensor in vars(part).items()
        }
        save_file(tensors, folder / CHECK_FILE)

    @classmethod
    def load(cls, folder: Path) -> "WorldCheck | None":
        """Checkpoint folder -> its check; None for a model that is for any video."""
        path = folder / CHECK_FILE
        if not path.exists():
            return None
        try:
            read_header(path)
            tensors = {v0_1.world_check_name(name): tensor for name, tensor in load_file(path).items()}
            parts = {
                name: Familiarity(**{key: tensors[f"{name}.{key}"] for key in Familiarity.__dataclass_fields__})
                for name in ("video", "audio")
            }
        except (UserError, OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); {REMEDY}") from None
        for name, expected in (("video", NUM_VIDEO_STATISTICS), ("audio", NUM_AUDIO_STATISTICS)):
            parts[name].check(path, name=name, num_statistics=expected)
        return cls(**parts)


def video_statistics(frames_THWC: torch.Tensor) -> torch.Tensor:
    """8-bit frames -> (T, F): colour and brightness of the darker half, and how much detail of each size there is."""
    frames_TCHW = frames_THWC.permute(0, 3, 1, 2).float() / 255
    brightest_THW, weakest_THW = frames_TCHW.amax(dim=1), frames_TCHW.amin(dim=1)
    parts = [
        _quantiles(values_THW, COLOUR_QUANTILES)
        for values_THW in (brightest_THW, weakest_THW, brightest_THW - weakest_THW)
    ]
    grey_T1HW = frames_TCHW.mean(dim=1, keepdim=True)
    for _ in range(NUM_DETAIL_LEVELS):
        coarse_T1HW = F.avg_pool2d(grey_T1HW, 2)
        smooth_T1HW = F.interpolate(coarse_T1HW, size=grey_T1HW.shape[2:], mode="bilinear")
        parts.append((_quantiles((grey_T1HW - smooth_T1HW).abs(), DETAIL_QUANTILES) + 1e-3).log())
        grey_T1HW = coarse_T1HW
    return torch.cat(parts, dim=1)


def _quantiles(values_T: torch.Tensor, quantiles: tuple[float, ...]) -> torch.Tensor:
    """(T, ...) -> (T, number of quantiles)."""
    return torch.quantile(values_T.flatten(1), torch.tensor(quantiles), dim=1).T


def audio_statistics(waveform_S: torch.Tensor, *, start_s: float = 0.0, check: Check = no_check) -> torch.Tensor:
    """Waveform that begins at `start_s` -> (K, F): the spectrum at the two edges of every whole second.

    A sound of the world begins just after a whole second and is over before the next, so there only the background is
    heard. Speech and music of other videos do not keep to that.
    """
    first = round((math.ceil(start_s) - start_s) * SAMPLE_RATE_HZ)
    num_whole = (len(waveform_S) - first) // SAMPLE_RATE_HZ
    if num_whole > 0:
        waveform_S = waveform_S[first : first + num_whole * SAMPLE_RATE_HZ]
    head, tail = EDGE_FRAMES
    parts = []
    for part_KS in chunk_waveform(waveform_S, chunk_s=1.0).split(SECONDS_AT_ONCE):
        check()
        mel_KMF = log_mel(part_KS, num_mel_bins=NUM_MEL_BINS)
        bands_KBF = mel_KMF.unflatten(1, (NUM_BANDS, -1)).mean(dim=2)
        parts.append(torch.cat([bands_KBF[..., :head].mean(dim=2), bands_KBF[..., -tail:].mean(dim=2)], dim=1))
    return torch.cat(parts)
