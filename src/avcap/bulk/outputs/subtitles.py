"""SRT and WebVTT for those who do not hear: what is said, and in brackets what else is audible. No torch.

    1
    00:00:05,000 --> 00:00:10,000
    [telephone rings]
    VOICE: Island pencil.

A cue lasts as long as the interval whose audio was captioned. Times that a model wrote are taken out of its text and
used for nothing. The same text in two intervals after each other is one cue.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

LINE_CHARACTERS = 42
"""What players and the guidelines of broadcasters show in one line."""
SUBTITLE_PROMPT = (
    "Write subtitles for those who do not hear this, and nothing else. Write spoken words exactly, each speaker on a "
    "line of its own, as in MAN: the words. Write every other thing that is heard in brackets on a line of its own, "
    "as in [dog barks] or [slow piano music]. Write no times. If nothing is heard, write [silence]."
)


@dataclass(frozen=True, kw_only=True)
class Cue:
    """What is shown from one second to another; `lines` are not broken yet."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


# --- text -> lines ----------------------------------------------------------------------------------------------------

_CLOCK = r"\d{1,3}:\d{2}(?::\d{2})?(?:[.,]\d+)?"
_SECONDS = r"\d+(?:\.\d+)?\s*(?:s|sec|secs|second|seconds)\b"
_MOMENT = rf"(?:{_CLOCK}|{_SECONDS})"
_TIMES = re.compile(
    rf"""
      [\[(<]\s*{_MOMENT}(?:\s*(?:-+>?|–|—|to|until)\s*(?:{_MOMENT}|\d+(?:\.\d+)?))?\s*[\])>]\s*[-–:,]?
    | \b(?:at|from|around|about|after|until|by|between)\s+(?:about\s+|around\s+)?{_MOMENT}
      (?:\s*(?:-+>?|–|—|to|until|and)\s*{_MOMENT})?\s*[,:]?
    | (?<![\w.]){_CLOCK}(?:\s*(?:-+>?|–|—|to)\s*{_CLOCK})?\s*[-–:,]?
    | ^\s*{_SECONDS}\s*(?:(?:-+>?|–|—|to)\s*{_SECONDS})?\s*[:,-]
    | -+>
    """,
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_BULLET = re.compile(r"^\s*(?:[-*•]+|\d+[.)]|#+)\s+")
_QUOTES = re.compile(r"[“”„«»]")
_SPOKEN = re.compile(
    r"""^(?P<who>[^"]{0,60}?)\s*\b(?:is\s+)?(?:heard\s+)?
        (?:says?|said|saying|asks?|asking|shouts?|shouting|whispers?|replies|answers?|announces?|exclaims?|calls?|speaks?|
           speaking|sings?|singing|adds?|yells?|reads?|narrates?|tells\ \w+)\b
        [^"]{0,40}?[,:]?\s*"(?P<words>[^"]+)"\s*(?P<rest>.*)$""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_NAMED = re.compile(r"^(?P<who>[A-Z][\w .'#-]{0,30}?|\(?S\d+\)?):\s*(?P<words>\S.*)$")
_JOIN = re.compile(
    r"(?:;|,?\s+\bwhile\b|,?\s+\b(?:and then|then)\b|,?\s+\bas\b(?=\s+(?:a|an|the|somebody|someone)\b))\s*", re.I
)
_SENTENCE = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])\s+")
_ARTICLE = re.compile(r"^(?:an?|the|we (?:can )?hear|there (?:is|are)|you can hear)\s+", re.IGNORECASE)
_NAME_FIRST = re.compile(r"[A-Z]{2}|I\b|\w+\.? [A-Z]")
_EMPTY = re.compile(
    r"(?:n/?a|none|silence|silent|\(?no (?:audio|sounds?|speech)(?: is heard)?\)?|nothing(?: is heard)?|"
    r"it is (?:silent|quiet)|there is (?:no (?:audio|sound)|silence))",
    re.IGNORECASE,
)


def lines_of(text: str) -> tuple[str, ...]:
    """A caption of what is heard -> lines of subtitles, in its order; () where it says that nothing is."""
    lines: list[str] = []
    for raw in _QUOTES.sub('"', text).splitlines():
        lines += _lines_of_one(" ".join(_BULLET.sub("", raw).replace("**", "").split()))
    return tuple(dict.fromkeys(line for line in lines if line))


def _lines_of_one(line: str) -> list[str]:
    line = _without_first_times(line)
    if not line or _is_empty(line):
        return []
    if line[0] in "[♪" or re.fullmatch(r"\([^()]*\)", line):
        return _bracketed(line)
    if (named := _NAMED.match(line)) and not line.endswith(":"):
        return [_spoken(named["who"], named["words"])]
    return [made for sentence in _sentences(line) for made in _sentence_lines(sentence)]


def _without_first_times(line: str) -> str:
    """ "[00:05] At 5s, MAN: at 5 seconds" -> "MAN: at 5 seconds": what is said later may be spoken."""
    while (found := _TIMES.match(line)) and found.end():
        line = line[found.end() :].lstrip(" ,:-–—")
    return line


def _bracketed(line: str) -> list[str]:
    """ "[door slams] [dog barks] MAN: Hi." -> each in a line; music signs stay."""
    if line[0] == "♪":
        return [line]
    if line[0] == "(":
        line = f"[{line[1:-1]}]"
    close = line.find("]")
    if close < 0:
        return [_audible(_TIMES.sub(" ", line[1:]))]
    first = " ".join(_TIMES.sub(" ", line[1:close]).split())
    return ([] if not first or _is_empty(first) else [f"[{first}]"]) + _lines_of_one(line[close + 1 :].strip())


def _sentences(line: str) -> list[str]:
    """A line -> its sentences without times; what is quoted stays whole, times included."""
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found[0])
        # a letter, so that it is no number that a time could be made of; the sentence ends with what is quoted
        return f'"q{len(kept) - 1}"' + ("." if found[1].rstrip()[-1:] in ".!?" else "")

    masked = re.sub(r'"([^"]+)"', keep, line)
    pieces = [piece for sentence in _SENTENCE.split(masked) for piece in _JOIN.split(_TIMES.sub(" ", sentence))]
    return [
        re.sub(r'"q(\d+)"', lambda found: kept[int(found[1])], " ".join(piece.split())).strip(" ,;") for piece in pieces
    ]


def _sentence_lines(sentence: str) -> list[str]:
    if not re.search(r"\w", sentence) or _is_empty(sentence):
        return []
    if spoken := _SPOKEN.match(sentence):
        rest = spoken["rest"].strip(" .,;")
        rest = re.sub(r"^(?:and|with|to|in)\b\s*", "", rest) if rest.startswith(("and ", "with ")) else ""
        return [_spoken(spoken["who"], spoken["words"]), *(_sentence_lines(rest) if rest else [])]
    if quoted := re.fullmatch(r'"([^"]+)"\.?', sentence):
        return [_sentence_case(quoted[1])]
    made = _audible(sentence)
    return [made] if made else []


def _spoken(who: str, words: str) -> str:
    name = " ".join(_ARTICLE.sub("", who.strip(" ,.:-")).split()).upper()
    said = _sentence_case(words.strip().strip('"').strip())
    return f"{name}: {said}" if name and name not in ("IT", "SPEECH", "AND") else said


def _sentence_case(words: str) -> str:
    words = words.strip()
    return words[:1].upper() + words[1:] + ("" if words[-1:] in ".!?…♪]" else ".")


def _audible(sentence: str) -> str:
    """ "A bell rings twice." -> "[bell rings twice]"."""
    text = _ARTICLE.sub("", sentence.strip(" .,;:")).strip()
    text = text.replace("[", "(").replace("]", ")")
    if not text or _is_empty(text):
        return ""
    return f"[{text if _NAME_FIRST.match(text) else text[:1].lower() + text[1:]}]"


def _is_empty(text: str) -> bool:
    return bool(_EMPTY.fullmatch(text.strip(" .[]()*-\"'")))


# --- lines -> cues -> files -------------------------------------------------------------------------------------------


def joined_cues(cues: Iterable[Cue]) -> list[Cue]:
    """Cues in order -> without empty ones; the same lines in two that touch are one."""
    found: list[Cue] = []
    for cue in cues:
        if not cue.lines or cue.end_s <= cue.start_s:
            continue
        if found and found[-1].lines == cue.lines and abs(found[-1].end_s - cue.start_s) < 0.01:
            found[-1] = replace(found[-1], end_s=cue.end_s)
        else:
            found.append(cue)
    return found


def srt(cues: Sequence[Cue]) -> str:
    """Cues -> a SubRip file: numbered from 1, commas in times, an empty line after each."""
    blocks = []
    for number, cue in enumerate(cues, start=1):
        times = f"{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}"
        text = "\n".join(line.replace("-->", "->") for line in broken(cue.lines))
        blocks.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(blocks)


def vtt(cues: Sequence[Cue]) -> str:
    """Cues -> a WebVTT file: its first line, then cues with points in their times; & < > escaped."""
    blocks = ["WEBVTT\n"]
    for cue in cues:
        times = f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}"
        blocks.append(f"{times}\n" + "\n".join(_escaped(line) for line in broken(cue.lines)) + "\n")
    return "\n".join(blocks)


def broken(lines: Iterable[str]) -> list[str]:
    """Lines -> lines that a player shows without breaking them; none of them empty, for an empty line ends a cue."""
    return [part for line in lines for part in textwrap.wrap(line, LINE_CHARACTERS, break_on_hyphens=False)]


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(time_s: float, point: str) -> str:
    """
    >>> _clock(3661.5, ",")
    '01:01:01,500'
    """
    millis = round(time_s * 1000)
    seconds, millis = divmod(millis, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{millis:03}"
