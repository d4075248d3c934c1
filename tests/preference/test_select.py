"""Which captions become pairs: by hand, on four events; what is dropped is counted with its reason."""

import random
from dataclasses import replace

import pytest

from avcap.errors import UserError
from avcap.judge.calibration.calibrate import NoiseMargin
from avcap.preference.select import PairConfig, Selection, above_noise, check_model, report_text, select_pairs
from avcap.preference.world_clauses import read_world_clauses
from avcap.records import (
    Caption,
    Decoding,
    ErrorCounts,
    Event,
    EventVerdict,
    InventedClaim,
    Sample,
    Seen,
    Unscored,
    Verdict,
    from_json,
    to_json,
)
from avcap.world import describe
from avcap.world.oracle import corrupt, judge_caption
from avcap.world.scene import make_scene

SENTENCES = (
    "At 1s a red circle appears in the top-left corner.",
    "At 2s the red circle grows.",
    "At 3s rain falls.",
    "At 4s a bell rings twice.",
)
EVENTS = tuple(
    Event(event_id=f"e{i}", text=text, modality="visual" if i < 2 else "audio") for i, text in enumerate(SENTENCES)
)
INVENTION = "At 6s a flute plays."
BEST_VS_WORST = PairConfig(rule="best_vs_worst")


def sample(name: str = "a", **changes) -> Sample:
    whole = Sample(sample_id=name, video=f"{name}.mp4", prompt="", events=EVENTS, reference_caption=" ".join(SENTENCES))
    return replace(whole, **changes)


def caption(name: str, text: str, *, of: str = "a", **changes) -> Caption:
    written = Caption(
        caption_id=f"{of}/{name}",
        sample_id=of,
        video=f"{of}.mp4",
        prompt="Describe the video.",
        text=text,
        checkpoint="tiny@1",
        decoding=Decoding(max_new_tokens=99, temperature=0.7),
        finished=True,
        duration_s=8.0,
        seen=Seen(frames=8, audio_seconds=8.0, visual_tokens=48, audio_tokens=16),
    )
    return replace(written, **changes)


def verdict(written: Caption, *, incorrect: int = 0) -> Verdict:
    """The true labels of a text made of SENTENCES and INVENTION: `incorrect` of those told are told wrongly."""
    told = [text in written.text for text in SENTENCES]
    labels = ["correct" if is_told else "missing" for is_told in told]
    for i in [i for i, is_told in enumerate(told) if is_told][:incorrect]:
        labels[i] = "incorrect"
    return Verdict(
        caption_id=written.caption_id,
        events=tuple(EventVerdict(event_id=f"e{i}", label=label) for i, label in enumerate(labels)),
        invented=(InventedClaim(text="a flute plays", modality="audio"),) * written.text.count(INVENTION),
        judge="hand",
    )


def texts(*, told: tuple[int, ...], invented: bool = False) -> str:
    return " ".join([*(SENTENCES[i] for i in told), *([INVENTION] if invented else [])])


def select(captions: list[Caption], config: PairConfig = BEST_VS_WORST, samples=None, verdicts=None) -> Selection:
    samples = samples or [sample(name) for name in sorted({written.sample_id for written in captions})]
    verdicts = verdicts or [verdict(written) for written in captions]
    return select_pairs(captions, verdicts=verdicts, samples=samples, config=config, read=read_world_clauses)


def nothing_left(captions: list[Caption], config: PairConfig = BEST_VS_WORST, **more) -> str:
    """What is said when these captions give no pair."""
    with pytest.raises(UserError) as caught:
        select(captions, config, **more)
    return str(caught.value)


def test_best_against_worst_with_all_that_a_pair_holds():
    written = [
        caption("one", texts(told=(0, 1, 2))),  # 1 of 4 missing: 0.25
        caption("two", texts(told=(0, 1), invented=True)),  # 2 missing, 1 invented: 0.75
        caption("three", texts(told=(0, 1, 2, 3), invented=True)),  # 1 invented: 0.25; as good as one, but longer
    ]
    pair = select(written).pairs[0]
    # margin 0.75 - 0.25; of two equally good ones, the one whose length is nearer to the rejected one's 18 words
    assert (pair.chosen_id, pair.rejected_id, pair.margin) == ("a/one", "a/two", 0.5)
    assert pair.chosen_errors == ErrorCounts(num_events=4, missing=1, incorrect=0, invented=0, repeated=0)
    assert pair.rejected_errors == ErrorCounts(num_events=4, missing=2, incorrect=0, invented=1, repeated=0)
    assert pair.reference_caption == " ".join(SENTENCES) and pair.prompt == "Describe the video."
    assert (pair.video, pair.checkpoint, pair.judge, pair.interval_s) == ("a.mp4", "tiny@1", "hand", None)
    assert from_json(to_json(pair), type(pair)) == pair


