"""What the frozen encoders made of clips, kept on disk: a clip is decoded and encoded once, whatever is asked of it.

One safetensors file per clip, named by a hash of all that it depends on: the content of the media file, which part of
it was looked at and how, and the encoders. A file carries the hash of what is in it; one that does not fit is deleted,
counted, and encoded again. Files are written aside and renamed, so that several processes may share a folder; reading
one makes it young, and the oldest go when the folder is full.

T frames  N vectors a frame  V tower width  K chunks of sound  P positions of a chunk  A width of the sound encoder
"""

import hashlib
import json
import logging
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from transformers import PreTrainedTokenizerBase

from avcap.errors import MediaError, UserError, WriteError
from avcap.files.hashes import hash_file, hash_tensors
from avcap.files.write import replacing
from avcap.media.clip import ClipRequest
from avcap.model.captioning import CaptioningModel
from avcap.model.encoder_hash import encoder_hash
from avcap.model.family import family_of
from avcap.model.features import MediaFeatures, VisionGrid

logger = logging.getLogger("avcap")

FORMAT = 4
SUFFIX = ".safetensors"
STALE_S = 3600.0  # a file still written aside after so long is of a process that was killed
SHRINK_TO = 0.9  # so that not every further clip has to make room
_TENSORS = ("vision_TNV", "lead_in_NV", "audio_KPA", "audio_queries_UQ")
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class EncodedMedia:
    """What the encoders made of a clip, and what its Caption tells of the file."""

    media: MediaFeatures
    duration_s: float
    num_bad_packets: int = 0
    world_score: float | None = None
    notes: tuple[str, ...] = ()


