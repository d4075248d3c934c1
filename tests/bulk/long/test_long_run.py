"""Long videos have one caption each, made of their windows'; stopped anywhere, no window is captioned twice."""

import json
import re
from pathlib import Path

import pytest
from support.bulk_model import DECODING, MODEL, caption_of

from avcap.bulk.folder import caption_folder
from avcap.bulk.inputs.items import Item
from avcap.bulk.job import FolderJob, Told
from avcap.bulk.long.summary import Summarizer
from avcap.bulk.long.windowing import Windowing
from avcap.bulk.places import Root
from avcap.data.request import Prompts, Request
from avcap.errors import RunError, UserError
from avcap.infer.caption_file import read_rows
from avcap.llm.types import NoReply, Reply
from avcap.records import CaptionError, Seen, from_json, to_json

PROMPTS = Prompts(global_caption="All?", interval_caption="From {start} to {end}?")


class Windowed:
    """Says which window it saw, and what ends it and begins the next; `bad`: parts of ids that give no caption."""

    def __init__(self, *bad: str) -> None:
        self.bad, self.asked, self.prompts = bad, [], []

    def __call__(self, samples):
        for sample in samples:
            self.asked.append(Path(sample.sample_id).name)
            self.prompts.append(sample.prompt)
            if any(part in sample.sample_id for part in self.bad):
                yield CaptionError(sample_id=sample.sample_id, video=sample.video, error="it is dark")
                continue
            if sample.interval_s is None:
                yield caption_of(sample.video, "All of it.", prompt="All?", sample_id=sample.sample_id)
                continue
            start_s, end_s = sample.interval_s
            text = f"Lamp {start_s:g} is lit. Thing {start_s:g} moves around. A bell tolls at {round(min(end_s, 4.0))}."
            yield caption_of(
                sample.video,
                text,
                sample_id=sample.sample_id,
                prompt=sample.prompt or f"From {start_s:g} to {min(end_s, 4.0):g}?",
                interval_s=(start_s, min(end_s, 4.0)),
                duration_s=4.0,
                seen=Seen(frames=2, audio_seconds=2.0, visual_tokens=4, audio_tokens=None, audio="confirmed"),
            )


@pytest.fixture
def film(videos, tmp_path, monkeypatch):
    """film(model, ...) -> what caption_folder told of c.mp4, of 4 s, in windows of 2 s with an overlap of 0.5 s.

    Borders are at their times: 0..2, 1.5..3.5 and 3 s to the end.
    """
    monkeypatch.setattr("avcap.bulk.long.windowing.find_border", lambda path, *, end_s, **_: end_s)

    def film(model, *, names=("c.mp4",), items=None, carry=False, windowing=None, request=None, **fields) -> Told:
        windowing = windowing or Windowing(window_s=2.0, overlap_s=0.5, carry=carry)
        job = FolderJob(
            out=tmp_path / "out",
            root=Root(folder=str(videos)),
            videos=tuple(items or [Item(video=str(videos / name)) for name in names]),
            request=request or Request(decoding=DECODING),
            forms=("txt",),
            long=windowing,
            prompts=PROMPTS,
            checkpoint=MODEL,
            **fields,
        )
        return caption_folder(job, stream=model, check=lambda row: None)

    return film


def test_a_rows_own_part_has_no_window_twice(film, tmp_path, videos):
    """Windows 0..2, 1.5..3.5 and 3 s to the end: of 1.6..1.9 s one window is left, of 1..3 s two."""
    row = Item(video=str(videos / "c.mp4"), sample_id="short", interval_s=(1.6, 1.9))
    model = Windowed()
    film(model, items=[row, Item(video=row.video, sample_id="long", interval_s=(1.0, 3.0))])
    assert sorted(model.asked) == ["long#t=1,2", "long#t=1.5,3", "short"]


def rows_of(folder: Path, name: str = "captions.jsonl"):
    return list(read_rows(folder / name))


def test_a_long_video_has_one_caption_and_keeps_its_windows(film, tmp_path):
    model = Windowed()
    told = film(model, names=("b.mp4", "c.mp4"), toc=True)
    assert model.asked == ["b.mp4", "c.mp4#t=0,2", "c.mp4#t=1.5,3.5", "c.mp4#t=3,"]
    short, long = rows_of(tmp_path / "out")
    assert (short.text, short.windows, short.made_by) == ("All of it.", (), "")
    assert long.made_by == "windows of 2 s, overlapping by 0.5 s, stitched"
    assert [(one.start_s, one.end_s) for one in long.windows] == [(0.0, 2.0), (1.5, 3.5), (3.0, 4.0)]
    assert long.windows[1].text == "Lamp 1.5 is lit. Thing 1.5 moves around. A bell tolls at 4."
    assert (long.sample_id, long.interval_s, long.prompt) == (long.video, None, "All?")
    # three windows of 2 frames; what is not known of one is not known of all
    assert (long.seen.frames, long.seen.audio_seconds, long.seen.audio_tokens, long.seen.audio) == (
        6,
        6.0,
        None,
        "confirmed",
    )
    text = (tmp_path / "out" / "c.txt").read_text()
    assert text == long.text and text.count("\n\n") == 2
    assert (tmp_path / "out" / "c.toc.md").read_text().splitlines()[2:] == [
        "- 00:00:00 Lamp 0 is lit.",
        "- 00:00:01 Lamp 1.5 is lit.",
        "- 00:00:03 Lamp 3 is lit.",
    ]
    assert (told.num_long, told.num_new) == (1, 2)
    assert from_json(to_json(long), type(long)) == long
    assert "windows" not in json.loads(to_json(short))


