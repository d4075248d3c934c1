import pytest

from avcap.errors import UserError
from avcap.records import Caption, Decoding, Event, Sample, Seen, from_json, read_jsonl, to_json, write_jsonl

EVENT = Event(event_id="v3", text="the red circle grows", modality="visual", start_s=3.0, end_s=4.0)
SAMPLE = Sample(sample_id="a", video="a.mp4", prompt="Describe.", interval_s=(1.0, 4.0), events=(EVENT,))
CAPTION = Caption(
    caption_id="a/0",
    sample_id="a",
    video="a.mp4",
    prompt="Describe.",
    text='A voice says "lemon".',
    checkpoint="tiny",
    decoding=Decoding(max_new_tokens=10),
    finished=True,
    duration_s=4.0,
    seen=Seen(frames=4, audio_seconds=4.0, visual_tokens=24, audio_tokens=8),
)


@pytest.mark.parametrize("record", [EVENT, SAMPLE, CAPTION])
def test_json_round_trip(record):
    assert from_json(to_json(record), type(record)) == record


def test_file_round_trip_and_blank_lines(tmp_path):
    path = tmp_path / "samples.jsonl"
    write_jsonl(path, [SAMPLE, SAMPLE])
    path.write_text(path.read_text() + "\n")
    assert list(read_jsonl(path, Sample)) == [SAMPLE, SAMPLE]
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written is left beside it


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"event_id": "v3", "text": "x"}', "field 'modality' is missing"),
        ('{"event_id": "v3", "text": "x", "modality": "smell"}', "got 'smell', expected one of 'visual', 'audio'"),
        ('{"event_id": 3, "text": "x", "modality": "audio"}', "Event.event_id: got 3, expected str"),
        ('{"event_id": "v", "text": "x", "modality": "audio", "when": 3}', "unknown field 'when'"),
        ("{", "not a line of JSON"),
        ("[1]", "got list, expected an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "events.jsonl"
    path.write_text(to_json(EVENT) + "\n" + line + "\n")
    with pytest.raises(UserError) as caught:
        list(read_jsonl(path, Event))
    assert f"{path}, line 2" in str(caught.value) and message in str(caught.value)


def test_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        list(read_jsonl(tmp_path / "none.jsonl", Event))
