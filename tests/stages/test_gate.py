"""What the gate measures besides error rates."""

import math
from pathlib import Path

import pytest
import torch

from avcap.cli.material import questions_of
from avcap.data.qa_files import VideoQuestion
from avcap.infer.answer import Answerer
from avcap.infer.captioner import Captioner
from avcap.infer.request import Request
from avcap.judge.ingest import read_truth
from avcap.records import Decoding, Sample
from avcap.stages.gate import answer_questions, ask_as_it_can, caption_logprobs, distinct_ngrams

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_distinct_ngrams_by_hand():
    # "a b a b a b" has the 2-grams ab ba ab ba ab: 2 of 5 are distinct
    assert distinct_ngrams(["a b a b a b"], length=2) == pytest.approx(2 / 5)
    # each alone is all distinct, together the second adds nothing: 2 of 4
    assert distinct_ngrams(["a b c", "A b c"], length=2) == pytest.approx(2 / 4)
    assert distinct_ngrams(["a"], length=2) == 1.0 and distinct_ngrams([], length=2) == 1.0


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner("tiny-sft")


def test_log_probs_of_captions_are_those_of_one_by_one(captioner):
    samples = [Sample(sample_id=p.name, video=str(p), prompt="") for p in sorted(EXAMPLES.glob("*.mp4"))[:2]]
    request = Request(decoding=Decoding(max_new_tokens=60))
    captions = list(captioner.stream(samples, request))
    together = caption_logprobs(captioner, samples, captions)
    alone = [caption_logprobs(captioner, [s], [c])[0] for s, c in zip(samples, captions, strict=True)]
    for (both, n_both), (one, n_one) in zip(together, alone, strict=True):
        assert both == pytest.approx(one, rel=1e-4) and n_both == n_one
    # what the model itself says greedily is likely, the words backwards are not
    backwards = [type(c)(**{**vars(c), "text": " ".join(reversed(c.text.split()))}) for c in captions]
    likely = sum(total for total, _ in together) / sum(number for _, number in together)
    unlikely = caption_logprobs(captioner, samples, backwards)
    assert math.exp(-likely) < 2 < 10 < math.exp(-sum(t for t, _ in unlikely) / sum(n for _, n in unlikely))
    assert torch.is_grad_enabled()


def test_questions_are_answered_in_order_and_kept(captioner, tmp_path):
    questions = questions_of(read_truth(EXAMPLES / "truth.jsonl"), None)
    path = tmp_path / "answers.jsonl"
    found = answer_questions(captioner, questions, path=path)
    assert len(found) == len(questions) and sum(right for _, right in found) / len(found) > 0.6
    before = path.read_bytes()
    assert answer_questions(captioner, questions, path=path) == found and path.read_bytes() == before
    assert answer_questions(captioner, [], path=path) == []


def test_a_model_that_knows_letters_is_shown_options_and_learns_the_letter(captioner, monkeypatch):
    question = VideoQuestion(
        question_id="q", video="a.mp4", kind="k", text="What rings?", answer="a bell", options=("a dog", "a bell"),
        answer_index=1,
    )  # fmt: skip
    (plain,) = ask_as_it_can(captioner, [question])  # the tiny vocabulary has no letters
    assert (plain.sample.prompt, plain.answer, plain.is_right("a bell")) == ("What rings?", "a bell", True)
    monkeypatch.setattr(Answerer, "knows_letters", True)
    (shown,) = ask_as_it_can(captioner, [question])
    assert "B. a bell" in shown.sample.prompt and shown.answer == "B"
    assert shown.is_right(shown.answer) and not shown.is_right("A")
