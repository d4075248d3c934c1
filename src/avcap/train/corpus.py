"""Videos of a corpus become batches: decoded, encoded by the frozen encoders, with prompt and reference caption."""

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from transformers import PreTrainedTokenizerFast

from avcap.data.corpus import read_corpus
from avcap.data.encode import clip_request, encode_clip
from avcap.data.prompt import ChatStyle
from avcap.errors import MediaError, UserError
from avcap.media.pool import decode
from avcap.model.captioning import CaptioningModel
from avcap.records import Sample
from avcap.train.lessons import Lesson, LessonBatch, TokenWeights, make_batch

DEADLINE_S = 120.0  # for decoding one video
UNIFORM = TokenWeights(content=1.0, time=1.0, end=1.0, other=1.0)


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    files: tuple[str, ...] = ()
    """Lists of samples: .jsonl of ours, or the JSON lists of the released code (data/corpus.py)."""
    num_held_out: int = 0
    """Samples, drawn by the seed, that are never trained on and whose loss is logged."""
    fps: float = 1.0
    """Frames a second; at most `max_frames` in all."""
    max_frames: int = 110
    use_sound: bool = True
    use_picture: bool = True
    """False for audio modality alignment: sound alone."""


@dataclass(kw_only=True)
class CorpusBatches:
    """Step -> batch of samples, in an order that the seed fixes anew for every epoch.

    A video that cannot be read is not replaced by another: its batch is smaller, the loss of it is counted in
    `unreadable` and said at once. A batch of which nothing can be read is an error.
    """

    model: CaptioningModel
    tokenizer: PreTrainedTokenizerFast
    config: CorpusConfig
    batch_size: int
    seed: int
    unreadable: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.config.files:
            raise UserError("corpus.files: got none, wanted the files to train on: --set 'corpus.files=[train.json]'")
        samples = [sample for name in self.config.files for sample in _with_paths(Path(name))]
        random.Random(f"held out/{self.seed}").shuffle(samples)
        self.held_out, self.samples = samples[: self.config.num_held_out], samples[self.config.num_held_out :]
        if not self.samples:
            raise UserError(f"corpus: all {len(samples)} samples are held out, wanted some to train on")
        self._epoch, self._order = -1, [0]

    def __call__(self, step: int) -> LessonBatch:
        first = step * self.batch_size
        return self.batch([self._sample(number) for number in range(first, first + self.batch_size)])

    def batch(self, samples: list[Sample]) -> LessonBatch:
        """Samples -> batch of those that can be read, of which there must be one."""
        batch = self.readable(samples)
        if batch is None:
            first = self.unreadable[samples[0].video]
            raise UserError(f"none of {len(samples)} videos can be read, the first: {first}")
        return batch

    def readable(self, samples: list[Sample]) -> LessonBatch | None:
        """Samples -> batch of those that can be read, None if there is none."""
        lessons = [lesson for lesson in map(self._lesson, samples) if lesson]
        if not lessons:
            return None
        return make_batch(
            lessons, place_tokens=self.model.placeholders, tokenizer=self.tokenizer,
            chat=ChatStyle(**self.model.config.chat), weights=UNIFORM,
        )  # fmt: skip

    def _sample(self, number: int) -> Sample:
        epoch, place = divmod(number, len(self.samples))
        if epoch != self._epoch:  # kept: to shuffle a large corpus for every sample takes longer than a step
            self._epoch, self._order = epoch, list(range(len(self.samples)))
            random.Random(f"epoch/{self.seed}/{epoch}").shuffle(self._order)
        return self.samples[self._order[place]]

    def _lesson(self, sample: Sample) -> Lesson | None:
        request = clip_request(
            self.model.config, sample.video, fps=self.config.fps, max_frames=self.config.max_frames,
            interval_s=sample.interval_s, want_sound=self.config.use_sound, want_picture=self.config.use_picture,
        )  # fmt: skip
        try:
            clip = decode(request, deadline_s=DEADLINE_S)
        except MediaError as error:
            if sample.video not in self.unreadable:
                self.unreadable[sample.video] = str(error)
                Console(stderr=True).print(f"not trained on ({len(self.unreadable)} so far): {error}", style="yellow")
            return None
        assert sample.reference_caption is not None
        media = encode_clip(self.model, clip, tokenizer=self.tokenizer)
        return Lesson(media=media, turns=((sample.prompt, sample.reference_caption),))


def _with_paths(path: Path) -> list[Sample]:
    """File of samples -> its samples with video paths that can be opened from here."""
    return [replace(sample, video=str(path.parent / sample.video)) for sample in read_corpus(path)]
