"""Captions in a form that was asked for: a prompt, the rules that an answer is checked by, and one more try. No torch.

    video -> prompt of the style -> answer -> broken rules? -> the same with what was wrong -> kept, and marked

Rules are checked by patterns: they find an answer that is a list, not one that is untrue. Those that look for words
look for English ones, and are left out where another language was asked for.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from avcap.bulk.languages import Language, is_in_script
from avcap.bulk.outputs.h3 import AUDIO_WORDS, H3_PROMPT, SENTENCE_END, read_h3
from avcap.bulk.outputs.subtitles import SUBTITLE_PROMPT
from avcap.bulk.wording import without_openings
from avcap.bulk.workers import Streamer
from avcap.data.request import Request
from avcap.errors import UserError
from avcap.infer.caption_file import Row
from avcap.judge.metrics.words import count_words
from avcap.records import Caption, Sample

AT_ONCE, MOST_HELD = 8, 64
"""Answers that are asked for again together, and rows that wait for them."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What an answer must be. `ask`: the same as a model is told it. `is_broken`: text, its caption -> bool."""

    name: str
    ask: str
    is_broken: Callable[[str, Caption], bool]
    is_english: bool = False


def has_audio(caption: Caption) -> bool:
    """Whether the model was given audio."""
    return bool(caption.seen.audio_tokens or caption.seen.audio_seconds)


_LIST = re.compile(r"^[ \t]*(?:[-*•–]|\d+[.)])[ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]*(?:#{1,6}[ \t]|\*\*[^*\n]+\*\*:?[ \t]*|[A-Z][\w ]{0,30}:[ \t]*$)", re.MULTILINE)
_CLOCK = re.compile(
    r"\b\d{1,2}:\d{2}\b|\b\d+(?:\.\d+)?[ -]?(?:s|sec|seconds?)\b|\b(?:first|last) \w+ seconds\b", re.IGNORECASE
)
_SILENT = re.compile(
    r"\b(?:silen(?:t|ce)|no (?:audio|sounds?|music|dialogue)|without (?:any )?(?:audio|sound))\b", re.I
)
_SUBTITLE = re.compile(r"^(?:\[[^\[\]]+\]|\(?[A-Z][\w .'#-]{0,30}\)?: \S.*)$")


def words(least: int, most: int) -> Rule:
    """So many words."""
    return Rule(
        name="words",
        ask=f"write {least} to {most} words",
        is_broken=lambda text, _: not least <= count_words(text).num_words <= most,
    )


def _is_at_the_end(text: str, _: Caption) -> bool:
    """Whether what is heard stands in one block behind all that is seen; of fewer than two such sentences, never."""
    is_audio = [bool(AUDIO_WORDS.search(sentence)) for sentence in SENTENCE_END.split(text)]
    num = sum(is_audio)
    return num >= 2 and num < len(is_audio) and all(is_audio[-num:])


ONE_PARAGRAPH = Rule(
    name="one paragraph", ask="write a single paragraph", is_broken=lambda text, _: "\n" in text.strip()
)
NO_LIST = Rule(
    name="no list", ask="write no bullets and no numbering", is_broken=lambda text, _: bool(_LIST.search(text))
)
NO_HEADING = Rule(
    name="no heading", ask="write no headings or labels", is_broken=lambda text, _: bool(_HEADING.search(text))
)
NO_CLOCK = Rule(
    name="no clock", ask="write no times or numbers of seconds", is_broken=lambda text, _: bool(_CLOCK.search(text))
)
NO_OPENING = Rule(
    name="no opening",
    ask="begin with what is seen, not with words about the video itself",
    is_broken=lambda text, _: without_openings(text) != text.strip(),
    is_english=True,
)
AUDIO_TOLD = Rule(
    name="audio told",
    ask="tell what is heard",
    is_broken=lambda text, caption: has_audio(caption) and not AUDIO_WORDS.search(text),
    is_english=True,
)
SILENCE_TOLD = Rule(
    name="silence told",
    ask="say that there is no audio",
    is_broken=lambda text, caption: not has_audio(caption) and not _SILENT.search(text),
    is_english=True,
)
WOVEN = Rule(
    name="woven",
    ask="tell what is heard at the moment at which it is heard, between what is seen, not at the end",
    is_broken=lambda text, caption: has_audio(caption) and _is_at_the_end(text, caption),
    is_english=True,
)
H3_FIELDS = Rule(
    name="three fields",
    ask="write exactly the three fields, with shots in order and times of cuts within the video",
    is_broken=lambda text, caption: read_h3(text, duration_s=caption.duration_s) is None,
)
SUBTITLE_LINES = Rule(
    name="subtitle lines",
    ask="write nothing but lines such as [dog barks] and MAN: the words",
    is_broken=lambda text, _: not all(_SUBTITLE.match(line.strip()) for line in text.splitlines() if line.strip()),
)


@dataclass(frozen=True, kw_only=True)
class Style:
    """A form: what is asked for it, and by what an answer is checked. `audio`: asked for where audio is to be used."""

    name: str
    prompt: str
    rules: tuple[Rule, ...]
    audio: str = ""


