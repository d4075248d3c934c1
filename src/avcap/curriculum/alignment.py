"""Tokens of changing cells and of sounds are pulled towards the words of what they show: a bag-of-words loss.

M media tokens  D width
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaFeatures, MediaTokens
from avcap.world import grammar
from avcap.world.scene import PLACES, Scene

FIRST_AUDIO_TYPE = len(PLACES) + 1  # after the four cells and the newline (model.interleave.TokenTypes)


class KnownClip(Protocol):
    """A clip of which everything is known."""

    @property
    def media(self) -> MediaFeatures: ...
    @property
    def scene(self) -> Scene: ...


def alignment_losses(
    model: CaptioningModel,
    media_tokens: Sequence[MediaTokens],
    scenes: Sequence[Scene],
    *,
    tokenizer: PreTrainedTokenizerBase,
) -> Tensor:
    """-log p of each word that tells what a media token shows, p from connector output x word embeddings.

    Time is left out (`content_MD`): the token must say what, the time vector says when.
    """
    rows: list[int] = []
    words: list[str] = []
    first = 0
    for tokens, scene in zip(media_tokens, scenes, strict=True):
        expected = media_words(scene)
        places = zip(tokens.seconds_M.tolist(), tokens.types_M.tolist(), strict=True)
        for row, place in enumerate(places, start=first):
            found = expected.get(place, ())
            rows += [row] * len(found)
            words += found
        first += len(tokens.content_MD)
    content_MD = torch.cat([tokens.content_MD for tokens in media_tokens])
    told, row_index = torch.tensor(rows, dtype=torch.long, device=content_MD.device).unique(return_inverse=True)
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(words), dtype=torch.long, device=content_MD.device)
    log_probs = F.log_softmax(model.language_model.lm_head(content_MD[told]).float(), dim=-1)
    return -log_probs[row_index, ids]


def num_told_words(model: CaptioningModel, clip: KnownClip) -> int:
    """A clip and what is true of it -> how many words its media tokens are to name; computes no token."""
    outline, expected = model.outline(clip.media), media_words(clip.scene)
    return sum(len(expected.get(place, ())) for place in zip(outline.seconds, outline.types, strict=True))


def media_words(scene: Scene) -> dict[tuple[int, int], tuple[str, ...]]:
    """Scene -> (second, token type) -> the content words of what happens there: changed cells and sounding halves.

    A move is told by the cell where the thing arrives; the cell that it left names itself.
    """
    words: dict[tuple[int, int], tuple[str, ...]] = {}
    for atom in scene.visual:
        cell = PLACES.index(atom.new_place or atom.place)
        told = (grammar.VERBS[atom.kind], atom.colour, atom.shape, atom.new_colour, PLACES[cell])
        words[atom.second, cell] = tuple(word for word in told if word)
        if atom.new_place:
            words[atom.second, PLACES.index(atom.place)] = (atom.place, atom.colour, atom.shape)
    for audio in scene.sounds:
        for half in (0, 1):
            key = audio.second, FIRST_AUDIO_TYPE + half
            words[key] = words.get(key, ()) + _atom_words(audio, half)
    return words


def _atom_words(audio, half: int) -> tuple[str, ...]:
    if audio.words:
        return "voice", audio.words[half]
    if audio.count:
        name, count = {"knock": "somebody"}.get(audio.name, audio.name), grammar.COUNT_WORDS[audio.count - 1].split()[0]
        return name, count
    return ({"applause": "people"}.get(audio.name, audio.name),)
