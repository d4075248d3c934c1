"""Tracks become examples: a clip, cut and paired at random, with questions and the answers that are to be learned.

Kinds of example (all answers but the SFT captions are clean):
  seconds     "What happens at 3s?" several times: nearly every target token is content
  visual, audio  a caption of one modality, with or without the other being there
  interval    a local caption of a cut
  questions   question answering
  captions    global captions as the imperfect annotator writes them (only audio-visual SFT)
B examples  L tokens  M media tokens of an example
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch

from avcap.curriculum.alignment import num_told_words
from avcap.curriculum.feature_tracks import FeatureTrack, FeatureTracks
from avcap.data.prompt import ChatStyle
from avcap.model.features import MediaFeatures
from avcap.train.examples import AnswerBatch, Example, ExampleEncoder, batches_of, divide
from avcap.world import describe
from avcap.world.questions import ask
from avcap.world.scene import Scene

MIN_CLIP_S = 6
MAX_QUESTION_CLIPS = 20  # looked at for one that can be asked about; tracks of one length may hold none


@dataclass(frozen=True, kw_only=True)
class ExampleMix:
    """Share of each kind of example; they are normalised."""

    seconds: float = 0.0
    visual: float = 0.0
    audio: float = 0.0
    interval: float = 0.0
    questions: float = 0.0
    captions: float = 0.0
    imperfect_intervals: float = 0.0


@dataclass(frozen=True, kw_only=True)
class QuestionMix:
    """How often each kind is asked. What must be looked up in two steps, or found missing, is learned slowly."""

    say: float = 1.0
    heard: float = 3.0
    count: float = 1.0
    recolour: float = 2.0
    where: float = 1.0
    objects: float = 2.0
    first: float = 2.0
    there: float = 4.0
    during: float = 3.0


def only(kind: str) -> QuestionMix:
    """Kind of question -> nothing but that."""
    return QuestionMix(**(dict.fromkeys(asdict(QuestionMix()), 0.0) | {kind: 1.0}))


@dataclass(frozen=True, kw_only=True)
class CutTracks:
    """A picture track and a sound track, cut to [start_s, end_s), either of them possibly left out."""

    scene: Scene
    media: MediaFeatures
    start_s: int
    end_s: int


@dataclass(frozen=True, kw_only=True)
class WorldExample:
    """Media with questions, each asked as if it were the only one, their answers, and what is true."""

    media: MediaFeatures
    turns: tuple[tuple[str, str], ...]
    scene: Scene


def draw_clip(
    feature_tracks: FeatureTracks, *, track_s: int, rng: random.Random, length_s: int | None = None
) -> CutTracks:
    """Any picture with any sound track of `track_s`: from second 0 to a random end, or `length_s` seconds of it."""
    end_s = rng.randint(length_s or MIN_CLIP_S, track_s)
    video, audio = rng.choice(feature_tracks.video[track_s]), rng.choice(feature_tracks.audio[track_s])
    return pair_feature_tracks(video, audio, start_s=end_s - length_s if length_s else 0, end_s=end_s)


def pair_feature_tracks(
    video: FeatureTrack | None, audio: FeatureTrack | None, *, start_s: int, end_s: int
) -> CutTracks:
    """Two tracks (or one) -> the clip of the seconds [start_s, end_s) and all that is true of it."""
    base = video or audio
    assert base is not None, "a clip needs a picture track or a sound track"
    scene = replace(
        base.scene,
        duration_s=end_s,
        visual=_until(video.scene.visual, end_s) if video else (),
        sounds=_until(audio.scene.sounds, end_s) if audio else (),
    )
    media = MediaFeatures(
        vision_TNV=video.features[start_s:end_s] if video else None,
        frame_times_T=[float(second) for second in range(start_s, end_s)] if video else [],
        lead_in_NV=video.features[start_s - 1] if video and start_s else None,
        audio_KPA=audio.features[start_s:end_s] if audio else None,
        audio_seconds=float(end_s - start_s) if audio else 0.0,
        start_s=float(start_s),
    )
    return CutTracks(scene=scene, media=media, start_s=start_s, end_s=end_s)


def _until(atoms: tuple, end_s: int) -> tuple:
    return tuple(atom for atom in atoms if atom.second < end_s)


@dataclass(frozen=True, kw_only=True)
class ExampleSampler:
    """Draws examples from tracks."""

    feature_tracks: FeatureTracks
    mix: ExampleMix
    seconds_per_example: int = 4
    questions_per_example: int = 8
    question_mix: QuestionMix = QuestionMix()
    annotator: describe.Annotator = describe.Annotator()  # noqa: RUF009  (frozen)

    def examples(self, number: int, *, rng: random.Random) -> list[WorldExample]:
        """Examples for one batch, from tracks of one length: then little of the batch is padding."""
        track_s = rng.choice([length for length, found in self.feature_tracks.video.items() for _ in found])
        return [self._example(track_s, rng) for _ in range(number)]

    def _example(self, track_s: int, rng: random.Random) -> WorldExample:
        kinds: dict[str, Callable[[int, random.Random], WorldExample]] = {
            "seconds": self._seconds,
            "visual": self._visual,
            "audio": self._audio,
            "interval": self._interval,
            "questions": self._questions,
            "captions": self._caption,
            "imperfect_intervals": self._imperfect_interval,
        }
        weights = [getattr(self.mix, kind) for kind in kinds]
        return rng.choices(list(kinds.values()), weights=weights)[0](track_s, rng)

    def _seconds(self, track_s: int, rng: random.Random) -> WorldExample:
        clip = draw_clip(self.feature_tracks, track_s=track_s, rng=rng)
        busy = sorted({atom.second for atom in clip.scene.visual} | {audio.second for audio in clip.scene.sounds})
        idle = [second for second in range(clip.end_s) if second not in busy]
        seconds = rng.sample(busy, min(len(busy), self.seconds_per_example))
        seconds += rng.sample(idle, 1 if not busy else rng.randint(0, 1))
        rng.shuffle(seconds)
        turns = [
            (describe.second_prompt(second), describe.clause(clip.scene, second) or describe.NO_EVENT_ANSWER)
            for second in seconds
        ]
        return WorldExample(media=clip.media, scene=clip.scene, turns=tuple(turns))

    def _visual(self, track_s: int, rng: random.Random) -> WorldExample:
        return self._one_modality(track_s, rng, "visual")

    def _audio(self, track_s: int, rng: random.Random) -> WorldExample:
        return self._one_modality(track_s, rng, "audio")

    def _one_modality(self, track_s: int, rng: random.Random, modality: Literal["visual", "audio"]) -> WorldExample:
        """Half of the time the other modality is not there at all; then the global prompts mean the same."""
        clip = draw_clip(self.feature_tracks, track_s=track_s, rng=rng)
        prompts = [describe.VIDEO_PROMPT if modality == "visual" else describe.AUDIO_PROMPT]
        media = clip.media
        if rng.random() < 0.5:
            media = without_audio(media) if modality == "visual" else without_video(media)
            prompts += describe.GLOBAL_PROMPTS
        caption = describe.reference_caption(clip.scene, modality=modality)
        return WorldExample(media=media, scene=clip.scene, turns=((rng.choice(prompts), caption),))

    def _interval(self, track_s: int, rng: random.Random) -> WorldExample:
        return self._cut(track_s, rng, lambda scene, interval: describe.reference_caption(scene, interval_s=interval))

    def _imperfect_interval(self, track_s: int, rng: random.Random) -> WorldExample:
        return self._cut(
            track_s,
            rng,
            lambda scene, interval: describe.imperfect_caption(
                scene, annotator=self.annotator, rng=rng, interval_s=interval
            ),
        )

    def _cut(
        self, track_s: int, rng: random.Random, write: Callable[[Scene, tuple[float, float]], str]
    ) -> WorldExample:
        """The media of an interval alone, told as seconds of the whole video."""
        length = rng.randint(2, 6)
        clip = draw_clip(self.feature_tracks, track_s=track_s, rng=rng, length_s=length)
        prompt = describe.interval_prompt(clip.start_s, clip.end_s)
        text = write(clip.scene, (clip.start_s, clip.end_s))
        return WorldExample(media=clip.media, scene=clip.scene, turns=((prompt, text),))

    def _questions(self, track_s: int, rng: random.Random) -> WorldExample:
        shares = asdict(self.question_mix)
        for _ in range(MAX_QUESTION_CLIPS):
            clip = draw_clip(self.feature_tracks, track_s=track_s, rng=rng)
            kinds = rng.choices(list(shares), weights=list(shares.values()), k=self.questions_per_example)
            drawn = [ask(clip.scene, kind, clip_id="", rng=rng) for kind in kinds]
            turns = tuple((question.text, question.answer) for question in drawn if question)
            if turns:
                return WorldExample(media=clip.media, scene=clip.scene, turns=turns)
        return self._seconds(track_s, rng)

    def _caption(self, track_s: int, rng: random.Random) -> WorldExample:
        clip = draw_clip(self.feature_tracks, track_s=track_s, rng=rng)
        caption = describe.imperfect_caption(clip.scene, annotator=self.annotator, rng=rng)
        return WorldExample(media=clip.media, scene=clip.scene, turns=((rng.choice(describe.GLOBAL_PROMPTS), caption),))


def without_audio(media: MediaFeatures) -> MediaFeatures:
    """The same clip as if it were silent."""
    return replace(media, audio_KPA=None, audio_seconds=0.0)


def without_video(media: MediaFeatures) -> MediaFeatures:
    """The same clip as if it were sound alone."""
    return replace(media, vision_TNV=None, frame_times_T=[], lead_in_NV=None)


@dataclass(frozen=True, kw_only=True)
class WorldExampleBatch:
    """A microbatch of examples: their answers, what each target tells, and what each clip shows."""

    answers: AnswerBatch
    kinds_T: tuple[str | None, ...]
    scenes: tuple[Scene, ...]
    num_step_words: int
    """Of the whole step: words that media tokens are to name (alignment)."""

    def to(self, device: torch.device) -> "WorldExampleBatch":
        return replace(self, answers=self.answers.to(device))


YES_OR_NO = ("yes", "no")
CONTENT_KINDS = ("colour", "new_colour", "shape", "place", "verb", "sound", "count", "word")


@dataclass(frozen=True, kw_only=True)
class TokenWeights:
    """Weight of target tokens in the loss: grammar is learned by itself, content is what matters."""

    content: float = 4.0
    time: float = 4.0
    end: float = 4.0
    """The end token and the words that open a recap: stopping is a choice like the next second is."""
    other: float = 1.0


def make_batches(
    examples: Sequence[WorldExample], *, encoder: ExampleEncoder, weights: TokenWeights, max_tokens: int | None = None
) -> list[WorldExampleBatch]:
    """Examples of one step -> its microbatches."""
    words = [_answer_words(example, encoder) for example in examples]
    kinds = [[describe.token_kinds(answer) for answer in answers] for answers in words]
    end = encoder.tokenizer.eos_token
    encoded = []
    for example, answers, told in zip(examples, words, kinds, strict=True):
        weights_of = tuple(
            tuple(_weight(*pair, end, weights) for pair in zip(*answer, strict=True))
            for answer in zip(told, answers, strict=True)
        )
        weighted = Example(media=example.media, turns=example.turns, weights=weights_of)
        encoded.append(encoder.encode(weighted, example.media))
    num_words = sum(num_told_words(encoder.model, example) for example in examples)
    batches = batches_of(encoded, [example.media for example in examples], max_tokens=max_tokens)
    parts = divide([weighted.num_tokens for weighted in encoded], max_tokens=max_tokens)
    return [
        WorldExampleBatch(
            answers=batch,
            kinds_T=tuple(kind for told in kinds[part] for answer in told for kind in answer),
            scenes=tuple(example.scene for example in examples[part]),
            num_step_words=num_words,
        )
        for batch, part in zip(batches, parts, strict=True)
    ]


def _answer_words(example: WorldExample, encoder: ExampleEncoder) -> list[list[str]]:
    """-> the tokens of each answer and of what closes it."""
    closing = ChatStyle(**encoder.model.config.chat).answer_suffix
    ids = [encoder.tokenizer(answer + closing, add_special_tokens=False)["input_ids"] for _, answer in example.turns]
    return [encoder.tokenizer.convert_ids_to_tokens(found) for found in ids]


def _weight(kind: str | None, word: str, end: str, weights: TokenWeights) -> float:
    if kind in CONTENT_KINDS or word in YES_OR_NO:
        return weights.content
    if kind == "time":
        return weights.time
    return weights.end if word in (end, "Overall") else weights.other
