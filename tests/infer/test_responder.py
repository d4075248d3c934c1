"""Answers to conversations: those of the Captioner where they ask the same, with log-probabilities and tokens told."""

import math

import pytest

from avcap.data.request import Request
from avcap.errors import UserError
from avcap.infer.captioner import Captioner
from avcap.infer.responder import Dialogue, Responder, Response
from avcap.media.load import read_clip
from avcap.records import Decoding

GREEDY = Decoding(max_new_tokens=12)


@pytest.fixture(scope="module")
def responder(random_checkpoint) -> Responder:
    return Responder(Captioner(random_checkpoint))


@pytest.fixture(scope="module")
def encoded(responder, videos):
    """Name of a video -> its features."""
    captioner, request = responder.captioner, Request(decoding=GREEDY)
    samples = {name: request.sample(videos / f"{name}.mp4") for name in ("a", "b")}
    rows = captioner.encode([sample.video for sample in samples.values()], request)
    return {name: row.encoded for name, row in zip(samples, rows, strict=True)}


def test_answers_are_the_captions_of_the_captioner(responder, encoded, videos):
    dialogues = [Dialogue(turns=(("", None),), clip=encoded[name], key=name) for name in ("a", "b")]
    found = responder.respond(dialogues, decoding=GREEDY)
    captions = responder.captioner.caption([videos / "a.mp4", videos / "b.mp4"])
    for response, caption in zip(found, captions, strict=True):
        assert isinstance(response, Response)
        assert (response.answers[0].text, response.answers[0].finished) == (caption.text, caption.finished)
        assert (response.seen, response.prompt) == (caption.seen, caption.prompt)
        # 3 or 2 s: a prompt is the media and some words of text
        assert response.num_prompt_tokens > caption.seen.visual_tokens + caption.seen.audio_tokens
    assert found[0].answers[0].text != found[1].answers[0].text


def test_an_answer_of_a_batch_is_the_one_it_has_alone(responder, encoded):
    decoding = Decoding(max_new_tokens=8, temperature=1.0, seed=3)
    dialogues = [
        Dialogue(turns=(("What is seen?", None),), clip=encoded["a"], key="a"),
        Dialogue(turns=(("Describe the video.", None),)),
        Dialogue(turns=(("How many?", "two."), ("And now?", None)), clip=encoded["b"], key="b"),
    ]
    together = responder.respond(dialogues, decoding=decoding, num_answers=3)
    alone = [responder.respond([one], decoding=decoding, num_answers=3)[0] for one in dialogues]
    assert together == alone
    assert len({answer.text for answer in together[0].answers}) > 1
    assert together[1].seen.visual_tokens == 0 and together[2].prompt == "And now?"


def test_logprobs_of_greedy_tokens_are_the_best_and_probabilities_sum_to_1(responder, encoded):
    vocabulary = len(responder.tokenizer)
    dialogue = Dialogue(turns=(("", None),), clip=encoded["a"], key="a")
    (response,) = responder.respond([dialogue], decoding=GREEDY, top_logprobs=vocabulary)
    (answer,) = response.answers
    assert len(answer.logprobs) == answer.num_tokens - answer.finished
    for one in answer.logprobs:
        assert one.token == one.top[0][0] and one.logprob == pytest.approx(one.top[0][1])
        assert sum(math.exp(value) for _, value in one.top) == pytest.approx(1.0, abs=1e-4)
    assert not responder.respond([dialogue], decoding=GREEDY)[0].answers[0].logprobs


def test_tokens_are_told_as_they_are_written_and_an_answer_can_be_given_up(responder, encoded):
    dialogues = [Dialogue(turns=(("", None),), clip=encoded[name], key=name) for name in ("a", "b")]
    whole = responder.respond(dialogues, decoding=GREEDY)
    told: dict[int, list[int]] = {0: [], 1: []}

    def listen(index: int, answer: int, token: int) -> bool:
        told[index].append(token)
        return index == 1 or len(told[0]) < 3

    found = responder.respond(dialogues, decoding=GREEDY, listener=listen)
    assert len(told[0]) == 3 == found[0].answers[0].num_tokens and not found[0].answers[0].finished
    assert found[1] == whole[1] and responder.text(told[1]) == whole[1].answers[0].text


def test_a_dialogue_that_is_too_long_is_an_error_in_its_place(responder):
    long = Dialogue(turns=(("word " * 20_000, None),))
    short = Dialogue(turns=(("Say OK.", None),))
    first, second = responder.respond([long, short], decoding=GREEDY)
    assert isinstance(first, UserError) and "maximum context length" in str(first)
    assert isinstance(second, Response)


def test_a_clip_without_what_was_asked_for_is_refused(responder, videos):
    request = Request(decoding=GREEDY, interval_s=(2.0, 9.0))
    sample = request.sample(videos / "a.mp4")
    with pytest.raises(UserError, match="got an interval that ends at 9 s"):
        responder.captioner.encoder.encode_clip(read_clip(sample.video), sample=sample, request=request)
