"""How far captions of one clip agree, and the default of avcap filter that is made of it."""

import pytest
from support.bulk_model import caption_of

from avcap.bulk.agreement import agreement_with, runs_of, shared
from avcap.bulk.filter import filter_captions
from avcap.errors import UserError
from avcap.infer.caption_file import read_rows
from avcap.records import DroppedCaption, read_jsonl, write_jsonl


def sample(video: str, text: str, number: int):
    return caption_of(video, text, caption_id=f"{video} {number}")


def test_shared_runs():
    one, other = runs_of("A red square grows."), runs_of("a red square shrinks")
    assert one == {("a", "red", "square"): 1, ("red", "square", "grows"): 1}
    assert shared(one, other) == 0.5  # 2 * 1 of 2 + 2
    assert shared(one, one) == 1.0 and shared(one, runs_of("Nothing at all.")) == 0.0
    assert shared(runs_of("Rain."), runs_of("rain")) == 1.0  # shorter than a run
    assert shared(runs_of(""), runs_of("")) == 1.0 and shared(runs_of(""), one) == 0.0


def test_a_caption_is_compared_with_the_others_of_its_clip_alone():
    texts = ("a red square grows", "a red square shrinks", "rain falls on the roof")
    samples = [sample("a", text, index) for index, text in enumerate(texts)] + [sample("b", texts[0], 9)]
    agreement_of = agreement_with(samples)
    assert agreement_of(caption_of("a", texts[0])) == 0.5  # 1, 0.5, 0
    assert agreement_of(samples[0]) == 0.25  # 0.5, 0: not with itself
    assert agreement_of(samples[3]) is None and agreement_of(caption_of("c", "x")) is None


@pytest.fixture
def files(tmp_path):
    write_jsonl(tmp_path / "captions.jsonl", [caption_of(name, "a red square grows") for name in "abcd"])
    texts = {"a": "a red square grows", "b": "a red square shrinks", "c": "rain falls on it", "d": "a red square grows"}
    write_jsonl(tmp_path / "samples.jsonl", [sample(name, text, 0) for name, text in texts.items()])
    return tmp_path


def run_filter(files, **options):
    return filter_captions(files / "captions.jsonl", kept=files / "k.jsonl", dropped=files / "d.jsonl", **options)


def test_the_default_keeps_the_half_that_agrees_best(files):
    told = run_filter(files, samples=files / "samples.jsonl")
    assert told.where == "agreement>=0.75"  # the median of 1, 0.5, 0, 1
    assert [row.video for row in read_rows(files / "k.jsonl")] == ["a", "d"]
    assert [row.reasons for row in read_jsonl(files / "d.jsonl", DroppedCaption)] == [
        ("agreement>=0.75 is not true: agreement is 0.5",),
        ("agreement>=0.75 is not true: agreement is 0",),
    ]


def test_agreement_is_a_column_like_others(files):
    told = run_filter(files, samples=files / "samples.jsonl", where="agreement>0.2 and finished")
    assert (told.num_kept, told.num_dropped) == (3, 1)


def test_without_samples_a_condition_has_to_be_said(files, run):
    with pytest.raises(UserError, match="got no --where, and no --samples"):
        run_filter(files)
    code, _, err = run("filter", files / "captions.jsonl", "--where", "agreement>0.5")
    assert code == 2 and "got --where with agreement and no --samples" in err
    code, _, err = run("filter", files / "captions.jsonl", "--samples", files / "samples.jsonl")
    assert code == 0 and "--where 'agreement>=0.75': half of the captions" in err
