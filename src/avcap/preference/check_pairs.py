"""Pairs from a file are looked at before anything is learned from them. No torch."""

from collections import Counter
from collections.abc import Sequence

from avcap.errors import UserError
from avcap.records import PreferencePair


def check_pairs(pairs: Sequence[PreferencePair], *, checkpoint: str, allow_others: bool) -> None:
    """Raises UserError for pairs that teach nothing, or that another model wrote unless that is allowed."""
    if not pairs:
        raise UserError("got no pairs, expected at least one")
    empty = [pair.sample_id for pair in pairs if not pair.chosen.strip() or not pair.rejected.strip()]
    if empty:
        raise UserError(f"{len(empty)} pairs have an empty caption, the first is of {empty[0]}; leave them out")
    equal = [pair.sample_id for pair in pairs if pair.chosen == pair.rejected]
    if equal:
        raise UserError(f"{len(equal)} pairs have the same caption twice, the first is of {equal[0]}; leave them out")
    others = Counter(pair.checkpoint for pair in pairs if pair.checkpoint not in ("", checkpoint))
    if others and not allow_others:
        name, _ = others.most_common(1)[0]
        raise UserError(
            f"{others.total()} of {len(pairs)} pairs were written by another model ({name}), expected pairs of "
            f"{checkpoint}; sample anew from it, or learn them all the same: --off-policy"
        )
