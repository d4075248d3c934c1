"""Columns without ground truth, the conditions on them, and the captions that they keep."""

import pytest
from support.bulk_model import caption_of

from avcap.bulk.filter import COLUMNS, columns_of, filter_captions
from avcap.bulk.quality import quality_of
from avcap.bulk.where import read_where
from avcap.errors import UserError
from avcap.infer.caption_file import read_rows
from avcap.records import CaptionError, DroppedCaption, Seen, read_jsonl, write_jsonl

ROW = {
    **columns_of(caption_of("a.mp4", "one two three four five one two three four five")),
    "world_score": None,
    "in_world": None,
    "audio_seconds": 3.0,
}


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("repetition<0.1 and finished", False),
        ("repetition<=0.5 and finished", True),
        ("repetition < .6", True),
        ("not truncated", True),
        ("not not finished", True),
        ("finished and (repetition<0.1 or words>5)", True),
        ("repetition<0.1 or words>5 and finished", True),
        ("repetition<0.1 or words>50 or not finished", False),
        ("words>5 or repetition<0.1 and truncated", True),  # and binds more than or
        ("(words>5 or repetition<0.1) and truncated", False),
        ("world_score<1", False),  # not known
        ("not world_score<1", False),
        ("world_score<1 or finished", True),
        ("world_score==none and in_world == none", True),
        ("world_score!=none", False),
        ("in_world", False),
        ("finished == true and truncated != true", True),
        ('model == "model@1"', True),
        ("model != 'model@1'", False),
        ("frames = 3", True),
        ("duration_s >= 1e1 AND audio_confirmed", True),
        ("words > -1", True),
    ],
)
def test_conditions(text, keeps):
    where = read_where(text, kinds=COLUMNS)
    assert (where.reasons(ROW) == ()) is keeps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a condition such as"),
        ("repetition<", "with its end, expected a value"),
        ("repetition", "repetition alone, which is no truth value"),
        ("quality>1", "the column 'quality', expected one of repetition, words"),
        ("finished<1", "expected true or false"),
        ("finished<true", "expected true or false"),
        ("repetition<'a'", "expected a number"),
        ("repetition<none", "expected a number"),
        ("model==1", 'expected a "text"'),
        ("(finished", r"with its end, expected `\)`"),
        ("finished)", r"with '\)' at character 9, expected `and`"),
        ("finished finished", "with 'finished' at character 10"),
        ("and finished", "expected a column"),
        ("__import__('os')", "the column '__import__'"),
        ("finished; import os", "got --where with '; import os' in it"),
        ("(" * 200 + "finished" + ")" * 200, "more than 50 brackets"),
        ("not " * 400 + "finished", "more than 50"),
        ("finished and " * 500 + "finished", "expected a condition such as"),
    ],
)
def test_what_is_no_condition_is_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        read_where(text, kinds=COLUMNS)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_columns_say_what_the_record_knows():
    silent = Seen(frames=3, audio_seconds=0.0, visual_tokens=9, audio_tokens=0)
    engine = Seen(frames=3, audio_seconds=3.0, visual_tokens=None, audio_tokens=None, audio="sent, not confirmed")
    dropped = Seen(frames=3, audio_seconds=0.0, visual_tokens=None, audio_tokens=None, audio="dropped")
    here = quality_of(caption_of("a.mp4", "A dog.", in_world=True, world_score=0.5))
    assert (here.repetition, here.words, here.has_audio, here.audio_confirmed, here.world_score) == (
        0,
        2,
        True,
        True,
        0.5,
    )
    for seen, expected in ((silent, (False, None)), (engine, (True, False)), (dropped, (True, False))):
        found = quality_of(caption_of("a.mp4", "A dog.", seen=seen, finished=False))
        assert (found.has_audio, found.audio_confirmed) == expected
        assert (found.finished, found.truncated, found.in_world) == (False, True, None)


def test_captions_are_kept_as_they_were_and_dropped_with_reasons(tmp_path):
    rows = [
        caption_of("a.mp4", "A dog barks."),
        caption_of("b.mp4", "one two three four five one two three four five", finished=False),
        CaptionError(sample_id="c.mp4", video="c.mp4", error="c.mp4: is no video"),
    ]
    write_jsonl(tmp_path / "captions.jsonl", rows)
    kept, dropped = tmp_path / "kept.jsonl", tmp_path / "dropped.jsonl"
    files = {"kept": kept, "dropped": dropped}
    told = filter_captions(tmp_path / "captions.jsonl", where="repetition<0.1 and finished", **files)
    assert (told.num_kept, told.num_dropped) == (1, 2)
    assert list(read_rows(kept)) == rows[:1]
    first, second = read_jsonl(dropped, DroppedCaption)
    assert first.reasons == ("repetition<0.1 is not true: repetition is 0.5", "finished is not true: finished is false")
    assert second.reasons == ("no caption: c.mp4: is no video",) and second.caption_id is None
    assert told.reasons == {"repetition<0.1": 1, "finished": 1, "no caption": 1}
    filter_captions(tmp_path / "captions.jsonl", where="finished", **files)  # its own files are written anew
    kept.write_text("mine\n")
    with pytest.raises(UserError, match=r"kept\.jsonl: is there already and is not a file of captions"):
        filter_captions(tmp_path / "captions.jsonl", where="finished", **files)
    with pytest.raises(UserError, match="expected three files"):
        filter_captions(kept, where="finished", **files)
    assert kept.read_text() == "mine\n"
