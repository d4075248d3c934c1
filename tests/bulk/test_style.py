"""Forms that captions are asked for in: which answers break them, and what becomes of those that do."""

import pickle
from dataclasses import replace

import pytest
from support.bulk_model import DECODING, caption_of

from avcap.bulk.languages import is_in_script, read_language
from avcap.bulk.style import AT_ONCE, STYLES, Form, ask_in_form, read_style
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.records import Caption, CaptionError, Seen

LTX = (
    "A woman in a red coat walks along a wet street at night while rain patters on the roofs. She stops under a green "
    'lamp and says, "Where is he?" as a distant siren passes. The camera moves in slowly, neon light shimmers in the '
    "puddles, and soft piano music begins. She turns to the left, pulls her collar up, and her heels click on the "
    "stones. The street behind her is empty, and the frame grows dark."
)
SILENT = Seen(frames=3, audio_seconds=0.0, visual_tokens=9, audio_tokens=0)


def broken(style: str, text: str, *, language: str | None = None, use_audio: bool = True, **fields) -> set[str]:
    spoken = None if language is None else read_language(language)
    row = Form(style=read_style(style), language=spoken, use_audio=use_audio).marked(
        caption_of("a.mp4", text, **fields)
    )
    assert isinstance(row, Caption) and row.style == style
    return set(row.broken_rules)


def test_a_caption_as_the_trainer_of_ltx_asks_for_it():
    assert broken("ltx", LTX) == set()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("She walks.", "words"),  # 2 of 60 to 300
        (f"{LTX}\n{LTX}", "one paragraph"),
        (f"- {LTX}", "no list"),
        (f"3. {LTX}", "no list"),
        (f"**Scene** {LTX}", "no heading"),
        (f"## Scene\n{LTX}", "no heading"),
        (f"This video shows {LTX}", "no opening"),
        (f"In this video, we see {LTX}", "no opening"),
        (f"At 00:03 {LTX}", "no clock"),
        (f"After 2.5 seconds {LTX}", "no clock"),
    ],
)
def test_what_breaks_it(text, rule):
    assert rule in broken("ltx", text)


def test_audio_has_to_be_told_and_between_what_is_seen():
    seen = "A man digs a hole beside an old tree. " * 8  # 8 x 9 = 72 words
    assert broken("ltx", seen) == {"audio told"}
    assert broken("ltx", seen + "A dog barks. Music plays.") == {"woven"}
    assert broken("ltx", "A dog barks. " + seen + "Music plays.") == set()
    assert broken("ltx", seen + "A dog barks.") == set()  # one sentence alone may be the last


def test_of_a_silent_clip_silence_has_to_be_told_unless_audio_was_left_out():
    seen = "A man digs a hole beside an old tree. " * 8
    assert broken("ltx", seen, seen=SILENT) == {"silence told"}
    assert broken("ltx", seen + "There is no audio.", seen=SILENT) == set()
    assert broken("ltx", seen, seen=SILENT, use_audio=False) == set()
    assert "heard" not in Form(style=STYLES["ltx"], use_audio=False).prompt


def test_the_other_styles():
    prose = "A man digs a hole beside an old tree, and a spade rings on stone. " * 4  # 4 x 14 = 56 words
    assert broken("prose", prose) == set()
    assert broken("dense", prose) == {"words"}
    assert broken("dense", prose + "\n" + prose) == set()  # several paragraphs are allowed
    h3 = "integrated_multimodal_description: [Shot 1] A man.\noverall_soundscape: N/A\nnon_diegetic_music: N/A"
    assert broken("h3", h3) == set() and broken("h3", prose) == {"three fields"}
    assert broken("subtitles", "[dog barks]\nMAN: Where is it?") == set()
    assert broken("subtitles", "A dog barks.") == {"subtitle lines"}


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("de", "Ein Hund bellt.", True),
        ("de", "A dog barks.", True),  # one script: not told apart
        ("de", "Собака лает.", False),
        ("ru", "Собака лает у дома на Main Street.", True),  # 15 of 25 letters
        ("ru", "A dog barks.", False),
        ("ru", 'Собака лает, "and that is what she says about it all"', True),  # speech keeps its language
        ("zh", "一只狗在叫。", True),
        ("zh", "犬が吠えている。", False),
        ("ja", "犬が吠えている。", True),
        ("ja", "一只狗在叫。", False),
        ("ko", "개가 짖는다.", True),
        ("hi", "कुत्ता भौंकता है।", True),
        ("en", "123!", True),
    ],
)
def test_scripts(code, text, expected):
    assert is_in_script(text, read_language(code)) is expected


