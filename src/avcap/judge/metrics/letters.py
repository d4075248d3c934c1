"""A reply to a question with options -> the option that it means. No torch.

    thoughts cut -> decoration off -> denied letters masked -> the last statement, else a leading letter, else a text

What counts is the last statement that names one option; a letter that is denied, or named beside another, is no answer.
"""

import re
import unicodedata
from collections.abc import Sequence

from avcap.data.qa_files import LETTERS
from avcap.llm.answer import answer_of

DENIED = "▯"
"""Stands for a letter that the reply says not to be the answer."""

_LETTER = rf"(?<![A-Za-z0-9/'’])[(\[\"'“‘「『]{{0,3}}\s?([A-Z{DENIED}])(?![A-Za-z0-9'’/])"
# "A man": an article, unless what follows cannot follow one.
_NO_ARTICLE = (
    r"(?!\s+(?!(?:because|since|as|is|was|and|or|for|due|but|which|seems|would|option|choice|therefore|so)\b)[a-z])"
)
_FILLER = (
    r"(?:\s*(?:is|are|was|be|would|should|must|will|to|this|the|that|question|therefore|thus|hence|clearly|probably|"
    r"likely|most|definitely|then|indeed|final|correct|right|best|option|choice|letter|answer|not|but|rather|actually|"
    rf"now|number|est|es|ist|è|é|ser[ií]a|是|为|為|選項|选项|は|が|은|는|у|[:：=,，\"'–—-]++|{DENIED})){{0,16}}?"
)
_MARKERS = (
    r"answers?|options?|choices?|choose|chose|pick|select|go(?:ing)?\s+with|it\s+is|it['’]s|must\s+be|"
    r"antwort|r[ée]ponse|respuesta|risposta|resposta|jawaban|cevap|ответ|đáp\s+án|"
    r"答案|回答|答|正解|正确选项|選擇|选择|选|選|정답|답|उत्तर|الجواب|الإجابة"
)
_STATED = re.compile(rf"(?:(?<![A-Za-z])(?:{_MARKERS})){_FILLER}\s*{_LETTER}{_NO_ARTICLE}", re.IGNORECASE)
_CONFIRMED = re.compile(
    rf"{_LETTER}[)\].:]*\s+(?:is|seems|would\s+be|must\s+be)\s+(?:the\s+)?(?:right|correct|best|true|answer)"
)
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_ALSO = re.compile(
    r"[)\]\"'”.]*\s*(?:,?\s*(?:or|and|oder|und|ou|et|o|y)\s|[/,&和或、])\s*(?:also\s+|option\s+)?[(\[]*([A-Z])"
    r"(?![A-Za-z0-9'’])"
)
_LEADING = re.compile(
    r"^\W{0,20}?(?:(?i:option|choice)\s+)?\(?([A-Z])\)?\s*(?:[.:),;\n–—-]|$)|^\W{0,20}?\(?([a-z])[).:](?=\s|$)|^\W{0,20}?\(([a-z])\)"
)
_BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
_ENUMERATED = re.compile(r"(?:^|\s)\(?([A-Z])[.):](?=\s)")
_ALONE = re.compile(r"(?<![A-Za-z0-9/'’])([B-HJ-Z])(?![A-Za-z0-9'’/])")
_JOINED = re.compile(r"(?<![A-Za-z0-9])[A-Z]\s*(?:,|/|&|\band\b|\bor\b)\s*[A-Z](?![A-Za-z0-9])")
_DENIALS = (
    re.compile(
        r"(?:\b(?:not|cannot|never|neither|nor|except|excluding|nicht|pas|rather\s+than|instead\s+of|unlike|"
        r"rul(?:e|es|ed|ing)\s+out|eliminat(?:e|es|ed|ing)|reject(?:s|ed|ing)?|no\s+es|non\s+è|не)|n['’]t|不是|并非|並非|不选)"
        r"(?:\s+(?:be|the|option|choice|answer|letter|is|choose|pick|select))*\s*[(\[\"'“]*([A-Z])(?![A-Za-z0-9'’])"
    ),
    re.compile(
        r"(?<![A-Za-z0-9])([A-Z])[)\]\"'”]*"
        r"(?:\s+(?:is|are|was|seems?|looks|would\s+be|can|could|does|do|did|must\s+be|sounds))?"
        r"(?:\s+(?:clearly|definitely|also|therefore|simply))*\s*"
        r"(?:not\b|n['’]t\b|cannot\b|\bwrong\b|\bincorrect\b|\bfalse\b|\bimpossible\b|\bruled\s+out\b|\bexcluded\b|"
        r"\beliminated\b|\bunlikely\b|\bout\b|不对|不正确|错误|ではな)"
    ),
)
_DENIED_TOO = re.compile(rf"({DENIED}[)\]]*\s*(?:,|or|nor|and)\s*(?:or|and|nor)?\s*[(\[]*)[A-Z](?![A-Za-z0-9'’])")
"""Not A or B; neither A nor B: both are denied."""
SHORT_WORDS = 4
"""A reply of no more words than this says its letter without a statement: "Probably B"."""
_DENIES_TEXT = re.compile(r"\b(?:not|isn t|cannot be|rather than|instead of)(?: the| a| an)?$")
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def read_letter(reply: str, options: Sequence[str]) -> int | None:
    """A reply to a question with options -> the index of the option that it means; None if that is not clear.

    >>> read_letter("B. because", ["a dog", "a cat"]), read_letter("A man walks.", ["a dog", "a cat"])
    (1, None)
    """
    letters = LETTERS[: len(options)]
    text, num_denied = _mask_denied(_without_decoration(answer_of(reply).text))
    for found in (_stated(text), _leading(text), _in_brackets(text)):
        meant = {letter.upper() for letter in found}
        if meant:
            (letter,) = meant if len(meant) == 1 else ("",)
            return letters.index(letter) if letter and letter in letters else None
    told = _told(text, options)
    if told is not None:
        return told
    alone = set(_ALONE.findall(text)) & set(letters)
    if len(alone) == 1 and not _JOINED.search(text) and (num_denied or len(text.split()) <= SHORT_WORDS):
        return letters.index(alone.pop())
    return None


