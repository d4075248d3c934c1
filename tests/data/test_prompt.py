import pytest
from support import ASSETS
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from avcap.data.prompt import (
    ChatStyle,
    encode_branches,
    encode_chat,
    released_targets,
    time_text_ids,
)
from avcap.data.tokenizer import build_word_tokenizer
from avcap.model import configuration
from avcap.model.interleave import AUDIO_ID, VISUAL_ID, ZERO_ID
from avcap.model.salmonn2 import configuration as salmonn2_configuration
from avcap.model.salmonn2.configuration import Salmonn2Config

CHATML_V1 = ChatStyle(**configuration.CHATML_V1)
CHAT_TINY = ChatStyle(**salmonn2_configuration.CHAT_TINY)

RELEASED = ASSETS / "v1_av_31s"
MEDIA = [VISUAL_ID, VISUAL_ID, AUDIO_ID]


@pytest.fixture(scope="module")
def chatml() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(RELEASED, config=Salmonn2Config().text_config)


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    return build_word_tokenizer(["what", "is", "a", "cat", "."])


def shown(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Ids -> text, media as <media>."""
    at = ids.index(VISUAL_ID)
    return tokenizer.decode(ids[:at]) + "<media>" + tokenizer.decode(ids[at + len(MEDIA) :])


def test_released_prompt_is_chatml_with_two_newlines_after_the_media(chatml):
    encoded = encode_chat(chatml, [("Describe.", None)], MEDIA, CHATML_V1)
    ids, is_target = encoded.ids, encoded.is_target
    assert shown(chatml, ids) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<media>\n\nDescribe.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert not any(is_target)


def test_answers_and_their_ends_are_learned_in_every_turn(words):
    encoded = encode_chat(words, [("what is", "a cat ."), ("what", "cat")], MEDIA, CHAT_TINY)
    ids, is_target = encoded.ids, encoded.is_target
    tokens = [words.convert_ids_to_tokens(token_id) if token_id >= 0 else "*" for token_id in ids]
    assert " ".join(tokens) == (
        "<|user|> * * * what is <|assistant|> a cat . <|im_end|> <|user|> what <|assistant|> cat <|im_end|>"
    )
    learned = [token for token, target in zip(tokens, is_target, strict=True) if target]
    assert learned == ["a", "cat", ".", "<|im_end|>", "cat", "<|im_end|>"]


def test_training_row_begins_with_the_generation_prompt(chatml):
    question = "What happens?"
    prompt = encode_chat(chatml, [(question, None)], MEDIA, CHATML_V1).ids
    encoded = encode_chat(chatml, [(question, "A dog runs.")], MEDIA, CHATML_V1)
    row, is_target = encoded.ids, encoded.is_target
    assert row[: len(prompt)] == prompt
    assert is_target == [False] * len(prompt) + [True] * (len(row) - len(prompt))


def test_without_media_the_question_follows_directly(words):
    ids = encode_chat(words, [("what", None)], [], CHAT_TINY).ids
    assert words.convert_ids_to_tokens(ids) == ["<|user|>", "what", "<|assistant|>"]


def test_open_answer_is_allowed_only_at_the_end(words):
    with pytest.raises(ValueError, match="answer"):
        encode_chat(words, [("what", None), ("is", "a")], [], CHAT_TINY)
    with pytest.raises(ValueError, match="at least one"):
        encode_chat(words, [], [], CHAT_TINY)


def test_released_targets_add_turn_marks(chatml):
    encoded = encode_chat(chatml, [("Q\nQ", "A")], MEDIA, CHATML_V1)
    ids, is_target = encoded.ids, encoded.is_target
    targets = released_targets(chatml, ids, is_target)
    learned = [token_id for token_id, target in zip(ids, targets, strict=True) if target]
    # the marks of three turns, the answer, and the newline after each end; not the newline inside the question
    assert chatml.decode(learned) == "<|im_start|><|im_end|>\n<|im_start|><|im_end|>\n<|im_start|>A<|im_end|>\n"


def test_time_text_is_padded_with_zeros(chatml):
    # 12 s in 4 frames: stamps 3.0 6.0 9.0 12.0; the shorter ones are padded to the length of the longest
    rows = time_text_ids(chatml, num_frames=4, duration_s=12.0)
    assert [chatml.decode([token for token in row if token != ZERO_ID]) for row in rows] == [
        "3.0",
        "6.0",
        "9.0",
        "12.0",
    ]
    assert [row.count(ZERO_ID) for row in rows] == [1, 1, 1, 0]
    assert {len(row) for row in rows} == {4}
    assert time_text_ids(chatml, num_frames=0, duration_s=0.0) == []
    # 10 s in 3 frames: 3.33, 6.67, 10 with one decimal
    rows = time_text_ids(chatml, num_frames=3, duration_s=10.0)
    assert [chatml.decode([token for token in row if token != ZERO_ID]) for row in rows] == ["3.3", "6.7", "10.0"]


def test_branches_share_the_media_and_nothing_else(words):
    turns = [("what is", "a cat ."), ("what", "cat")]
    row = encode_branches(words, turns, MEDIA, CHAT_TINY)
    alone = [encode_chat(words, [turn], MEDIA, CHAT_TINY) for turn in turns]
    assert row.shared_ids[-len(MEDIA) :] == MEDIA  # what is shared ends with the media
    for one, branch in zip(alone, row.branches, strict=True):
        assert row.shared_ids + branch.ids == one.ids and branch.media_end == 0
        assert [False] * len(row.shared_ids) + branch.is_target == one.is_target


def test_the_only_question_is_shared_and_its_answer_is_the_branch(words):
    row = encode_branches(words, [("what is", "a cat .")], MEDIA, CHAT_TINY)
    encoded = encode_chat(words, [("what is", "a cat .")], MEDIA, CHAT_TINY)
    (branch,) = row.branches
    assert row.shared_ids + branch.ids == encoded.ids
    assert all(branch.is_target) and sum(branch.is_target) == sum(encoded.is_target)


def test_a_chat_knows_its_parts(words):
    found = encode_chat(words, [("what is", "a cat .")], MEDIA, CHAT_TINY)
    assert found.opening_ids[-len(MEDIA) :] == MEDIA and found.opening_ids + found.question_ids == found.ids
    assert found.prompt_ids + found.answer_ids == found.ids
    # a question has no answer yet, and without media nothing is shared
    assert encode_chat(words, [("what", None)], MEDIA, CHAT_TINY).answer_ids == []
    assert encode_chat(words, [("what", None)], [], CHAT_TINY).opening_ids == []
