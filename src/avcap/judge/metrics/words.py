"""How many words a caption has, and how many of them only repeat what it said before. Standard library only."""

import re
from dataclasses import dataclass

NGRAM_WORDS = 5
# Chinese and Japanese are written without spaces: each of their characters counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:[-'’][^\W{_UNSPACED}]+)*")


@dataclass(frozen=True, kw_only=True)
class WordCounts:
    """`num_repeated`: words inside the second or a later occurrence of some run of five words."""

    num_words: int
    num_repeated: int

    @property
    def repetition_rate(self) -> float:
        """0 for an empty text."""
        return self.num_repeated / self.num_words if self.num_words else 0.0


def count_words(text: str) -> WordCounts:
    """Text -> its words and its repeated words. "top-left" and "it's" are one word each; case does not matter.

    Clean captions repeat a little: "appears in the top-left corner" is a run that two objects may share.
    """
    words = _WORD.findall(text.lower())
    seen: set[tuple[str, ...]] = set()
    inside: set[int] = set()
    for start in range(len(words) - NGRAM_WORDS + 1):
        ngram = tuple(words[start : start + NGRAM_WORDS])
        if ngram in seen:
            inside |= set(range(start, start + NGRAM_WORDS))
        seen.add(ngram)
    return WordCounts(num_words=len(words), num_repeated=len(inside))