def _without_decoration(text: str) -> str:
    """ "**B**", "\\boxed{B}", "$B$", "<b>B</b>", "Ｂ" -> the plain letter."""
    text = unicodedata.normalize("NFKC", text)
    for _ in range(3):  # \boxed{\text{B}}
        text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mathsf|rm|bf)\s*\{([^{}]*)\}", r"\1", text)
    text = _BOXED.sub(_boxed_answer, text)
    text = re.sub(r"</?[A-Za-z][A-Za-z_-]*>", " ", text)
    text = re.sub(r"(?<!\w)_+|_+(?!\w)", "", re.sub(r"\*+|`+|\$|\\[()\[\]]|#+ ", "", text))
    lines = (" ".join(line.split()) for line in text.replace("】", ")").replace("【", "(").splitlines())
    return "\n".join(line for line in lines if line)


def _boxed_answer(found: re.Match[str]) -> str:
    said = found[1].strip()
    return f" answer: {said.upper() if len(said) == 1 else said} "


def _mask_denied(text: str) -> tuple[str, int]:
    """Text -> (text in which denied letters are masked, how many they are). "not A but B" -> "not ▯ but B"."""
    num = 0

    def mask(found: re.Match[str]) -> str:
        nonlocal num
        num += 1
        start = found.start(1) - found.start()
        return found[0][:start] + DENIED + found[0][start + 1 :]

    for pattern in _DENIALS:
        text = pattern.sub(mask, text)
    while (also := _DENIED_TOO.sub(rf"\1{DENIED}", text)) != text:
        text = also
    return text, num


def _stated(text: str) -> list[str]:
    """The letters of the last statement: one, or two where it leaves open which."""
    statements = [
        found
        for pattern in (_STATED, _CONFIRMED)
        for found in pattern.finditer(text)
        if found[1].isupper() or _is_marked(text, found)
    ]
    if not statements:
        return []
    last = max(statements, key=lambda found: found.start(1))
    letters = [last[1]]
    if also := _ALSO.match(text, last.end(1)):
        letters.append(also[1])
    return letters


def _is_marked(text: str, found: re.Match[str]) -> bool:
    """Whether a lower-case letter is one of an option: in brackets, or the last thing that is said ("answer: b")."""
    before, after = text[: found.start(1)].rstrip(), text[found.end(1) :]
    is_last = not after.strip(" .!)]\n")
    return before.endswith(("(", "[", '"', "'")) or (is_last and before.endswith((":", "：", "=", "is")))


def _leading(text: str) -> list[str]:
    """The letter that a text begins with, or its last line consists of; none for a list of the options."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and (last := re.fullmatch(r"[(\[\"']*([A-Z])[)\]\"'.]*", lines[-1])):
        return [last[1]]
    listed = _ENUMERATED.findall(text)
    if listed[:2] == ["A", "B"]:
        return []
    if found := _LEADING.match(text):
        also = _ALSO.match(text, found.end(found.lastindex or 1))
        return [found[found.lastindex or 1], *([also[1]] if also else [])]
    return []


def _in_brackets(text: str) -> list[str]:
    listed = _ENUMERATED.findall(text)
    return [] if listed[:2] == ["A", "B"] else _BRACKETED.findall(text)


def _told(text: str, options: Sequence[str]) -> int | None:
    """A text -> the option whose text it tells; of those that lie in one another the longest."""
    plain = f" {_plain(text)} "
    plain_options = [_plain(option) for option in options]
    told = [index for index, option in enumerate(plain_options) if option and _is_told(plain, option)]
    longest = max(told, key=lambda index: len(plain_options[index]), default=None)
    if longest is None or any(f" {plain_options[index]} " not in f" {plain_options[longest]} " for index in told):
        return None
    same = [index for index in told if plain_options[index] == plain_options[longest]]
    return longest if len(same) == 1 else None


def _is_told(plain: str, option: str) -> bool:
    """Whether an option's text stands in a reply and is not denied there each time."""
    places = [found.start() for found in re.finditer(re.escape(f" {option}") + r"(?= )", plain)]
    return any(not _DENIES_TEXT.search(plain[max(0, place - 40) : place]) for place in places)


def _plain(text: str) -> str:
    words = re.findall(r"\d+(?:[.,]\d+)*|[^\W_]+", text.lower())
    return " ".join(str(_NUMBER_WORDS.index(word)) if word in _NUMBER_WORDS else word for word in words)