def test_a_minimal_pair_gets_worse_in_nothing():
    written = [
        caption("all", texts(told=(0, 1, 2, 3), invented=True)),  # 0.25
        caption("few", texts(told=(0,))),  # 0.75, but invents nothing
        caption("some", texts(told=(0, 1), invented=True)),  # 0.75, and invents the same
    ]
    pair = select(written, PairConfig()).pairs[0]
    # all > some fixes 2 with 2 clauses; all > few fixes 3 and invents 1
    assert (pair.chosen_id, pair.rejected_id) == ("a/all", "a/some")
    said = nothing_left(written[:2], PairConfig(max_length_ratio=5))
    assert "no pair is left of 1 prompts (1 better in one kind of error, worse in another; captions" in said


def test_in_a_minimal_pair_most_differing_clauses_are_fixes():
    true = texts(told=(0, 1, 2, 3))
    wrong = true.replace("top-left", "top-right").replace("grows", "shrinks").replace("twice", "once")
    written = [caption("true", true), caption("wrong", wrong)]
    labels = [verdict(written[0]), verdict(written[1])]
    # "wrong" changes three clauses. All three counted as errors: 3 / 3
    assert labels[1].events[0].label == "missing" and sum(e.label == "missing" for e in labels[1].events) == 3
    assert select(written, PairConfig(), verdicts=labels).pairs[0].margin == 0.75
    # the judge sees two of them: 2 / 3 < 0.8
    lenient = replace(labels[1], events=(EventVerdict(event_id="e0", label="correct"), *labels[1].events[1:]))
    said = nothing_left(written, PairConfig(), verdicts=[labels[0], lenient])
    assert "1 share of fixes below min_fixed_share" in said


def test_minimal_pairs_prefer_a_large_margin_and_few_other_changes():
    scene_text = texts(told=(0, 1, 2, 3))
    written = [
        caption("true", scene_text),
        caption("one", texts(told=(0, 1, 2))),  # 1 fix / 1 clause x margin 0.25 = 0.25
        caption("two", texts(told=(0, 1))),  # 2 / 2 x 0.5 = 0.5
        caption("noisy", "At 0s a bird sings. " + texts(told=(0,))),  # 3 fixed / (3 + the bird): below 0.8
    ]
    pair = select(written, PairConfig(max_length_ratio=9)).pairs[0]
    assert (pair.chosen_id, pair.rejected_id) == ("a/true", "a/two")
    # told a smaller share will do, 3/4 x 0.75 = 0.5625 wins
    pair = select(written, PairConfig(max_length_ratio=9, min_fixed_share=0.7)).pairs[0]
    assert pair.rejected_id == "a/noisy"


def test_of_minimal_pairs_the_largest_margin_loses_against_a_larger_share_of_fixes():
    others = "At 0s a bird sings. At 9s a bird sings. "  # two clauses that no event tells
    written = [
        caption("true", texts(told=(0, 1, 2, 3))),
        caption("noisy", others + texts(told=(0,))),  # margin 0.75, 3 fixes / (3 + 2 clauses): 0.75 x 3/5 = 0.45
        caption("two", texts(told=(0, 1))),  # margin 0.5, 2 fixes / 2 clauses: 0.5 x 2/2 = 0.5
    ]
    pair = select(written, PairConfig(max_length_ratio=9, min_fixed_share=0.5)).pairs[0]
    assert (pair.chosen_id, pair.rejected_id, pair.margin) == ("a/true", "a/two", 0.5)
    # by the margin alone the noisy one is the worst
    pair = select(written, replace(BEST_VS_WORST, max_length_ratio=9)).pairs[0]
    assert (pair.rejected_id, pair.margin) == ("a/noisy", 0.75)


def test_of_equal_margins_the_nearest_length_wins_and_not_the_shortest():
    written = [
        caption("bad", texts(told=(0,), invented=True)),  # 3 missing, 1 invented: 1.0; 10 + 6 = 16 words
        caption("short", texts(told=(1, 2))),  # 2 missing: 0.5; 6 + 4 = 10 words, 6 fewer
        caption("near", texts(told=(0, 1)) + " That is all."),  # 2 missing: 0.5; 10 + 6 + 3 = 19 words, 3 more
    ]
    pair = select(written).pairs[0]
    assert (pair.chosen_id, pair.rejected_id, pair.margin) == ("a/near", "a/bad", 0.5)


