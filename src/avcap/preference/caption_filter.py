"""Which captions are good enough to be learned from, told without knowing what is true of the video."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from avcap.errors import UserError
from avcap.preference.clauses import ReadClauses, read_clauses
from avcap.records import Caption


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """What a caption must be to be kept."""

    max_repeated_clauses: int = 0
    """Clauses that say again what an earlier one says: a student inherits its teacher's loops."""
    min_words_ratio: float = 0.3
    """Against the median of the captions of its kind (whole videos, intervals of about the same length)."""
    max_words_ratio: float = 3.0
    must_be_finished: bool = True
    """Captions that ran into the token limit are dropped."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    captions: tuple[Caption, ...]
    num_asked: int
    dropped: dict[str, int]
    """Reason -> captions that were dropped for it, the first that applied."""


def keep_good(captions: Sequence[Caption], config: QualityConfig, *, read: ReadClauses = read_clauses) -> Kept:
    """Captions -> those that are good enough, in order. UserError if none is. `read`: a caption as clauses."""
    typical = {kind: median(words) for kind, words in _words_by_kind(captions).items()}
    kept, dropped = [], Counter[str]()
    for caption in captions:
        if why := _fault(caption, typical=typical[_kind(caption)], config=config, read=read):
            dropped[why] += 1
        else:
            kept.append(caption)
    if not kept:
        raise UserError(f"got {len(captions)} captions and none good enough to learn from: {dict(dropped)}")
    return Kept(captions=tuple(kept), num_asked=len(captions), dropped=dict(dropped))


def _kind(caption: Caption) -> int:
    """Captions are compared with those of about the same length of video: 0 for whole ones, else seconds, doubled."""
    if caption.interval_s is None:
        return 0
    start_s, end_s = caption.interval_s
    return max(1, round(end_s - start_s)).bit_length()


def _words_by_kind(captions: Sequence[Caption]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for caption in captions:
        found.setdefault(_kind(caption), []).append(len(caption.text.split()))
    return found


def _fault(caption: Caption, *, typical: float, config: QualityConfig, read: ReadClauses) -> str:
    """A caption -> why it is dropped, or ""."""
    num_words = len(caption.text.split())
    if config.must_be_finished and not caption.finished:
        return "ran into the token limit"
    if read(caption.text).num_repeated > config.max_repeated_clauses:
        return "repeats clauses"
    if num_words == 0 or num_words < config.min_words_ratio * typical:
        return "much shorter than others"
    if num_words > config.max_words_ratio * typical:
        return "much longer than others"
    return ""