def test_stopped_after_any_window_no_window_is_captioned_twice(film, tmp_path):
    asked = []

    def stopped(samples):
        for index, row in enumerate(Windowed()(samples)):
            asked.append(row.sample_id)
            yield row
            if index == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        film(stopped, rows_at_once=1)
    model = Windowed()
    film(model)
    assert len(asked) == 2 and model.asked == ["c.mp4#t=3,"]
    (row,) = rows_of(tmp_path / "out")
    assert [round(one.start_s, 1) for one in row.windows] == [0.0, 1.5, 3.0]
    model = Windowed()
    assert film(model).num_old == 1 and model.asked == []


def test_each_window_is_told_of_the_one_before(film, tmp_path):
    model = Windowed()
    film(model, names=("a.mp4", "c.mp4"), carry=True)
    # a lasts 3 s: 0..2 and 1.5 s to its end; first windows come first
    assert model.asked == ["a.mp4#t=0,2", "c.mp4#t=0,2", "a.mp4#t=1.5,", "c.mp4#t=1.5,3.5", "c.mp4#t=3,"]
    assert model.prompts[0] == model.prompts[1] == ""
    assert model.prompts[4].startswith("From 3 to 4?\n")
    assert "<before>Lamp 1.5 is lit." in model.prompts[4] and "Lamp 0" not in model.prompts[4]
    assert all(", each told of the one before, stitched" in row.made_by for row in rows_of(tmp_path / "out"))


def test_a_window_that_fails_makes_an_error_and_twice_a_gap(film, tmp_path):
    told = film(Windowed("t=1.5"))
    (row,) = rows_of(tmp_path / "out")
    assert "1 of its 3 windows have no caption, the first: it is dark; --retry-failed" in row.error
    assert not (tmp_path / "out" / "c.txt").exists() and not told.is_whole
    model = Windowed("t=1.5")
    assert film(model).num_old_errors == 1 and model.asked == []
    told = film(model, retry_failed=True)
    assert model.asked == ["c.mp4#t=1.5,3.5"]  # and no other window
    (row,) = rows_of(tmp_path / "out")
    assert row.seen.notes == ("no caption of its part t=1.5,3.5: it is dark",)
    assert [one.start_s for one in row.windows] == [0.0, 3.0] and (told.num_with_gaps, told.is_whole) == (1, False)


def test_windows_of_another_way_are_refused(film):
    film(Windowed())
    other = Request(decoding=DECODING, prompt="Who?")
    with pytest.raises(UserError, match=r"windows\.jsonl: got windows of the model .* asked about otherwise"):
        film(Windowed(), names=("a.mp4",), request=other)


class Chat:
    name = "openai:text"

    def __init__(self, reply) -> None:
        self.reply, self.asked = reply, []

    def ask(self, requests):
        for request in requests:
            self.asked.append(request.messages[0].content)
            yield self.reply


def test_a_language_model_makes_one_caption_of_all(film, tmp_path):
    windowing = Windowing(window_s=2.0, overlap_s=0.5, summary="openai:text")
    told = film(Windowed(), windowing=windowing, summarizer=Summarizer(chat=Chat(NoReply(reason="asleep"))))
    (row,) = rows_of(tmp_path / "out")
    assert row.error.endswith("openai:text gave no summary: asleep") and not told.is_whole
    chat, model = Chat(Reply(text="Lamps, lit one by one.")), Windowed()
    film(model, windowing=windowing, summarizer=Summarizer(chat=chat), retry_failed=True)
    (row,) = rows_of(tmp_path / "out")
    assert (row.text, model.asked) == ("Lamps, lit one by one.", [])
    assert row.made_by.endswith("summed up by openai:text") and len(row.windows) == 3
    assert re.findall(r"From (\S+) to (\S+):", chat.asked[0])[1] == ("00:00:01", "00:00:03")


def test_what_every_summary_would_meet_ends_the_run(film):
    class Refusing(Chat):
        def ask(self, requests):
            raise RunError("the server does not accept the key")

    windowing = Windowing(window_s=2.0, overlap_s=0.5, summary="openai:text")
    with pytest.raises(RunError, match="does not accept the key"):
        film(Windowed(), windowing=windowing, summarizer=Summarizer(chat=Refusing(None)))
