"""Videos of a corpus become batches: decoded, encoded by the frozen encoders, with prompt and reference caption."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from avcap.data.corpus import read_corpus
from avcap.data.encode import clip_request, encode_clip
from avcap.errors import MediaError, UserError
from avcap.media.pool import decode
from avcap.model.captioning import CaptioningModel
from avcap.model.lora import LoraConfig
from avcap.records import Sample
from avcap.train.answer_loss import answer_loss
from avcap.train.compute import device_of, mixed_precision
from avcap.train.examples import AnswerBatch, Example, ExampleEncoder
from avcap.train.loop import LoopConfig, LossOutput
from avcap.train.optim import OptimConfig

DEADLINE_S = 120.0  # for decoding one video


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    files: tuple[str, ...] = ()
    """Lists of samples: .jsonl of ours, or the JSON lists of the released code (data/corpus.py)."""
    num_held_out: int = 0
    """Samples, drawn by the seed, that are never trained on and whose loss is logged."""
    fps: float = 1.0
    """Frames a second; at most `max_frames` in all."""
    max_frames: int = 110
    use_audio: bool = True
    use_video: bool = True
    """False for audio modality alignment: sound alone."""


@dataclass(kw_only=True)
class Corpus:
    """An ExampleSource (examples.py): samples in an order that the seed fixes anew for every epoch.

    A video that cannot be read is not replaced by another: its step is smaller, the loss of it is counted in
    `unreadable` and said at once. A step of which nothing can be read is an error.
    """

    model: CaptioningModel
    tokenizer: PreTrainedTokenizerBase
    config: CorpusConfig
    batch_size: int
    seed: int
    max_tokens: int | None = None
    """Most tokens of a microbatch."""
    unreadable: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.config.files:
            raise UserError("corpus.files: got none, expected the files to train on: --set 'corpus.files=[train.json]'")
        samples = [sample for name in self.config.files for sample in _with_paths(Path(name))]
        random.Random(f"held out/{self.seed}").shuffle(samples)
        self.held_out_samples = samples[: self.config.num_held_out]
        self.samples = samples[self.config.num_held_out :]
        if not self.samples:
            raise UserError(f"corpus: all {len(samples)} samples are held out, expected some to train on")
        self._encoder = ExampleEncoder(model=self.model, tokenizer=self.tokenizer)
        self._epoch, self._order = -1, [0]

    def batches(self) -> Callable[[int], list[AnswerBatch]]:
        return self.step

    def step(self, step: int) -> list[AnswerBatch]:
        """Step -> its microbatches."""
        first = step * self.batch_size
        samples = [self._sample(number) for number in range(first, first + self.batch_size)]
        batches = self.readable(samples)
        if not batches:
            reason = self.unreadable[samples[0].video]
            raise UserError(f"none of {len(samples)} videos can be read, the first: {reason}")
        return batches

    def readable(self, samples: Sequence[Sample]) -> list[AnswerBatch]:
        """Samples -> microbatches of those that can be read; none if there are none."""
        examples = [example for example in map(self._example, samples) if example]
        return self._encoder.batches(examples, max_tokens=self.max_tokens) if examples else []

    def loss(self, batch: AnswerBatch) -> LossOutput:
        return answer_loss(self.model, batch)

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Mean answer loss of the held-out samples that can be read, one by one: they differ in length by a lot."""
        if not self.held_out_samples:
            return {}
        self.model.eval()
        losses = []
        for sample in self.held_out_samples:
            for batch in self.readable([sample]):
                with mixed_precision(self.model):
                    losses.append(self.loss(batch.to(device_of(self.model))).loss.item())
        self.model.train()
        mean = {"held_out/loss": sum(losses) / len(losses)} if losses else {}
        return mean | {"held_out/num_samples": len(losses)}

    def leave(self, folder: Path) -> None:
        """Names the videos that could not be read, if there were any."""
        if self.unreadable:
            report = {"unreadable": self.unreadable}
            (folder / "unreadable.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    def _sample(self, number: int) -> Sample:
        epoch, place = divmod(number, len(self.samples))
        if epoch != self._epoch:  # kept: to shuffle a large corpus for every sample takes longer than a step
            self._epoch, self._order = epoch, list(range(len(self.samples)))
            random.Random(f"epoch/{self.seed}/{epoch}").shuffle(self._order)
        return self.samples[self._order[place]]

    def _example(self, sample: Sample) -> Example | None:
        request = clip_request(
            self.model.config,
            sample.video,
            fps=self.config.fps,
            max_frames=self.config.max_frames,
            interval_s=sample.interval_s,
            with_audio=self.config.use_audio,
            with_video=self.config.use_video,
        )
        try:
            clip = decode(request, deadline_s=DEADLINE_S)
        except MediaError as error:
            if sample.video not in self.unreadable:
                self.unreadable[sample.video] = str(error)
                Console(stderr=True).print(f"not trained on ({len(self.unreadable)} so far): {error}", style="yellow")
            return None
        assert sample.reference_caption is not None
        # off the device until its microbatch is read: features of a whole step may be larger than its memory
        media = encode_clip(self.model, clip, tokenizer=self.tokenizer).to("cpu")
        return Example(media=media, turns=((sample.prompt, sample.reference_caption),), name=sample.sample_id)


@dataclass(frozen=True, kw_only=True)
class CorpusFinetuneConfig:
    """How a stage learns from a corpus of videos with captions."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    seed: int = 0
    batch_size: int = 8
    """Samples a step."""
    lora: LoraConfig | None = None
    """LoRA on the language model; None: it is frozen and only the aligners train."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_steps=1000, num_workers=0))
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-5, muon_lr=None, warmup_steps=30))

    knows_world: ClassVar[bool] = False

    def source(
        self, model: CaptioningModel, tokenizer: PreTrainedTokenizerBase, *, encoders: Path, shared_dir: Path
    ) -> Corpus:
        """-> the samples of the files, for this model."""
        del encoders, shared_dir  # features are computed as they are needed, with the model itself
        return Corpus(
            model=model,
            tokenizer=tokenizer,
            config=self.corpus,
            batch_size=self.batch_size,
            seed=self.seed,
            max_tokens=self.loop.max_tokens,
        )


def _with_paths(path: Path) -> list[Sample]:
    """File of samples -> its samples with video paths that can be opened from here."""
    return [replace(sample, video=str(path.parent / sample.video)) for sample in read_corpus(path)]
