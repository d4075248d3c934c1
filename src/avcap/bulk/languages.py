"""Whether a text is in the script of a language: all that can be told honestly without a model. No torch.

Languages that share a script are not told apart: English passes for German. What stands in quotation marks is speech,
which keeps its own language, and does not count.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from avcap.errors import UserError

LEAST_SHARE = 0.5
"""Of the letters; names and loans in Latin letters stand in texts of every language."""
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|<d>.*?</d>', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Language:
    """A language and the scripts that it is written in, as Unicode begins the names of their letters."""

    name: str
    scripts: tuple[str, ...] = ("LATIN",)
    has_spaces: bool = True


LANGUAGES = {
    "ar": Language(name="Arabic", scripts=("ARABIC",)),
    "de": Language(name="German"),
    "el": Language(name="Greek", scripts=("GREEK",)),
    "en": Language(name="English"),
    "es": Language(name="Spanish"),
    "fa": Language(name="Persian", scripts=("ARABIC",)),
    "fr": Language(name="French"),
    "he": Language(name="Hebrew", scripts=("HEBREW",)),
    "hi": Language(name="Hindi", scripts=("DEVANAGARI",)),
    "id": Language(name="Indonesian"),
    "it": Language(name="Italian"),
    "ja": Language(name="Japanese", scripts=("HIRAGANA", "KATAKANA", "CJK"), has_spaces=False),
    "ko": Language(name="Korean", scripts=("HANGUL",)),
    "nl": Language(name="Dutch"),
    "pl": Language(name="Polish"),
    "pt": Language(name="Portuguese"),
    "ru": Language(name="Russian", scripts=("CYRILLIC",)),
    "th": Language(name="Thai", scripts=("THAI",), has_spaces=False),
    "tr": Language(name="Turkish"),
    "uk": Language(name="Ukrainian", scripts=("CYRILLIC",)),
    "vi": Language(name="Vietnamese"),
    "zh": Language(name="Chinese", scripts=("CJK",), has_spaces=False),
}


def read_language(code: str) -> Language:
    """ "de" -> German. UserError for a code that is not in the table."""
    if (found := LANGUAGES.get(code.lower())) is None:
        raise UserError(f"got --language {code}, expected one of {', '.join(LANGUAGES)}")
    return found


def is_in_script(text: str, language: Language) -> bool:
    """Whether at least half of the letters outside quotation marks are of the language's scripts; of none, they are.

    Japanese has to have kana and Chinese none, since they share their other characters.
    """
    letters = [char for char in _QUOTED.sub(" ", text) if char.isalpha()]
    scripts = Counter(unicodedata.name(char, "?").split()[0].partition("-")[0] for char in letters)
    num_kana = scripts["HIRAGANA"] + scripts["KATAKANA"]
    if "CJK" in language.scripts and (num_kana > 0) != ("HIRAGANA" in language.scripts) and letters:
        return False
    return sum(scripts[script] for script in language.scripts) >= LEAST_SHARE * len(letters)