@pytest.mark.parametrize(
    "config, reason",
    [
        ({"min_gap": 0.51}, "margin below min_gap"),
        ({"noise_margin": 0.5}, "margin within the judge's noise"),
        ({"max_chosen_error": 0.2}, "total error above max_chosen_error"),
        ({"min_rejected_error": 0.8}, "total error below min_rejected_error"),
        ({"min_length_ratio": 1.1}, "length ratio below min_length_ratio"),
        ({"max_length_ratio": 0.9}, "length ratio above max_length_ratio"),
        ({"min_gap_visual": 0.1}, "margin below min_gap_visual"),
        ({"max_repetition": 0.0}, "repetition above max_repetition"),
    ],
)
def test_a_rule_that_no_pair_passes_is_named(config, reason):
    again = "At 9s a red circle appears in the top-left corner."
    written = [
        caption("good", f"{texts(told=(0, 1, 2))} {again}"),  # 10 + 6 + 4 + 10 = 30 words
        caption("bad", f"{texts(told=(0, 1), invented=True)} At 8s a bird sings over and over again now."),  # 31
    ]
    labels = [verdict(one) for one in written]  # 1 of 4 missing: 0.25; 2 missing, 1 invented: 0.75
    assert select(written, verdicts=labels).pairs[0].margin == 0.5
    # seen: both tell e0 and e1, so a gap of 0 passes and one of 0.1 does not
    assert select(written, replace(BEST_VS_WORST, min_gap_visual=0.0), verdicts=labels).pairs
    assert f"(1 {reason};" in nothing_left(written, replace(BEST_VS_WORST, **config), verdicts=labels)


def test_limits_that_are_just_met_pass():
    written = [caption("good", texts(told=(0, 1, 2))), caption("bad", texts(told=(0, 1)))]
    config = PairConfig(
        min_gap=0.25,
        max_chosen_error=0.25,
        min_rejected_error=0.5,
        noise_margin=0.24,
        min_gap_audio=0.5,  # heard: 1 of 2 missing against 2 of 2
        min_length_ratio=20 / 16,
        max_length_ratio=20 / 16,
    )
    assert select(written, config).pairs[0].margin == 0.25


def test_an_unfinished_caption_is_rejected_but_never_chosen():
    good, bad = caption("good", texts(told=(0, 1, 2))), caption("bad", texts(told=(0, 1)))
    assert "only unfinished captions are better" in nothing_left([replace(good, finished=False), bad])
    selection = select([good, replace(bad, finished=False)])
    assert selection.pairs[0].rejected_id == "a/bad" and selection.report.num_unfinished == 1


def test_repetition_counts_in_a_minimal_pair_and_in_the_margin_if_expected():
    plain, recap = texts(told=(0, 1, 2)), texts(told=(0, 1, 2)) + " Overall, the red circle grows."
    written = [caption("plain", plain), caption("recap", recap)]
    labels = [verdict(written[0]), replace(verdict(written[1]), repeated=("the red circle grows",))]
    assert "no caption has fewer errors" in nothing_left(written, PairConfig(), verdicts=labels)
    pair = select(written, PairConfig(repetition_weight=1.0), verdicts=labels).pairs[0]
    # one repeated claim and four events: 1 / 4
    assert (pair.chosen_id, pair.margin, pair.rejected_errors.repeated) == ("a/plain", 0.25, 1)


def test_a_repetition_that_the_judge_does_not_look_for_is_counted_in_the_text():
    written = [caption("good", texts(told=(0, 1))), caption("bad", texts(told=(0,)) + " " + SENTENCES[0])]
    pair = select(written).pairs[0]
    assert pair.rejected_errors == ErrorCounts(num_events=4, missing=3, incorrect=0, invented=0, repeated=1)


