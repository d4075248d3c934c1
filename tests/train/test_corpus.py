"""Lists of real videos: both flavours of file, every way to be wrong, and batches that never hide a bad video."""

import json
from pathlib import Path

import pytest
import torch

from avcap.data.corpus import read_corpus
from avcap.errors import UserError
from avcap.records import Sample, write_jsonl
from avcap.train.corpus import Corpus, CorpusConfig

CAPTION = "A red circle appears."


def sample(name: str, **fields) -> Sample:
    values = {"sample_id": name, "video": f"{name}.mp4", "prompt": "What happens?", "reference_caption": CAPTION}
    return Sample(**values | fields)


def released_row(video: str, **fields) -> dict:
    turns = [{"from": "human", "value": "<image>\nWhat happens?"}, {"from": "gpt", "value": CAPTION}]
    return {"video": video, "conversations": turns} | fields


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_our_own_flavour_is_read_as_it_is(tmp_path):
    samples = [sample("a"), sample("b", interval_s=(1.0, 2.5))]
    write_jsonl(tmp_path / "list.jsonl", samples)
    assert read_corpus(tmp_path / "list.jsonl") == samples


def test_the_released_flavour_becomes_samples(tmp_path):
    rows = [released_row("a.mp4"), released_row("b.mp4", timestamps=[1, 2.5], id="bee")]
    first, second = read_corpus(write_json(tmp_path / "train.json", rows))
    assert first == sample("0", video="a.mp4")  # its number is its name, the media tag is ours to place
    assert second == sample("bee", video="b.mp4", interval_s=(1.0, 2.5))


TWICE_ASKED = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "x"}] * 2


@pytest.mark.parametrize(
    "rows, message",
    [
        ({}, "got dict, expected a list"),
        ([], "got no samples"),
        ([released_row("a.mp4"), {"video": "b.mp4"}], "row 1: KeyError 'conversations'"),
        ([{"conversations": []}], "row 0: KeyError 'video'"),
        (["a.mp4"], "row 0: TypeError"),
        ([released_row("a.mp4", conversations=[{"from": "human", "value": "What?"}])], "row 0: KeyError 'gpt'"),
        ([released_row("a.mp4", conversations=TWICE_ASKED)], "row 0: got several turns of one speaker"),
        ([released_row("a.mp4", timestamps=["soon", 3])], "row 0: ValueError"),
        ([released_row("a.mp4", timestamps=[1, 2, 3])], r"row 0: got timestamps \(1.0, 2.0, 3.0\)"),
        ([released_row("a.mp4", id="x"), released_row("b.mp4", id="x")], "two samples are called 'x'"),
        (
            [released_row("a.mp4", conversations=[{"from": "human", "value": "What?"}, {"from": "gpt", "value": ""}])],
            "sample '0' has no reference caption",
        ),
    ],
)
def test_a_wrong_released_file_is_named_with_its_row(tmp_path, rows, message):
    with pytest.raises(UserError, match=rf"train\.json.*{message}"):
        read_corpus(write_json(tmp_path / "train.json", rows))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        read_corpus(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"none\.jsonl: cannot be read"):
        read_corpus(tmp_path / "none.jsonl")
    for name in ("bytes.json", "bytes.jsonl"):
        (tmp_path / name).write_bytes(b"\xff\xfd")
        with pytest.raises(UserError, match=f"{name}: .*no UTF-8"):
            read_corpus(tmp_path / name)
    write_jsonl(tmp_path / "bare.jsonl", [sample("a", reference_caption=None)])
    with pytest.raises(UserError, match="sample 'a' has no reference caption"):
        read_corpus(tmp_path / "bare.jsonl")
    (tmp_path / "half.jsonl").write_text('{"sample_id": "a"\n')
    with pytest.raises(UserError, match=r"half\.jsonl, line 1: not a line of JSON"):
        read_corpus(tmp_path / "half.jsonl")


@pytest.fixture
def listed(videos, tmp_path):
    """-> function: names of videos, "broken" among them -> a list beside which "broken.mp4" is no video."""

    def write(*names: str) -> str:
        (tmp_path / "broken.mp4").write_bytes(b"no video at all")
        path = tmp_path / "list.jsonl"
        folders = {name: tmp_path if name == "broken" else videos for name in names}
        write_jsonl(path, [sample(name, video=str(folders[name] / f"{name}.mp4")) for name in names])
        return str(path)

    return write


def batches_of(
    tiny, *files: str, batch_size: int = 2, seed: int = 0, max_tokens: int | None = None, **fields
) -> Corpus:
    model, tokenizer = tiny
    config = CorpusConfig(files=files, **fields)
    return Corpus(
        model=model, tokenizer=tokenizer, config=config, batch_size=batch_size, seed=seed, max_tokens=max_tokens
    )


