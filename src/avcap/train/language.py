"""The loss that teaches the language model to read media tokens, and how well it does, kind of word by kind of word.

The caption loss alone is a trap: a model that knows only the grammar brings it down nicely. So content words weigh
more, the tokens of changing cells and of sounds are pulled towards the words of what they show (a bag-of-words loss on
the connector's output), and accuracy is told per kind of word.
B lessons  L tokens  D width  M media tokens  Z targets
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from avcap.data.prompt import branch_mask
from avcap.model.captioning import CaptioningModel
from avcap.model.features import MediaTokens
from avcap.train.lessons import CONTENT_KINDS, LessonBatch
from avcap.train.loop import LossOutput
from avcap.world import grammar
from avcap.world.scene import PLACES, Scene

FIRST_SOUND_TYPE = len(PLACES) + 1  # after the four cells and the newline (model.interleave.TokenTypes)


def language_loss(
    model: CaptioningModel, batch: LessonBatch, *, tokenizer: PreTrainedTokenizerFast, alignment_weight: float
) -> LossOutput:
    """Weighted cross-entropy on the answers + alignment_weight x bag-of-words loss on the media tokens."""
    media_tokens = model.align_batch(batch.media)
    logits_ZV, target_Z, weight_Z = answer_logits(model, batch, media_tokens)
    losses_Z = F.cross_entropy(logits_ZV, target_Z, reduction="none")
    answer_loss = (losses_Z * weight_Z).sum() / weight_Z.sum()
    metrics = {"answer_loss": answer_loss.item(), **kind_accuracy(batch, logits_ZV, target_Z)}
    loss = answer_loss
    if alignment_weight:
        aligned = alignment_loss(model, media_tokens, batch.scenes, tokenizer=tokenizer)
        metrics["alignment_loss"] = aligned.item()
        loss = loss + alignment_weight * aligned
    return LossOutput(loss=loss, metrics=metrics, num_tokens=batch.ids_BL.numel())


def answer_logits(
    model: CaptioningModel, batch: LessonBatch, media_tokens: Sequence[MediaTokens]
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (Z, V) at the positions before targets only, the target ids (Z,) and their weights (Z,).

    Right padding under a causal mask needs no attention mask: no real token sees the padding behind it.
    """
    embeds_BLD = model.embed(batch.ids_BL, media_tokens)
    mask = None if batch.branches_BL is None else branch_mask(batch.branches_BL)
    hidden_BLD = model.language_model.model(
        inputs_embeds=embeds_BLD, attention_mask=mask, use_cache=False,
        position_ids=model.batch_positions(batch.ids_BL, media_tokens, order_BL=batch.positions_BL),
    ).last_hidden_state
    is_target = batch.weight_BL[:, 1:] > 0
    logits_ZV = model.language_model.lm_head(hidden_BLD[:, :-1][is_target])
    return logits_ZV, batch.ids_BL[:, 1:][is_target], batch.weight_BL[:, 1:][is_target]


def right_answers(model: CaptioningModel, batch: LessonBatch) -> float:
    """Share of the answers of a batch of which every token is right, under teacher forcing."""
    logits_ZV, target_Z, _ = answer_logits(model, batch, model.align_batch(batch.media))
    row_Z, place_Z = (batch.weight_BL[:, 1:] > 0).nonzero(as_tuple=True)
    branches_BL = torch.zeros_like(batch.ids_BL) if batch.branches_BL is None else batch.branches_BL
    answers_Z2 = torch.stack((row_Z, branches_BL[row_Z, place_Z + 1]), dim=1)
    _, answer_Z = answers_Z2.unique(dim=0, return_inverse=True)
    wrong_Z = (logits_ZV.argmax(-1) != target_Z).to(torch.int64)
    wrong_A = torch.zeros(int(answer_Z.max()) + 1, dtype=torch.int64).index_add(0, answer_Z, wrong_Z)
    return (wrong_A == 0).double().mean().item()


def kind_accuracy(batch: LessonBatch, logits_ZV: Tensor, target_Z: Tensor) -> dict[str, float]:
    """Teacher-forced accuracy by kind of word, and "content" over all content kinds together."""
    is_target = (batch.weight_BL[:, 1:] > 0).tolist()
    kinds = [
        kind for row, wanted in zip(batch.kinds_BL, is_target, strict=True)
        for kind, is_wanted in zip(row[1:], wanted, strict=True) if is_wanted
    ]  # fmt: skip
    right: dict[str, list[bool]] = defaultdict(list)
    for kind, hit in zip(kinds, (logits_ZV.argmax(-1) == target_Z).tolist(), strict=True):
        if kind:
            right[kind].append(hit)
            if kind in CONTENT_KINDS:
                right["content"].append(hit)
    return {f"accuracy/{kind}": sum(hits) / len(hits) for kind, hits in sorted(right.items())}


def alignment_loss(
    model: CaptioningModel, media_tokens: Sequence[MediaTokens], scenes: Sequence[Scene | None],
    *, tokenizer: PreTrainedTokenizerFast,
) -> Tensor:  # fmt: skip
    """Mean -log p of the words that tell what a media token shows, p from connector output x word embeddings.

    Time is left out (`content_MD`): the token must say what, the time vector says when.
    """
    rows: list[int] = []
    words: list[str] = []
    first = 0
    for tokens, scene in zip(media_tokens, scenes, strict=True):
        wanted = media_words(scene) if scene else {}
        places = zip(tokens.seconds_M.tolist(), tokens.types_M.tolist(), strict=True)
        for row, place in enumerate(places, start=first):
            found = wanted.get(place, ())
            rows += [row] * len(found)
            words += found
        first += len(tokens.content_MD)
    if not rows:
        return torch.zeros(())
    content_MD = torch.cat([tokens.content_MD for tokens in media_tokens])
    told, row_index = torch.tensor(rows).unique(return_inverse=True)
    log_probs = F.log_softmax(model.language_model.lm_head(content_MD[told]), dim=-1)
    return -log_probs[row_index, torch.tensor(tokenizer.convert_tokens_to_ids(words))].mean()


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
    for sound in scene.sounds:
        for half in (0, 1):
            key = sound.second, FIRST_SOUND_TYPE + half
            words[key] = words.get(key, ()) + _sound_words(sound, half)
    return words


def _sound_words(sound, half: int) -> tuple[str, ...]:
    if sound.words:
        return "voice", sound.words[half]
    if sound.count:
        name, count = {"knock": "somebody"}.get(sound.name, sound.name), grammar.COUNT_WORDS[sound.count - 1].split()[0]
        return name, count
    return ({"applause": "people"}.get(sound.name, sound.name),)
