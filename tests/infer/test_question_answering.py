"""Questions about a clip that is read once give what asking one by one gives."""

from dataclasses import replace

import pytest
import torch

from avcap import Captioner
from avcap.data.prompt import encode_chat
from avcap.data.qa_files import VideoQuestion, letters_prompt
from avcap.data.request import Request
from avcap.data.tokenizer import build_word_tokenizer
from avcap.errors import UserError
from avcap.infer.generate import generate
from avcap.infer.question_answering import Answerer
from avcap.infer.settings import CaptionerSettings, write_settings
from avcap.media.load import load_clip
from avcap.model.salmonn2.modeling import Salmonn2ForCaptioning
from avcap.model.salmonn2.tiny import tiny_config
from avcap.records import Decoding, Sample
from avcap.world import describe
from avcap.world.scene import MAX_SECONDS

REQUEST = Request(decoding=Decoding(max_new_tokens=12))
PROMPTS = ("How many objects appear?", "Where does the red ring appear?", "Can you hear rain?")
SIDE = 48  # of the tiny model's frames


def asked(text: str, *options: str) -> VideoQuestion:
    return VideoQuestion(
        question_id="q", video="v", kind="k", text=text, answer=options[0], options=options, answer_index=0
    )


@pytest.fixture(scope="module")
def answerer(random_checkpoint) -> Answerer:
    return Answerer(Captioner(random_checkpoint))


@pytest.fixture(scope="module")
def lettered(tmp_path_factory) -> Answerer:
    """A model with random weights whose vocabulary has the letters that name options."""
    folder = tmp_path_factory.mktemp("lettered")
    tokenizer = build_word_tokenizer([*describe.all_words(), *"ABCDE"])
    times = tokenizer.convert_tokens_to_ids([f"{second}s" for second in range(MAX_SECONDS + 1)])
    torch.manual_seed(1)
    model = Salmonn2ForCaptioning(tiny_config(vocab_size=len(tokenizer), time_token_ids=times))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_settings(folder, CaptionerSettings(name="lettered", max_frames=20))
    return Answerer(Captioner(folder))


def look(answerer: Answerer, path, **changes):
    sample = Sample(sample_id="s", video=str(path), prompt="")
    (clip,) = answerer.clips([sample], REQUEST)
    return answerer.look(replace(clip, **changes), sample=sample, request=REQUEST)


@pytest.mark.parametrize("name", ["a.mp4", "silent.mp4", "audio.m4a"])
def test_replies_are_those_of_one_by_one(answerer, videos, name):
    looked = look(answerer, videos / name)
    replies = answerer.reply(looked, PROMPTS, max_new_tokens=12)
    alone = [answerer.captioner.caption(videos / name, prompt=prompt, max_new_tokens=12) for prompt in PROMPTS]
    assert [reply.text for reply in replies] == [caption.text for caption in alone]
    assert [reply.finished for reply in replies] == [caption.finished for caption in alone]
    assert looked.seen == alone[0].seen
    # asked again, in another company: the prefix is not used up by being read on from
    assert answerer.reply(looked, PROMPTS[:1], max_new_tokens=12) == replies[:1]
    assert answerer.reply(looked, [], max_new_tokens=12) == []


@torch.no_grad()
def by_full_forward(answerer: Answerer, looked, question: str, answer: str) -> float:
    """Log-probability of an answer and its end, with everything read anew and nothing padded."""
    media = answerer.captioner.model.align(media_of(answerer, looked.clip))
    encoded = encode_chat(answerer.tokenizer, [(question, answer)], media.ids, answerer.prompter.chat)
    ids, targets = encoded.ids, encoded.is_target
    logprobs = answerer.model(torch.tensor([ids]), [media]).logits[0].log_softmax(dim=-1)
    return sum(logprobs[index - 1, ids[index]].item() for index, learned in enumerate(targets) if learned)


def media_of(answerer: Answerer, clip):
    from avcap.data.encode import encode_clip

    return encode_clip(answerer.model, clip, tokenizer=answerer.tokenizer)


def test_scores_of_texts_are_those_of_full_forwards(answerer, videos):
    looked = look(answerer, videos / "a.mp4")
    questions = [asked(PROMPTS[0], "one.", "two.", "three."), asked(PROMPTS[1], "top-left.", "a bell rings twice.")]
    found = answerer.text_scores(looked, questions)
    expected = [[by_full_forward(answerer, looked, q.text, option) for option in q.options] for q in questions]
    assert [len(scores) for scores in found] == [3, 2]
    for scores, alone in zip(found, expected, strict=True):
        assert scores == pytest.approx(alone, abs=1e-3)


@torch.no_grad()
def test_scores_of_letters_are_the_logits_after_the_prompt(lettered, videos):
    looked = look(lettered, videos / "a.mp4")
    questions = [asked(PROMPTS[0], "one.", "two."), asked(PROMPTS[1], "top-left.", "top-right.", "bottom-left.")]
    found = lettered.letter_scores(looked, questions)
    media = lettered.model.align(media_of(lettered, looked.clip))
    for scores, question in zip(found, questions, strict=True):
        ids = encode_chat(lettered.tokenizer, [(letters_prompt(question), None)], media.ids, lettered.prompter.chat).ids
        logprobs = lettered.model(torch.tensor([ids]), [media]).logits[0, -1].log_softmax(dim=-1)
        letter_ids = lettered.tokenizer.convert_tokens_to_ids(list("ABC"[: len(question.options)]))
        assert scores == pytest.approx(logprobs[letter_ids].tolist(), abs=1e-4)
    assert lettered.letter_scores(looked, []) == []


def test_only_a_model_with_letters_is_shown_letters(answerer, lettered):
    assert lettered.knows_letters and not answerer.knows_letters
    prompt = letters_prompt(asked("What is it?", "a dog", "a cat"))
    assert prompt == "What is it?\nA. a dog\nB. a cat\nAnswer with the letter of the right option alone."


def test_a_clip_is_asked_about_as_it_is_given(answerer, videos):
    """Another sound under the same picture is another prefix: what is asked about is the clip, not the file."""
    plain = look(answerer, videos / "a.mp4")
    other = load_clip(videos / "c.mp4", frame_size=(SIDE, SIDE))
    swapped = look(answerer, videos / "a.mp4", waveform_S=other.waveform_S[: len(plain.clip.waveform_S)])
    assert swapped.seen == plain.seen
    options = asked(PROMPTS[2], "yes.", "no.")
    assert answerer.text_scores(plain, [options]) != answerer.text_scores(swapped, [options])


def test_a_video_too_long_for_the_model_is_an_error(answerer, videos, monkeypatch):
    monkeypatch.setattr(answerer.model.config.text_config, "max_position_embeddings", 530)
    with pytest.raises(UserError, match="tokens of video, expected at most 18"):  # 530 - 512
        look(answerer, videos / "a.mp4")


def test_generate_and_a_shared_prefix_agree_token_by_token(answerer, videos):
    looked = look(answerer, videos / "c.mp4")
    media = answerer.model.align(media_of(answerer, looked.clip))
    prompts = [
        (encode_chat(answerer.tokenizer, [(prompt, None)], media.ids, answerer.prompter.chat).ids, media)
        for prompt in PROMPTS
    ]
    apart = generate(answerer.model, prompts, max_new_tokens=12, eos_ids=answerer.prompter.end_ids)
    texts = [answerer.tokenizer.decode(answer.ids, skip_special_tokens=True).strip() for answer in apart]
    assert [reply.text for reply in answerer.reply(looked, PROMPTS, max_new_tokens=12)] == texts