def order(batches: Corpus, number: int) -> list[str]:
    return [batches._sample(index).sample_id for index in range(number)]


def test_every_epoch_has_every_sample_once_in_an_order_of_its_own(tiny, tmp_path):
    write_jsonl(tmp_path / "list.jsonl", [sample(f"v{index}") for index in range(20)])
    drawn = order(batches_of(tiny, str(tmp_path / "list.jsonl")), 60)
    epochs = [drawn[first : first + 20] for first in (0, 20, 40)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 20 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order(batches_of(tiny, str(tmp_path / "list.jsonl")), 60) == drawn
    assert order(batches_of(tiny, str(tmp_path / "list.jsonl"), seed=1), 60) != drawn
    batches = batches_of(tiny, str(tmp_path / "list.jsonl"))  # in any order of asking, as a resumed run does
    for place in (45, 3, 22, 59):
        assert batches._sample(place).sample_id == drawn[place]


def test_held_out_samples_are_never_drawn(tiny, tmp_path):
    write_jsonl(tmp_path / "list.jsonl", [sample(f"v{index}") for index in range(10)])
    batches = batches_of(tiny, str(tmp_path / "list.jsonl"), num_held_out=3)
    held_out = {found.sample_id for found in batches.held_out_samples}
    assert len(held_out) == 3 and held_out.isdisjoint(order(batches, 40))
    with pytest.raises(UserError, match="all 10 samples are held out"):
        batches_of(tiny, str(tmp_path / "list.jsonl"), num_held_out=10)


def test_no_files_say_how_to_name_some(tiny):
    with pytest.raises(UserError, match=r"--set 'corpus.files"):
        batches_of(tiny)


def test_a_batch_is_made_of_real_files_and_of_the_step_alone(tiny, listed):
    file = listed("a", "b", "c")
    batches = batches_of(tiny, file)
    (batch,), (again,) = batches.step(1), batches_of(tiny, file).step(1)  # the last of an epoch, the first of the next
    assert torch.equal(batch.packed.target_T, again.packed.target_T)
    assert all(map(torch.equal, batch.packed.ids, again.packed.ids))
    seconds = {"a": 3, "b": 2, "c": 4}
    expected = [seconds[name] for name in order(batches, 4)[2:]]
    assert [len(media.vision_TNV) for media in batch.media] == expected  # a frame a second
    assert all(media.has_audio for media in batch.media)
    _, tokenizer = tiny
    expected_ids = tokenizer(CAPTION + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    assert batch.packed.target_T.tolist() == 2 * expected_ids
    assert set(batch.packed.weight_T.tolist()) == {1.0} and batch.step_weight == 2 * len(expected_ids)


def test_microbatches_hold_at_most_so_many_tokens(tiny, listed):
    (whole,) = batches_of(tiny, listed("a", "b"), batch_size=2).step(0)
    longest = max(ids.shape[1] for ids in whole.packed.ids)
    parts = batches_of(tiny, listed("a", "b"), batch_size=2, max_tokens=longest).step(0)
    assert [part.packed.num_tokens for part in parts] == [ids.shape[1] for ids in whole.packed.ids]
    assert {part.step_weight for part in parts} == {whole.step_weight}


def test_audio_or_video_alone_if_so_configured(tiny, listed):
    file = listed("a")
    (audio,) = batches_of(tiny, file, batch_size=1, use_video=False).step(0)[0].media
    assert audio.vision_TNV is None and audio.has_audio
    (seen,) = batches_of(tiny, file, batch_size=1, use_audio=False).step(0)[0].media
    assert len(seen.vision_TNV) == 3 and not seen.has_audio


def test_an_unreadable_video_is_counted_once_and_never_replaced(tiny, listed, capsys):
    batches = batches_of(tiny, listed("a", "broken"))
    for step in range(2):
        assert [len(batch.media) for batch in batches.step(step)] == [1]  # one of two: no other video takes its place
    ((path, reason),) = batches.unreadable.items()
    assert path.endswith("broken.mp4") and "broken.mp4" in reason
    assert capsys.readouterr().err.count("not trained on (1 so far)") == 1


def test_a_batch_of_nothing_readable_is_an_error(tiny, listed):
    batches = batches_of(tiny, listed("broken"), batch_size=1)
    with pytest.raises(UserError, match=r"none of 1 videos can be read, the first: .*broken"):
        batches.step(0)
    assert batches.readable(batches.samples) == []
