"""Captions that are good enough to be learned from, told without their truth."""

from dataclasses import replace

import pytest

from avcap.errors import UserError
from avcap.preference.caption_filter import QualityConfig, keep_good
from avcap.records import Caption, Decoding, Seen


def caption(text: str, *, finished: bool = True, interval_s=None) -> Caption:
    seen = Seen(frames=1, audio_seconds=1.0, visual_tokens=1, audio_tokens=1, bad_packets=0)
    return Caption(
        caption_id=text,
        sample_id=text,
        video="a.mp4",
        prompt="Describe.",
        text=text,
        checkpoint="x",
        decoding=Decoding(max_new_tokens=9),
        seen=seen,
        finished=finished,
        duration_s=9.0,
        interval_s=interval_s,
    )


USUAL = [caption(f"A dog barks, then a {thing} falls and a door shuts.") for thing in ("cup", "box", "pen")]


def test_each_fault_is_named_and_counted():
    faulty = {
        "ran into the token limit": caption("A dog barks, then a hat falls and a", finished=False),
        "repeats clauses": caption("A dog barks. A dog barks. A door shuts and a cup falls."),
        "much shorter than others": caption("A dog."),  # 2 of 11 words: below 0.3
        "much longer than others": caption(" ".join(f"thing{i} falls." for i in range(17))),  # 34 of 11: above 3
    }
    kept = keep_good([*USUAL, *faulty.values()], QualityConfig())
    assert kept.captions == tuple(USUAL) and kept.num_asked == 7
    assert kept.dropped == dict.fromkeys(faulty, 1)


def test_intervals_are_compared_with_intervals():
    local = [caption(f"A {thing} falls.", interval_s=(1.0, 3.0)) for thing in ("cup", "box")]
    assert len(keep_good([*USUAL, *local], QualityConfig()).captions) == 5  # 3 words are usual for two seconds


def test_nothing_good_is_an_error():
    with pytest.raises(UserError, match=r"none good enough.*token limit"):
        keep_good([replace(USUAL[0], finished=False)], QualityConfig())