def test_every_caption_and_every_prompt_is_accounted_for():
    captions = [
        caption("one", texts(told=(0, 1, 2))),
        caption("two", texts(told=(0, 1))),
        caption("one", texts(told=(0,)), of="b"),
        caption("two", texts(told=(0,)), of="b"),
        caption("one", texts(told=(0,)), of="c"),
        caption("two", texts(told=(1,)), of="c"),
        caption("one", texts(told=(0, 1)), of="d"),
        caption("two", texts(told=(1,)), of="d"),
        caption("one", texts(told=(0, 1)), of="e"),
        caption("two", texts(told=(1,)), of="e"),
    ]
    unscored = Unscored(caption_id="d/two", reason="no JSON")
    verdicts = [unscored if one.caption_id == "d/two" else verdict(one) for one in captions[:-1]]
    verdicts.append(replace(verdicts[0], caption_id="of another file"))
    report = select(captions, samples=[sample(name) for name in "abcd"], verdicts=verdicts).report
    assert (report.num_captions, report.num_prompts, report.num_videos, report.num_pairs) == (10, 5, 5, 1)
    assert report.captions_dropped == {
        "equal to another caption of its prompt": 1,
        "the judge gave no verdict": 1,
        "its sample is not known": 2,
    }
    assert report.prompts_dropped == {
        "all captions equal": 1,  # b
        "no caption has fewer errors than another": 1,  # c: one event each
        "fewer than two judged captions": 2,  # d, e
    }
    assert report.num_spare_verdicts == 1
    text = report_text(report)
    assert "prompts    5; 4 without a pair" in text and "- 2 fewer than two judged captions" in text
    assert "1 are about captions that were not given" in text


def test_a_caption_that_nobody_judged_is_dropped():
    captions = [caption("one", texts(told=(0, 1))), caption("two", texts(told=(0,))), caption("three", "Rain.")]
    report = select(captions, verdicts=[verdict(one) for one in captions[:2]]).report
    assert report.captions_dropped == {"nobody judged it": 1}


def test_an_empty_caption_is_in_no_pair():
    captions = [caption("one", texts(told=(0, 1))), caption("two", texts(told=(0,))), caption("three", " \n")]
    chosen = select(captions)
    assert [pair.rejected for pair in chosen.pairs] == [captions[1].text]  # though the empty one misses more
    assert chosen.report.captions_dropped == {"it is empty": 1}


def test_the_report_tells_margins_fixes_and_what_length_alone_explains():
    captions = [
        caption("good", texts(told=(0, 1, 2, 3))),
        caption("bad", texts(told=(0, 1))),  # 26 - 16 words
        caption("good", texts(told=(1, 2)), of="b"),  # 10 - 15 words
        caption("bad", texts(told=(1, 2), invented=True), of="b"),
        caption("good", texts(told=(2, 3)), of="c"),
        caption("bad", texts(told=(2,)), of="c"),  # 10 - 4
    ]
    local = sample("c", interval_s=(3.0, 6.0))
    config = replace(BEST_VS_WORST, max_length_ratio=3.0)
    report = select(captions, config, samples=[sample(), sample("b"), local]).report
    assert report.margins == pytest.approx((0.25, 0.25, 0.5))  # 2 missing / 4; 1 invented / 4; 1 missing / 4
    assert report.errors_fixed == {"missing": 1.0, "hallucinated": pytest.approx(1 / 3), "repeated": 0.0}
    assert report.extra_words == pytest.approx((10 - 5 + 6) / 3)
    assert (report.chosen_is_longer, report.is_as_long) == (pytest.approx(2 / 3), 0)
    assert (report.num_pairs, report.num_local) == (3, 1)
    assert "2 global, 1 local" in report_text(report)


def test_caps_keep_what_fixes_most_of_a_video_and_draw_among_videos():
    def pair_of(name: str, told: tuple[int, ...], prompt: str = "Describe the video.") -> list[Caption]:
        return [
            caption(f"good {prompt}", texts(told=(0, 1, 2, 3)), of=name, prompt=prompt),
            caption(f"bad {prompt}", texts(told=told), of=name, prompt=prompt),
        ]

    wide = replace(BEST_VS_WORST, max_length_ratio=9.0)
    captions = [*pair_of("a", (0, 1)), *pair_of("a", (0,), "What happens?"), *pair_of("b", (0, 1))]
    selection = select(captions, replace(wide, max_per_video=1))
    # of video a, 3 fixes against 2
    assert [(pair.sample_id, pair.prompt) for pair in selection.pairs] == [
        ("a", "What happens?"),
        ("b", "Describe the video."),
    ]
    assert selection.report.prompts_dropped == {"above max_per_video or max_pairs": 1}

    # which of two prompts of a sample stays does not depend on the order in which they come
    prompts = [pair_of("a", (0, 1)), pair_of("a", (0, 1), "What happens?")]
    for order in (prompts, prompts[::-1]):
        (pair,) = select([*order[0], *order[1]], replace(wide, max_pairs=1)).pairs
        assert pair.prompt == "Describe the video."

    many = [one for name in "abcdefghij" for one in pair_of(name, (0, 1))]
    some = [pair.sample_id for pair in select(many, replace(wide, max_pairs=4)).pairs]
    fewer_given = [one for one in many if one.sample_id in {*some, "a", "j"}]
    assert len(some) == 4 and some == sorted(some)
    assert [pair.sample_id for pair in select(fewer_given, replace(wide, max_pairs=4)).pairs] == some


