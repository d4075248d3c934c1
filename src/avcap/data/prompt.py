"""A conversation about a clip becomes token ids: where the media stands, and which tokens are to be learned."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from avcap.model.interleave import ZERO_ID

IM_START, IM_END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True, kw_only=True)
class ChatStyle:
    """The strings around media, question and answer; a model keeps them as `config.chat`.

    system_prefix  user_prefix [media] media_suffix question user_suffix answer answer_suffix  user_prefix question ...
    """

    system_prefix: str
    user_prefix: str
    media_suffix: str
    user_suffix: str
    """Ends the question and opens the answer: what is generated comes right after it."""
    answer_suffix: str


@dataclass(frozen=True, kw_only=True)
class ChatIds:
    """A conversation as token ids."""

    ids: list[int]
    is_target: list[bool]
    """Whether each is to be learned: answers, and what closes them."""
    media_end: int
    """How many of the ids stand before the end of the media: what all questions about it share; 0 without media."""

    @property
    def opening_ids(self) -> list[int]:
        """All up to the end of the media."""
        return self.ids[: self.media_end]

    @property
    def question_ids(self) -> list[int]:
        """All behind the media."""
        return self.ids[self.media_end :]

    @property
    def prompt_ids(self) -> list[int]:
        """All before the first answer."""
        return self.ids[: self._first_answer]

    @property
    def answer_ids(self) -> list[int]:
        """The first answer and all behind it."""
        return self.ids[self._first_answer :]

    @property
    def _first_answer(self) -> int:
        return self.is_target.index(True) if True in self.is_target else len(self.ids)

    def after(self, index: int) -> "ChatIds":
        """What stands from an index on."""
        return ChatIds(ids=self.ids[index:], is_target=self.is_target[index:], media_end=max(0, self.media_end - index))


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[tuple[str, str | None]],
    media_ids: Sequence[int],
    chat: ChatStyle,
) -> ChatIds:
    """(question, answer) turns and media placeholders -> token ids, and for each whether it is to be learned.

    The media stands once, in the first turn. Answers and what closes them are learned. An answer of None, allowed in
    the last turn only, leaves the prompt open for the model to go on.
    """
    if not turns or any(answer is None for _, answer in turns[:-1]):
        raise ValueError("turns: expected at least one, and an answer in all but the last")
    ids: list[int] = []
    is_target: list[bool] = []
    media_end = 0

    def add(new_ids: Sequence[int], *, learned: bool) -> None:
        ids.extend(new_ids)
        is_target.extend([learned] * len(new_ids))

    opening = chat.system_prefix + chat.user_prefix
    for question, answer in turns:
        if media_ids and not ids:
            add(_tokenize(tokenizer, opening), learned=False)
            add(media_ids, learned=False)
            media_end = len(ids)
            opening = chat.media_suffix
        # one call for all the text between media and answer: a tokenizer may merge characters across the seams
        add(_tokenize(tokenizer, opening + question + chat.user_suffix), learned=False)
        if answer is not None:
            add(_tokenize(tokenizer, answer + chat.answer_suffix), learned=True)
        opening = chat.user_prefix
    return ChatIds(ids=ids, is_target=is_target, media_end=media_end)


@dataclass(frozen=True, kw_only=True)
class Branches:
    """Questions about one clip behind what they share: [opening, media], then question 1 and answer 1, and so on.

    Nothing sees another branch, and each goes on at the position after the media: for each it is as if it were alone.
    """

    shared_ids: list[int]
    branches: list[ChatIds]
    """Ids of each question and answer, and which of them are to be learned."""


def encode_branches(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]], media_ids: Sequence[int], chat: ChatStyle
) -> Branches:
    """(question, answer) pairs about the same media -> what they share, in which the media stands once, and the rest.

    Of a single pair the question is shared too, and its answer is the only branch.
    """
    alone = [encode_chat(tokenizer, [turn], media_ids, chat) for turn in turns]
    if len(turns) == 1:
        num_shared = len(alone[0].prompt_ids)
    else:
        num_shared = len(_tokenize(tokenizer, chat.system_prefix + chat.user_prefix)) + len(media_ids)
    return Branches(shared_ids=alone[0].ids[:num_shared], branches=[one.after(num_shared) for one in alone])


def released_targets(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], is_target: Sequence[bool]) -> list[bool]:
    """ChatML ids and their targets -> the targets of the released training code, which has more of them.

    It also learns every `<|im_start|>`, every `<|im_end|>` and the newline after it, those of the system and user
    turns included. They cancel out of a preference loss but not out of a cross-entropy; only to compare with it.
    """
    start_id, end_id = tokenizer.convert_tokens_to_ids([IM_START, IM_END])
    (newline_id,) = _tokenize(tokenizer, "\n")
    previous_ids = [None, *ids[:-1]]
    return [
        learned or token_id in (start_id, end_id) or (token_id == newline_id and previous_id == end_id)
        for token_id, previous_id, learned in zip(ids, previous_ids, is_target, strict=True)
    ]


def time_text_ids(tokenizer: PreTrainedTokenizerBase, *, num_frames: int, duration_s: float) -> list[list[int]]:
    """Frames of a clip without sound -> the ids that follow each of them in the released model.

    The k-th of F frames is stamped with the end of its share, k/F of the duration; all texts are padded to one length
    with ZERO_ID, which is embedded as zeros.
    """
    texts = [str(round(duration_s / num_frames * number, 1)) for number in range(1, num_frames + 1)]
    rows = [_tokenize(tokenizer, text) for text in texts]
    longest = max(map(len, rows), default=0)
    return [row + [ZERO_ID] * (longest - len(row)) for row in rows]


def _tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