def test_a_language_is_asked_for_and_rules_of_english_are_left_out():
    form = Form(style=STYLES["ltx"], language=read_language("ru"))
    assert "Write in Russian" in form.prompt
    names = {rule.name for rule in form.rules}
    assert "language" in names and not names & {"no opening", "audio told", "silence told", "woven"}
    assert "language" in broken("ltx", LTX, language="ru")
    assert "words" not in {rule.name for rule in Form(style=STYLES["ltx"], language=read_language("ja")).rules}


class Follower:
    """Answers in another form until it is told what was wrong; `stubborn` files never do."""

    def __init__(self, stubborn: tuple[str, ...] = (), bad: tuple[str, ...] = ()) -> None:
        self.stubborn, self.bad = stubborn, bad
        self.asked: list[tuple[str, str]] = []
        self.checkpoint = "follower"

    def stream(self, samples, request):
        for sample in samples:
            self.asked.append((sample.video, sample.prompt))
            is_told = "An earlier answer" in sample.prompt
            if sample.video in self.bad:
                yield CaptionError(sample_id=sample.sample_id, video=sample.video, error="no video")
                continue
            text = LTX if is_told and sample.video not in self.stubborn else f"This video shows {sample.video}."
            yield caption_of(sample.video, text, prompt=sample.prompt, caption_id=sample.prompt)


def asked(follower: Follower, names: list[str], *, asks: bool = True) -> list:
    form = Form(style=STYLES["ltx"], asks=asks)
    request = Request(decoding=DECODING, prompt=form.prompt)
    return list(ask_in_form(follower, [request.sample(name) for name in names], request, form=form))


def test_an_answer_in_another_form_is_asked_for_once_more_and_marked():
    follower = Follower(stubborn=("b",), bad=("c",))
    rows = asked(follower, ["a", "b", "c"])
    assert [row.video for row in rows] == ["a", "b", "c"] and isinstance(rows[2], CaptionError)
    assert [name for name, _ in follower.asked] == ["a", "b", "c", "a", "b"]
    prompt = STYLES["ltx"].prompt
    again = [text for _, text in follower.asked[3:]]
    assert all(text.startswith(prompt) and "begin with what is seen" in text for text in again)
    first, second = rows[:2]
    assert (first.text, first.broken_rules, first.asked_again) == (LTX, (), True)
    assert second.broken_rules == ("words", "no opening", "audio told") and second.asked_again
    assert first.prompt == first.caption_id == Form(style=STYLES["ltx"]).prompt  # it is an answer to the first prompt


def test_rows_keep_their_order_however_many_are_asked_for_again():
    names = [f"{index}" for index in range(3 * AT_ONCE + 1)]
    follower = Follower()
    assert [row.video for row in asked(follower, names)] == names
    assert len(follower.asked) == 2 * len(names)


def test_a_model_that_follows_no_prompts_is_checked_and_not_asked_again():
    follower = Follower()
    (row,) = asked(follower, ["a"], asks=False)
    assert len(follower.asked) == 1 and not row.asked_again
    assert row.broken_rules == ("words", "no opening", "audio told")


def test_the_second_answer_is_dropped_if_it_is_worse():
    class Worse(Follower):
        def stream(self, samples, request):
            for row in super().stream(samples, request):
                yield replace(row, text="- Worse\n- Still") if "An earlier answer" in row.prompt else row

    (row,) = asked(Worse(), ["a"])
    assert row.text == "This video shows a." and row.asked_again


def test_forms_are_sent_to_other_processes_by_cloudpickle_alone():
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    form = pickle.loads(cloudpickle.dumps(Form(style=STYLES["ltx"], use_audio=False)))
    assert {rule.name for rule in form.rules} == {rule.name for rule in Form(style=STYLES["ltx"]).rules} - {
        "silence told"
    }


def test_names_that_are_none():
    with pytest.raises(UserError, match="got --style novel, expected one of dense, prose, ltx, h3, subtitles"):
        read_style("novel")
    with pytest.raises(UserError, match="got --language xx, expected one of ar, de"):
        read_language("xx")