def test_of_a_video_the_pair_stays_that_fixes_most_errors_and_not_that_of_the_largest_margin():
    local = sample("local", video="a.mp4", interval_s=(1.0, 2.0), events=EVENTS[:1])
    captions = [
        caption("good", texts(told=(0,)), of="local", video="a.mp4"),  # its one event told
        caption("bad", "The red circle is there for a second or so.", of="local", video="a.mp4"),
        caption("good", texts(told=(0, 1, 2, 3))),
        caption("bad", texts(told=(0, 1))),
    ]
    verdicts = [
        replace(verdict(one), events=verdict(one).events[: 1 if one.sample_id == "local" else 4]) for one in captions
    ]
    config = replace(BEST_VS_WORST, max_per_video=1)
    # margins: 1 missing / 1 event = 1.0, 2 missing / 4 events = 0.5; fixed: 1 and 2
    (pair,) = select(captions, config, [sample(), local], verdicts).pairs
    assert (pair.sample_id, pair.margin) == ("a", 0.5)
    (pair, _) = select(captions, replace(config, max_per_video=2), [sample(), local], verdicts).pairs
    assert (pair.sample_id, pair.margin) == ("local", 1.0)


def test_what_cannot_be_compared_is_refused():
    one, two = caption("one", texts(told=(0, 1))), caption("two", texts(told=(0,)))
    assert "captions of 2 models (other, tiny@1)" in nothing_left([one, replace(two, checkpoint="other")])
    mixed = [verdict(one), replace(verdict(two), judge="other")]
    assert "verdicts of 2 judges (hand, other)" in nothing_left([one, two], verdicts=mixed)
    assert "'a/one' stands or is judged twice" in nothing_left([one, one], verdicts=[verdict(one)])


def test_all_captions_equal_says_so():
    equal = [caption(name, texts(told=(0,)), of=of) for of in "ab" for name in ("one", "two")]
    assert "all captions of each of the 2 prompts are equal" in nothing_left(equal)


def test_pairs_of_another_model_are_refused():
    pairs = select([caption("one", texts(told=(0, 1))), caption("two", texts(told=(0,)))], PairConfig()).pairs
    check_model(pairs, checkpoint="tiny@1")
    check_model([replace(pairs[0], checkpoint="")], checkpoint="tiny@2")  # imported: nobody knows
    with pytest.raises(UserError, match="got 1 pairs of captions by tiny@1, expected pairs by tiny@2"):
        check_model(pairs, checkpoint="tiny@2")


def test_the_measured_noise_becomes_a_limit():
    noise = NoiseMargin(margin=0.3, retest_margin=0.2, equal_margin=0.3, num_retest_pairs=40, num_equal_pairs=30)
    assert above_noise(PairConfig(), noise).noise_margin == 0.3
    with pytest.raises(UserError, match="12 pairs of equally good ones"):
        above_noise(PairConfig(), replace(noise, margin=None, num_equal_pairs=12))


def test_planted_errors_make_minimal_pairs_that_fix_them():
    """The clean caption of a world clip is chosen over the same caption with k errors, whatever they are."""
    rng = random.Random(0)
    captions, verdicts, samples, effects = [], [], [], []
    for seed in range(30):
        scene = make_scene(seed, difficulty="standard")
        clean = describe.reference_caption(scene)
        wrong, planted = corrupt(clean, 1 + seed % 3, rng=rng)
        of = f"clip-{seed}"
        samples.append(sample(of, events=describe.scene_events(scene), reference_caption=clean))
        for name, text in (("clean", clean), ("wrong", wrong)):
            captions.append(caption(name, text, of=of))
            verdicts.append(judge_caption(text, truth=scene, caption_id=f"{of}/{name}"))
        effects.append(sum(len(e.missing) + len(e.incorrect) + e.num_invented + e.num_repeated for e in planted))
    config = PairConfig(min_gap=0.0, repetition_weight=1.0, max_length_ratio=9.0, min_length_ratio=0.1)
    selection = select(captions, config, samples, verdicts)
    assert all(pair.chosen_id.endswith("/clean") for pair in selection.pairs)
    # nearly every difference is a fix; what falls out are errors that touch more clauses than they make errors
    assert len(selection.pairs) >= 28, report_text(selection.report)
    fixed = sum(selection.report.errors_fixed.values()) * len(selection.pairs)
    kept = {pair.sample_id for pair in selection.pairs}
    assert fixed == pytest.approx(sum(n for n, one in zip(effects, samples, strict=True) if one.sample_id in kept))
