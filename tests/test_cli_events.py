"""`avcap events` as a user runs it, against a real server that takes captions apart sentence by sentence."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_server import ScriptedServer

from avcap.records import Event, Sample, read_jsonl, write_jsonl

TEXTS = ("A man waves. A dog barks.", "A bell rings.")


def take_apart(body: dict) -> str:
    """A request -> one event for each sentence of the caption in it."""
    asked = body["messages"][-1]["content"]
    caption = " ".join(line.lstrip("| ") for line in asked.splitlines() if line.startswith("|"))
    events = [
        {"text": sentence.strip(), "modality": "visual", "start_s": None, "end_s": None}
        for sentence in caption.split(".")
        if sentence.strip()
    ]
    return json.dumps({"events": events})


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    rows = [{"video": f"{i}.mp4", "reference_caption": text} for i, text in enumerate(TEXTS)]
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    return tmp_path / "captions.json"


def test_reference_captions_become_events_and_are_paid_for_once(run, captions, tmp_path):
    words = ("events", "extract", captions, "--out", tmp_path / "events.jsonl", "--cache", tmp_path / "c.sqlite")
    with ScriptedServer(answer=take_apart) as server:
        for _ in range(2):
            code, out, err = run(*words, "--judge", f"openai:m@{server.url}")
            assert code == 0 and not err and "3 events of 2 samples; 0 samples without" in out  # 2 + 1 sentences
        assert len(server.calls) == 2
    samples = list(read_jsonl(tmp_path / "events.jsonl", Sample))
    assert [[event.text for event in sample.events] for sample in samples] == [
        ["A man waves", "A dog barks"],
        ["A bell rings"],
    ]


def test_a_caption_without_events_is_named(run, captions, tmp_path):
    words = ("events", "extract", captions, "--out", tmp_path / "events.jsonl", "--cache", tmp_path / "c.sqlite")
    with ScriptedServer(answer=lambda body: "I would rather not.") as server:
        code, out, err = run(*words, "--judge", f"openai:m@{server.url}")
    assert code == 1 and "0 events of 0 samples; 2 samples without" in out and err.count("no JSON") == 2


def test_what_a_person_edits_is_kept_and_found_stale_later(run, tmp_path):
    waves = Event(event_id="e1", text="a man waves", modality="visual")
    barks = Event(event_id="e2", text="a dog barks", modality="visual")
    sample = Sample(sample_id="s", video="s.mp4", prompt="", events=(waves, barks))
    edited = replace(sample, events=(waves, replace(barks, modality="audio")))
    write_jsonl(tmp_path / "events.jsonl", [sample])
    write_jsonl(tmp_path / "edited.jsonl", [edited])
    words = ("events", "check", tmp_path / "events.jsonl", "--corrections", tmp_path / "mine.jsonl")
    code, out, _ = run(*words, "--edited", tmp_path / "edited.jsonl")
    assert code == 0 and "1 corrections, 1 fit" in out
    # extracted anew, the second event reads otherwise: the correction is of nothing that is there
    write_jsonl(tmp_path / "events.jsonl", [replace(sample, events=(waves, replace(barks, text="a cat meows")))])
    code, out, err = run(*words)
    assert code == 1 and "1 do not any more" in out and "stale: s: modality of e2" in err


def test_an_edited_copy_of_other_samples_is_refused(run, tmp_path):
    write_jsonl(tmp_path / "events.jsonl", [Sample(sample_id="a", video="a.mp4", prompt="")])
    write_jsonl(tmp_path / "edited.jsonl", [Sample(sample_id="b", video="b.mp4", prompt="")])
    words = ("--corrections", tmp_path / "mine.jsonl", "--edited", tmp_path / "edited.jsonl")
    code, _, err = run("events", "check", tmp_path / "events.jsonl", *words)
    assert code == 2 and "'a' is in the original alone" in err and not (tmp_path / "mine.jsonl").exists()