STYLES = {
    style.name: style
    for style in (
        Style(
            name="dense",
            prompt="Describe everything in this video in the order of time: subjects and how they look, actions, "
            "setting, light, camera, and words that can be read. Write full sentences without headings or lists, at "
            "least 80 words, and begin with what is there.",
            audio="Tell all that is heard where it is heard: exact spoken words with their speaker, sounds, music.",
            rules=(words(80, 900), NO_LIST, NO_HEADING, NO_OPENING, AUDIO_TOLD),
        ),
        Style(
            name="prose",
            prompt="Tell in one paragraph of 40 to 200 words what happens in this video, in plain sentences and in "
            "the order of time, without lists and without words about the video itself.",
            audio="Tell what is heard along with what is seen.",
            rules=(words(40, 200), ONE_PARAGRAPH, NO_LIST, NO_HEADING, NO_OPENING, NO_CLOCK, AUDIO_TOLD),
        ),
        Style(
            name="ltx",
            prompt="Write one flowing paragraph of 60 to 300 words, in the present tense and in the order of time, by "
            "which somebody could film this video: the main action first, then movement and gesture, looks, place, "
            "camera, light and colour. No headings, no lists, no times, no words about the video itself.",
            audio="Say what is heard at the moment at which it is heard, within the same sentences: quote speech in "
            "its own language, and name its speaker, the ambience and the music. Where there is no speech, no music "
            "or no audio at all, say so.",
            rules=(
                words(60, 300),
                ONE_PARAGRAPH,
                NO_LIST,
                NO_HEADING,
                NO_OPENING,
                NO_CLOCK,
                AUDIO_TOLD,
                SILENCE_TOLD,
                WOVEN,
            ),
        ),
        Style(name="h3", prompt=H3_PROMPT, rules=(H3_FIELDS,)),
        Style(name="subtitles", prompt=SUBTITLE_PROMPT, rules=(words(1, 120), SUBTITLE_LINES)),
    )
}


@dataclass(frozen=True, kw_only=True)
class Form:
    """A style as a run asks for it."""

    style: Style
    language: Language | None = None
    use_audio: bool = True
    asks: bool = True
    """Whether the model follows prompts; of one that does not, answers are checked and nothing is asked."""

    @property
    def prompt(self) -> str:
        """What the model is asked."""
        parts = [self.style.prompt, self.style.audio if self.use_audio else ""]
        if self.language is not None:
            parts.append(f"Write in {self.language.name}, but leave spoken words in their own language.")
        return " ".join(part for part in parts if part)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What an answer is checked by."""
        rules = [rule for rule in self.style.rules if self.use_audio or rule.name != SILENCE_TOLD.name]
        language = self.language
        if language is None:
            return tuple(rules)
        if language.name != "English":
            rules = [rule for rule in rules if not rule.is_english]
        if not language.has_spaces:  # a word is a character there
            rules = [rule for rule in rules if rule.name != "words"]
        script = Rule(
            name="language",
            ask=f"write in {language.name}",
            is_broken=lambda text, _: not is_in_script(text, language),
        )
        return (*rules, script)

    def marked(self, row: Row) -> Row:
        """A row -> the same with the rules that its text breaks."""
        if not isinstance(row, Caption):
            return row
        broken = tuple(rule.name for rule in self.rules if rule.is_broken(row.text, row))
        return replace(row, style=self.style.name, broken_rules=broken)

    def again(self, sample: Sample, caption: Caption) -> Sample:
        """A sample and an answer in another form -> the sample, asked about with what was wrong."""
        asked = [rule.ask for rule in self.rules if rule.name in caption.broken_rules]
        told = f"An earlier answer was not in the form that is needed. This time, {'; '.join(asked)}."
        return replace(sample, prompt=f"{sample.prompt or self.prompt}\n\n{told}")


def read_style(name: str) -> Style:
    """--style -> the style. UserError for a name that is none."""
    if name not in STYLES:
        raise UserError(f"got --style {name}, expected one of {', '.join(STYLES)}")
    return STYLES[name]


def ask_in_form(captioner: Streamer, samples: Iterable[Sample], request: Request, *, form: Form) -> Iterator[Row]:
    """Samples -> their rows in order, marked; what is in another form was asked for once more.

    Args:
        captioner: What is asked.
        samples: What about.
        request: How; its prompt is the form's.
        form: What answers are checked by.

    Returns:
        Rows; of two answers in another form the second, unless it breaks more rules.
    """
    by_id: dict[str, Sample] = {}

    def noted() -> Iterator[Sample]:
        for sample in samples:
            by_id[sample.sample_id] = sample
            yield sample

    held: list[Row] = []
    for row in captioner.stream(noted(), request):
        held.append(form.marked(row))
        num_broken = sum(_is_to_be_asked(row, form) for row in held)
        if num_broken in (0, AT_ONCE) or len(held) >= MOST_HELD:
            yield from _settled(held, captioner, request, form=form, by_id=by_id)
            held = []
    yield from _settled(held, captioner, request, form=form, by_id=by_id)


def _is_to_be_asked(row: Row, form: Form) -> bool:
    return form.asks and isinstance(row, Caption) and bool(row.broken_rules)


def _settled(
    rows: list[Row], captioner: Streamer, request: Request, *, form: Form, by_id: dict[str, Sample]
) -> Iterator[Row]:
    """Rows -> the same in order, those in another form asked for again."""
    todo = [form.again(by_id[row.sample_id], row) for row in rows if isinstance(row, Caption) and row.broken_rules]
    answers = iter(captioner.stream(todo, request) if todo and form.asks else ())
    for row in rows:
        del by_id[row.sample_id]
        yield _better(row, form.marked(next(answers))) if _is_to_be_asked(row, form) else row


def _better(first: Row, second: Row) -> Row:
    """Two answers to one sample -> the one that is kept, as an answer to the first prompt."""
    assert isinstance(first, Caption)
    if not isinstance(second, Caption) or len(second.broken_rules) > len(first.broken_rules):
        return replace(first, asked_again=True)
    return replace(second, caption_id=first.caption_id, prompt=first.prompt, asked_again=True)
