"""What the shipped models can do, measured on worlds that no training clip comes from, decoded from their mp4 files.

    avcap world make --clips 200 --seed 1 --out out/world
    avcap world make --clips 100 --seed 2 --domain unseen --out out/world-unseen
    python bench/tiny.py tiny-base --world out/world --unseen out/world-unseen --out out/tiny-base.json
    python bench/tiny.py tiny-sft --world out/world --unseen out/world-unseen --out out/tiny-sft.json

Prints one line per figure, with its standard error where it is a rate over clips, and writes them all as JSON.
"""

import argparse
import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from avcap.curriculum.examples import TokenWeights, WorldExample, make_batches
from avcap.curriculum.loss import answer_logits, kind_accuracy
from avcap.data.encode import encode_clip
from avcap.infer.captioner import Captioner
from avcap.judge.metrics.error_counts import count_errors
from avcap.judge.metrics.words import count_words
from avcap.media.clip import Clip
from avcap.media.load import load_clip
from avcap.model.features import MediaFeatures
from avcap.records import Sample, WorldTruth, read_jsonl
from avcap.train.examples import ExampleEncoder
from avcap.world import describe
from avcap.world.make import scene_from_dict
from avcap.world.oracle import judge_caption
from avcap.world.questions import chance, right
from avcap.world.scene import Scene

VISUAL_KINDS = ("colour", "new_colour", "shape", "place", "verb")
AUDIO_KINDS = ("sound", "count", "word")


@dataclass(frozen=True, kw_only=True)
class WorldClip:
    truth: WorldTruth
    scene: Scene
    path: str
    clip: Clip
    media: MediaFeatures


def read_world(folder: Path, captioner: Captioner) -> list[WorldClip]:
    """World folder -> its clips, decoded from their files and encoded."""
    size = captioner.model.config.vision_config.image_size
    clips = []
    for truth in read_jsonl(folder / "truth.jsonl", WorldTruth):
        clip = load_clip(folder / truth.video, frame_size=(size, size))
        media = encode_clip(captioner.model, clip, tokenizer=captioner.tokenizer)
        scene = scene_from_dict(truth.scene)
        clips.append(WorldClip(truth=truth, scene=scene, path=str(folder / truth.video), clip=clip, media=media))
    return clips


# --- teacher-forced accuracy ------------------------------------------------------------------------------------------


def clean_examples(clips: Sequence[WorldClip], *, modality: str = "both") -> list[WorldExample]:
    """Every busy second of every clip as a question with its clean answer, several to a lesson."""
    examples = []
    for clip in clips:
        seconds = sorted({atom.second for atom in (*clip.scene.visual, *clip.scene.sounds)})
        turns = [(describe.second_prompt(s), describe.clause(clip.scene, s, modality)) for s in seconds]
        asked = tuple((question, answer) for question, answer in turns if answer)
        if asked:
            examples.append(WorldExample(media=clip.media, scene=clip.scene, turns=asked))
    return examples


@torch.no_grad()
def accuracy(captioner: Captioner, examples: Sequence[WorldExample], *, batch_size: int = 16) -> dict[str, float]:
    """Teacher-forced accuracy by kind of word, over all lessons together."""
    hits: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    encoder = ExampleEncoder(model=captioner.model, tokenizer=captioner.tokenizer)
    for first in range(0, len(examples), batch_size):
        (batch,) = make_batches(examples[first : first + batch_size], encoder=encoder, weights=TokenWeights())
        logits_TV = answer_logits(captioner.model, batch, captioner.model.align_batch(batch.answers.media))
        kinds = [kind for kind in batch.kinds_T if kind]
        for name, value in kind_accuracy(batch, logits_TV).items():
            kind = name.removeprefix("accuracy/")
            number = sum(kind in (found, "content" if found != "time" else "time") for found in kinds)
            hits[kind] += value * number
            counts[kind] += number
    return {kind: hits[kind] / counts[kind] for kind in sorted(hits)}