def features_id(model: CaptioningModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """A model -> a name for all of it that turns clips into features. It hashes every weight: ask once."""
    family, config = family_of(model.config), model.config
    fields, times = family.encoder_fields(config), None
    if family.writes_frame_times(config):  # that text depends on the tokenizer
        times = tokenizer("time 0123456789.,", add_special_tokens=False)["input_ids"]
    return _hash(encoder_hash(model), json.dumps(fields, sort_keys=True), str(times), str(model.dtype))


class FeatureCache:
    """The encoded clips of one folder. `hits`, `misses` and `num_corrupt` count what `get` found."""

    def __init__(self, folder: str | Path, *, max_bytes: int = 20 * 2**30, dtype: torch.dtype = torch.float32) -> None:
        """`dtype` float32 gives the captions of fresh encodings; bfloat16 takes half the room and rounds."""
        if dtype not in _DTYPES:
            raise ValueError(f"got dtype {dtype}, expected torch.float32 or torch.bfloat16")
        if max_bytes < 1:
            raise UserError(f"got a feature cache of {max_bytes} bytes, expected at least 1")
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.dtype = dtype
        self.hits = self.misses = self.num_corrupt = self.num_unkept = 0
        self._contents: dict[tuple[str, int, int], str] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot keep features there ({error.strerror}); name another folder") from None
        self._shrink()

    def key(self, request: ClipRequest, *, encoders: str) -> str:
        """What is decoded of a file, and `features_id` of the encoders -> name of its features.

        The file counts by its content, not by its path. MediaError if it cannot be read.
        """
        plan = {name: value for name, value in asdict(request).items() if name != "path"}
        plan_text = json.dumps(plan, sort_keys=True, default=str)
        return _hash(str(FORMAT), self._content_hash(request.path), plan_text, encoders, _DTYPES[self.dtype])

    def get(self, key: str) -> EncodedMedia | None:
        """Key -> what is kept under it, or None: nothing, or something that is damaged and now deleted."""
        path = self._path(key)
        try:
            clip = _read(path)
            os.utime(path)  # young again
        except FileNotFoundError:
            self.misses += 1
            return None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            self.num_corrupt += 1
            self.misses += 1
            logger.warning(f"{path}: damaged features ({error}); the clip is encoded again")
            path.unlink(missing_ok=True)
            return None
        self.hits += 1
        return clip

    def put(self, key: str, clip: EncodedMedia) -> EncodedMedia:
        """Keeps a clip -> the same as `get` will give it, rounded to the cache's dtype.

        A full disk costs the work of encoding again, not the run: it is said, and counted in `num_unkept`.
        """
        clip = replace(clip, media=_rounded(clip.media, self.dtype))
        path = self._path(key)
        data = _bytes_of(clip, dtype=self.dtype)
        try:
            if len(data) > self.max_bytes:
                raise WriteError(f"{len(data)} bytes, more than the whole cache may take")
            with replacing(path, durable=False) as aside:  # `get` finds out what a power cut left half
                aside.write_bytes(data)
        except WriteError as error:
            self.num_unkept += 1
            logger.warning(f"{path}: features cannot be kept ({error}); the clip will be encoded again")
            return clip
        self._bytes_until_look -= len(data)
        if self._bytes_until_look < 0:
            self._shrink()
        return clip

    def __contains__(self, key: str) -> bool:
        """Whether something is kept under a key; `get` says whether it is whole."""
        return self._path(key).exists()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _content_hash(self, path: str) -> str:
        try:
            status = os.stat(path)
            known = (os.path.abspath(path), status.st_size, status.st_mtime_ns)
            if known not in self._contents:
                self._contents[known] = hash_file(path)
        except OSError as error:
            raise MediaError(f"{path}: cannot be read ({error.strerror}); is it there?") from None
        return self._contents[known]

    def _shrink(self) -> None:
        """Deletes what killed processes left and, in a full folder, what was not used for longest."""
        kept: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process was quicker
                status = path.stat()
                if path.suffix == ".partial" and status.st_mtime < time.time() - STALE_S:
                    path.unlink()
                elif path.suffix == SUFFIX:
                    kept.append((status.st_mtime, status.st_size, path))
        num_bytes = sum(size for _, size, _ in kept)
        if num_bytes > self.max_bytes:
            for _, size, path in sorted(kept):
                if num_bytes <= SHRINK_TO * self.max_bytes:
                    break
                path.unlink(missing_ok=True)
                num_bytes -= size
        # Other processes write too: look again soon, even where there is room for all of ours.
        self._bytes_until_look = min(self.max_bytes - num_bytes, self.max_bytes // 20)


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _rounded(media: MediaFeatures, dtype: torch.dtype) -> MediaFeatures:
    """Features -> the same on the CPU in float32, each number one that `dtype` has."""
    tensors: dict[str, Any] = {name: _stored(tensor, dtype).float() for name, tensor in _tensors(media).items()}
    return replace(media, **tensors)


def _tensors(media: MediaFeatures) -> dict[str, torch.Tensor]:
    """Features -> those tensors that are there, by name."""
    named = {name: getattr(media, name) for name in _TENSORS}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.detach().to("cpu", dtype).contiguous()


def _bytes_of(clip: EncodedMedia, *, dtype: torch.dtype) -> bytes:
    """Clip -> content of its file."""
    media = clip.media
    tensors = {name: _stored(tensor, dtype) for name, tensor in _tensors(media).items()}
    facts = {
        "frame_times_T": list(media.frame_times_T),
        "audio_seconds": media.audio_seconds,
        "start_s": media.start_s,
        "time_text_ids": None if media.time_text_ids is None else [list(ids) for ids in media.time_text_ids],
        "grid": None if media.grid is None else asdict(media.grid),
        "duration_s": clip.duration_s,
        "num_bad_packets": clip.num_bad_packets,
        "world_score": clip.world_score,
        "notes": list(clip.notes),
    }
    text = json.dumps(facts)
    return save(tensors, metadata={"facts": text, "hash": _content(tensors, text)})


def _read(path: Path) -> EncodedMedia:
    """File -> the clip in it; ValueError where its content is not what was written."""
    # at once: safe_open goes back to the path for each tensor, and another process may have deleted the file
    data = path.read_bytes()
    tensors = load(data)
    header_size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + header_size])["__metadata__"]
    if _content(tensors, metadata["facts"]) != metadata["hash"]:
        raise ValueError("its content is not what was written")
    facts: dict[str, Any] = json.loads(metadata["facts"])
    fields: dict[str, Any] = {name: tensor.float() for name, tensor in tensors.items()}
    fields |= {name: facts.pop(name) for name in ("frame_times_T", "audio_seconds", "start_s", "time_text_ids")}
    grid, notes = facts.pop("grid"), tuple(facts.pop("notes"))
    fields["grid"] = None if grid is None else VisionGrid(**grid)
    return EncodedMedia(media=MediaFeatures(**fields), notes=notes, **facts)


def _content(tensors: dict[str, torch.Tensor], facts: str) -> str:
    """Tensors and facts of a file -> hash of them."""
    labelled = ((f"{name} {tuple(tensor.shape)} {tensor.dtype}", tensor) for name, tensor in sorted(tensors.items()))
    return hash_tensors(labelled, digest=hashlib.sha256(facts.encode()))
