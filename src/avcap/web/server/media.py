"""Files of one request -> one Clip: a video with its own audio or another's, audio alone, or images as its frames.

Everything is decoded in worker processes that are killed when they take too long, within limits that are looked at
before the work is done. No torch.

T frames   H height   W width   C = 3 colours (RGB)   S samples of audio
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from avcap.errors import MediaError, UserError
from avcap.media.clip import Clip, ClipRequest
from avcap.media.pool import decode
from avcap.web.server.call import MediaPart
from avcap.web.server.parts import MediaFile
from avcap.web.server.refusals import Refused
from avcap.web.server.settings import Limits

OWN_AUDIO_LEFT_OUT = "its own audio was left out, as audio was sent beside it"


@dataclass(frozen=True, kw_only=True)
class MediaOrder:
    """What of a request's media is looked at.

    Attributes:
        use_own_audio: Whether a video brings its own audio.
        interval_s: Which part of a video or audio, in seconds.
    """

    use_own_audio: bool = True
    interval_s: tuple[float, float] | None = None


def check_media(parts: Sequence[MediaPart], *, max_frames: int) -> None:
    """Raises Refused for media that are not one clip."""
    kinds = [part.kind for part in parts]
    for kind, most in {"video": 1, "audio": 1, "image": max_frames}.items():
        if kinds.count(kind) > most:
            param = [part.param for part in parts if part.kind == kind][most]
            raise Refused(f"got {kinds.count(kind)} parts of {kind}, expected at most {most} in a request", param=param)
    if "video" in kinds and "image" in kinds:
        param = next(part.param for part in parts if part.kind == "image")
        raise Refused("got a video and images, expected one or the other in a request", param=param)


def media_key(files: Sequence[MediaFile], order: MediaOrder) -> str:
    """Files of a request and what is looked at of them -> a name for the clip that they are."""
    told = [[one.part.kind, one.part.second, one.digest] for one in files]
    asked = [order.use_own_audio, order.interval_s and [str(bound_s) for bound_s in order.interval_s]]
    return hashlib.sha256(json.dumps([told, asked]).encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class ClipReader:
    """Decodes the media of requests.

    Attributes:
        templates: (use video, use audio) -> how the model wants such a file decoded.
        limits: What a request may take.
    """

    templates: Mapping[tuple[bool, bool], ClipRequest]
    limits: Limits

    def read(self, files: Sequence[MediaFile], order: MediaOrder) -> Clip:
        """The files of one request, of which `check_media` has nothing to say -> their clip.

        Raises:
            Refused: One cannot be decoded, or is more than the limits.
        """
        audio = next((one for one in files if one.part.kind == "audio"), None)
        video = next((one for one in files if one.part.kind == "video"), None)
        images = [one for one in files if one.part.kind == "image"]
        seen = None
        if video is not None:
            with_audio = order.use_own_audio and audio is None
            seen = self._decode(video, use_video=True, use_audio=with_audio, interval_s=order.interval_s)
            if not seen.has_video:
                raise Refused("got a file without video, expected one", param=video.part.param, code="bad_media")
            if seen.has_audio and not with_audio:
                notes = (*seen.notes, *((OWN_AUDIO_LEFT_OUT,) if audio is not None else ()))
                seen = replace(seen, has_audio=False, notes=notes)
        elif images:
            seen = self._frames(images)
        if audio is None:
            assert seen is not None, "a request without media has no clip"
            return seen
        sounding = self._decode(audio, use_video=False, use_audio=True, interval_s=order.interval_s)
        if not len(sounding.waveform_S):
            raise Refused("got a file without audio, expected some", param=audio.part.param, code="bad_media")
        return sounding if seen is None else _joined(seen, sounding)

    def _decode(
        self, file: MediaFile, *, use_video: bool, use_audio: bool, interval_s: tuple[float, float] | None
    ) -> Clip:
        """A file -> its clip; how long it is is looked at before all of it is decoded."""
        template = self.templates[use_video, use_audio]
        request = replace(template, path=str(file.path), interval_s=interval_s)
        probe = replace(request, max_frames=1, with_video=True, with_audio=False, interval_s=None, lead_in=False)
        start_s, end_s = interval_s or (0.0, math.inf)
        self._check_length(min(end_s, self._run(probe, file).duration_s) - start_s, file)
        clip = self._run(request, file)
        self._check_length(clip.end_s - clip.start_s, file)  # what a header says may be wrong
        return clip

    def _check_length(self, length_s: float, file: MediaFile) -> None:
        if length_s > self.limits.media_s:
            raise Refused(
                f"got {length_s:.0f} s of {file.part.kind}, expected at most {self.limits.media_s:g} s; send a part of "
                "it, or ask for an interval (interval_s)",
                param=file.part.param,
                code="too_long",
            )

    def _run(self, request: ClipRequest, file: MediaFile) -> Clip:
        try:
            return decode(request, deadline_s=self.limits.decode_timeout_s)
        except (MediaError, UserError) as error:
            raise bad_media(error, path=request.path, param=file.part.param) from None

    def _frames(self, images: Sequence[MediaFile]) -> Clip:
        """Images -> a clip of them: at the seconds that they are said to show, or one a second."""
        template = self.templates[True, False]
        budget = template.pixel_budget and replace(template.pixel_budget, max_frames=1)
        request = replace(template, max_frames=1, lead_in=False, pixel_budget=budget)
        frames: list[np.ndarray] = []
        for image in images:
            clip = self._run(replace(request, path=str(image.path)), image)
            if not len(clip.frames_THWC):
                raise Refused("got a file without an image, expected one", param=image.part.param, code="bad_media")
            frames.append(clip.frames_THWC[0])
            # all frames of a clip have one size: that of the first
            request = replace(request, pixel_budget=None, frame_size=frames[0].shape[:2])
        times = _times(images)
        step_s = times[-1] - times[-2] if len(times) > 1 else 1.0
        end_s = times[-1] + step_s
        return Clip(
            path=str(images[0].path),
            frames_THWC=np.stack(frames),
            frame_times_T=np.array(times),
            lead_in_frame_HWC=None,
            waveform_S=np.empty(0, np.float32),
            sample_rate_hz=16000,
            start_s=0.0,
            end_s=end_s,
            duration_s=end_s,
            has_video=True,
            has_audio=False,
            num_bad_packets=0,
        )


def bad_media(error: UserError, *, path: str, param: str) -> Refused:
    """What is wrong with a file of a request -> its refusal, without the name that the file has here."""
    message = str(error).replace(path, param.rpartition(".")[2])
    return Refused(message, param=param, code="bad_media")


def _times(images: Sequence[MediaFile]) -> list[float]:
    told = [one.part.second for one in images]
    times = [float(index) for index in range(len(images))] if None in told else [one for one in told if one is not None]
    for one, before, after in zip(images[1:], times, times[1:], strict=False):
        if after <= before:
            raise Refused(
                f"got an image of second {after:g} behind one of second {before:g}, expected them in order",
                param=one.part.param,
            )
    return times


def _joined(seen: Clip, sounding: Clip) -> Clip:
    """A clip with frames and one with audio -> one with both, on the clock of the first."""
    return replace(
        seen,
        waveform_S=sounding.waveform_S,
        sample_rate_hz=sounding.sample_rate_hz,
        end_s=max(seen.end_s, sounding.end_s),
        duration_s=max(seen.duration_s, sounding.duration_s),
        has_audio=True,
        num_bad_packets=seen.num_bad_packets + sounding.num_bad_packets,
        notes=(*seen.notes, *sounding.notes),
    )