def pooled(figures: dict[str, float], kinds: Sequence[str]) -> float:
    """Mean over kinds of word: every kind counts the same."""
    return sum(figures[kind] for kind in kinds) / len(kinds)


def swapped_media(captioner: Captioner, clips: Sequence[WorldClip]) -> dict[str, float]:
    """Accuracy with another clip's picture (or sound), and with a black picture (or silence) of the same length."""
    blank = [blank_media(captioner, clip) for clip in clips]
    other = [clips[(i + 1) % len(clips)].media for i in range(len(clips))]
    result = {}
    for modality, kinds, exchange in (
        ("visual", VISUAL_KINDS, exchange_video),
        ("audio", AUDIO_KINDS, exchange_audio),
    ):
        for name, sources in (("swapped", other), ("blank", blank)):
            changed = [
                replace(clip, media=exchange(clip.media, source)) for clip, source in zip(clips, sources, strict=True)
            ]
            figures = accuracy(captioner, clean_examples(changed, modality=modality))
            result[f"{modality}/{name}"] = pooled(figures, kinds)
    return result


def blank_media(captioner: Captioner, clip: WorldClip) -> MediaFeatures:
    black = replace(
        clip.clip, frames_THWC=clip.clip.frames_THWC * 0, waveform_S=clip.clip.waveform_S * 0, lead_in_frame_HWC=None
    )
    return encode_clip(captioner.model, black, tokenizer=captioner.tokenizer)


def exchange_video(media: MediaFeatures, source: MediaFeatures) -> MediaFeatures:
    """Media with the picture of `source`, cut or with its last frame held to the same number of frames."""
    assert media.vision_TNV is not None and source.vision_TNV is not None
    index_T = torch.arange(len(media.vision_TNV)).clamp(max=len(source.vision_TNV) - 1)
    return replace(media, vision_TNV=source.vision_TNV[index_T])


def exchange_audio(media: MediaFeatures, source: MediaFeatures) -> MediaFeatures:
    assert media.audio_KPA is not None and source.audio_KPA is not None
    index_K = torch.arange(len(media.audio_KPA)).clamp(max=len(source.audio_KPA) - 1)
    return replace(media, audio_KPA=source.audio_KPA[index_K])


# --- captions and questions, through the public API ------------------------------------------------------------------


def rate(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """Micro-average sum / sum over clips, with its standard error by the delta method over clips."""
    total = sum(denominators)
    value = sum(numerators) / total
    spread = sum((n - value * d) ** 2 for n, d in zip(numerators, denominators, strict=True))
    return {"value": value, "standard_error": math.sqrt(spread) / total}


def caption_errors(
    captioner: Captioner, clips: Sequence[WorldClip], samples: Sequence[Sample], *, modality: str = "both", **options
) -> dict[str, dict[str, float]]:
    """Greedy captions of samples (in the order of clips) judged by the oracle."""
    counts, words = [], []
    scenes = [clip.scene for clip in clips]
    for scene, sample, caption in zip(scenes, samples, captioner.caption(list(samples), **options), strict=True):
        verdict = judge_caption(caption.text, truth=scene, interval_s=sample.interval_s, modality=modality)
        counts.append(count_errors(verdict))
        words.append(count_words(caption.text))
    events = [count.num_events for count in counts]
    wrong = [count.incorrect + count.invented for count in counts]
    missed = [count.missing for count in counts]
    return {
        "missing": rate(missed, events),
        "hallucination": rate(wrong, events),
        "total": rate([m + w for m, w in zip(missed, wrong, strict=True)], events),
        "repetition": rate([count.num_repeated for count in words], [count.num_words for count in words]),
    }


def missing_by_modality(captioner: Captioner, clips: Sequence[WorldClip]) -> dict[str, float]:
    """Share of the events of each modality that greedy global captions miss."""
    missed, asked = defaultdict(int), defaultdict(int)
    for clip, caption in zip(clips, captioner.caption([clip.path for clip in clips]), strict=True):
        events = {event.event_id: event.modality for event in describe.scene_events(clip.scene)}
        for verdict in judge_caption(caption.text, truth=clip.scene).events:
            asked[events[verdict.event_id]] += 1
            missed[events[verdict.event_id]] += verdict.label == "missing"
    return {modality: missed[modality] / asked[modality] for modality in asked}


def label_errors(clips: Sequence[WorldClip]) -> dict[str, dict[str, float]]:
    """The imperfect annotator's own errors on these clips: what SFT imitates."""
    counts, words = [], []
    for clip in clips:
        rng = random.Random(clip.scene.seed)
        text = describe.imperfect_caption(clip.scene, annotator=describe.Annotator(), rng=rng)
        counts.append(count_errors(judge_caption(text, truth=clip.scene)))
        words.append(count_words(text))
    events = [count.num_events for count in counts]
    return {
        "missing": rate([count.missing for count in counts], events),
        "hallucination": rate([count.incorrect + count.invented for count in counts], events),
        "repetition": rate([count.num_repeated for count in words], [count.num_words for count in words]),
    }


def question_scores(captioner: Captioner, clips: Sequence[WorldClip], *, use_audio: bool = True) -> dict[str, float]:
    """Share of questions answered right, by kind and over all; chance beside each."""
    asked = [
        (question, Sample(sample_id=f"{clip.path}/{question.question_id}", video=clip.path, prompt=question.text))
        for clip in clips
        for question in clip.truth.questions
    ]
    answers = captioner.caption([sample for _, sample in asked], use_audio=use_audio)
    hits: dict[str, list[bool]] = defaultdict(list)
    for (question, _), answer in zip(asked, answers, strict=True):
        hits[question.kind].append(right(answer.text, question))
    result = {kind: sum(found) / len(found) for kind, found in sorted(hits.items())}
    result |= {f"{kind} (chance)": chance(kind) for kind in hits}
    every = [hit for found in hits.values() for hit in found]
    return {"all": sum(every) / len(every), **result}


def report(captioner: Captioner, clips: list[WorldClip], unseen: list[WorldClip]) -> dict[str, object]:
    whole = [Sample(sample_id=clip.path, video=clip.path, prompt="") for clip in clips]
    intervals = [
        (clip, replace(sample, video=clip.path)) for clip in clips for sample in clip.truth.intervals if sample.events
    ]
    seen = [clip for clip in clips if clip.scene.visual]
    audible = [clip for clip in clips if clip.scene.sounds]

    def alone(found: list[WorldClip], prompt: str) -> list[Sample]:
        return [Sample(sample_id=clip.path, video=clip.path, prompt=prompt) for clip in found]

    parts: dict[str, Callable[[], object]] = {
        "accuracy": lambda: accuracy(captioner, clean_examples(clips)),
        "accuracy, unseen voices": lambda: accuracy(captioner, clean_examples(unseen)),
        "swapped media": lambda: swapped_media(captioner, clips),
        "global captions": lambda: caption_errors(captioner, clips, whole),
        "global captions, missing by modality": lambda: missing_by_modality(captioner, clips),
        "labels of the annotator": lambda: label_errors(clips),
        "interval captions": lambda: caption_errors(
            captioner, [clip for clip, _ in intervals], [sample for _, sample in intervals]
        ),
        "picture-only captions": lambda: caption_errors(
            captioner, seen, alone(seen, describe.VIDEO_PROMPT), modality="visual"
        ),
        "sound-only captions": lambda: caption_errors(
            captioner, audible, alone(audible, describe.AUDIO_PROMPT), modality="audio"
        ),
        "questions": lambda: question_scores(captioner, clips),
        "questions without sound": lambda: question_scores(captioner, clips, use_audio=False),
    }
    figures: dict[str, object] = {}
    for name, measure in parts.items():
        figures[name] = measure()
        print(f"{name}: {json.dumps(rounded(figures[name]))}", flush=True)
    return figures


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a shipped model or checkpoint folder")
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--unseen", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    captioner = Captioner(args.model, batch_size=32)
    figures = report(captioner, read_world(args.world, captioner), read_world(args.unseen, captioner))
    args.out.write_text(json.dumps(rounded(figures), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
