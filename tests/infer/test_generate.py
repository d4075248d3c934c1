import pytest
import torch

from avcap.infer.generate import Generated, generate, sample_nucleus
from avcap.model import MediaFeatures, Salmonn2ForCaptioning
from avcap.model.tiny import tiny_config

# Untrained answers are all but uniform: with 2 of 64 tokens as ends, some of them end within 24 tokens and some do not.
VOCAB_SIZE, ENDS, NUM_NEW = 64, range(2), 24


@pytest.fixture(scope="module")
def model() -> Salmonn2ForCaptioning:
    torch.manual_seed(0)
    model = Salmonn2ForCaptioning(tiny_config(vocab_size=VOCAB_SIZE, time_token_ids=range(20))).eval()
    with torch.no_grad():
        for parameter in model.language_model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)  # logits with clear winners, so that rounding decides nothing
    return model


@pytest.fixture(scope="module")
def prompts(model):
    """Rows of different lengths: picture, sound, both, text alone."""
    generator = torch.Generator().manual_seed(2)

    def prompt(frames: int, chunks: int, text: list[int]):
        clip = MediaFeatures(
            vision_TNV=torch.randn(frames, 4, 96, generator=generator) if frames else None,
            frame_times_T=[float(frame) for frame in range(frames)],
            sound_KPA=torch.randn(chunks, 50, 96, generator=generator) if chunks else None,
            audio_seconds=float(chunks),
        )
        with torch.no_grad():
            tokens = model.align(clip)
        return [9, *tokens.ids, *text], tokens

    return [prompt(3, 3, [10, 11]), prompt(0, 5, [12]), prompt(6, 2, [13]), ([9, 10, 11], None), prompt(1, 1, [14])]


@torch.no_grad()
def by_full_forward(model, prompt, num_new: int) -> list[int]:
    """Greedy answer without any cache: the whole row is read again for every token."""
    ids, media = prompt
    answer: list[int] = []
    for _ in range(num_new):
        logits = model(torch.tensor([[*ids, *answer]]), [media]).logits
        answer.append(logits[0, -1].argmax().item())
    return answer


def test_cache_gives_the_answers_of_full_forwards(model, prompts):
    answers = generate(model, prompts, max_new_tokens=NUM_NEW, eos_ids=())
    assert [answer.ids for answer in answers] == [by_full_forward(model, prompt, NUM_NEW) for prompt in prompts]
    assert not any(answer.finished for answer in answers)


def test_greedy_batch_is_the_same_as_one_by_one(model, prompts):
    answers = generate(model, prompts, max_new_tokens=NUM_NEW, eos_ids=ENDS)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert generate(model, [prompt], max_new_tokens=NUM_NEW, eos_ids=ENDS) == [answer]


def test_sampled_answers_do_not_depend_on_the_batch(model, prompts):
    settings = {"max_new_tokens": NUM_NEW, "eos_ids": ENDS, "temperature": 1.0, "top_p": 0.9}
    seeds = list(range(100, 100 + 3 * len(prompts)))
    answers = generate(model, prompts, seeds=seeds, answers_per_prompt=3, rows_at_once=6, **settings)
    assert {answer.finished for answer in answers} == {True, False}
    for row, answer in enumerate(answers):
        assert generate(model, [prompts[row // 3]], seeds=[seeds[row]], **settings) == [answer]


def test_answers_to_one_prompt_differ_by_their_seeds(model, prompts):
    settings = {"max_new_tokens": NUM_NEW, "eos_ids": (), "temperature": 2.0}
    first, second, again = generate(model, prompts[:1], seeds=[1, 2, 1], answers_per_prompt=3, **settings)
    assert first == again != second


def test_an_end_token_ends_the_answer_and_is_not_part_of_it(model, prompts):
    (free,) = generate(model, prompts[:1], max_new_tokens=NUM_NEW, eos_ids=())
    end = free.ids[3]
    first_end = free.ids.index(end)
    assert generate(model, prompts[:1], max_new_tokens=NUM_NEW, eos_ids=[end]) == [
        Generated(free.ids[:first_end], True)
    ]


def test_repetition_penalty_weakens_what_was_said(model, prompts):
    ids, media = prompts[0]
    (plain,) = generate(model, [(ids, media)], max_new_tokens=2, eos_ids=())
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, plain.ids[0]]]), [media]).logits[0, -1]
    said = plain.ids[0]
    logits[said] = logits[said] / 1.7 if logits[said] > 0 else logits[said] * 1.7
    (penalised,) = generate(model, [(ids, media)], max_new_tokens=2, eos_ids=(), repetition_penalty=1.7)
    assert penalised.ids == [said, logits.argmax().item()]


def test_nucleus_holds_the_fewest_tokens_that_reach_top_p():
    probs_RV = torch.tensor([[0.1, 0.5, 0.4]]).double()
    # sorted .5 .4 .1; top_p .6 keeps .5 and .4, so a draw below .5/.9 = .556 is token 1 and one above it token 2
    for uniform, token in ((0.0, 1), (0.55, 1), (0.56, 2), (0.999, 2)):
        assert sample_nucleus(probs_RV, uniform_R=torch.tensor([uniform]).double(), top_p=0.6).tolist() == [token]
    # everything kept: .5, .9, 1.0
    assert sample_nucleus(probs_RV, uniform_R=torch.tensor([0.95]).double(), top_p=1.0).tolist() == [0]
    # a nucleus always holds the likeliest token
    assert sample_nucleus(probs_RV, uniform_R=torch.tensor([0.95]).double(), top_p=0.01).tolist() == [1]


def test_samples_follow_the_probabilities():
    probs_V = torch.tensor([0.2, 0.0, 0.5, 0.3]).double()
    uniform_R = (torch.arange(1000) + 0.5).double() / 1000
    tokens_R = sample_nucleus(probs_V.expand(1000, -1), uniform_R=uniform_R, top_p=1.0)
    assert tokens_R.bincount(minlength=4).tolist() == [200, 0, 500, 300]


def test_misuse_is_an_error(model, prompts):
    with pytest.raises(ValueError, match="got 1, wanted one for each of 2"):
        generate(model, prompts[:2], max_new_tokens=1, eos_ids=(), temperature=1.0, seeds=[0])
    model.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            generate(model, prompts[:1], max_new_tokens=1, eos_ids=())
    finally:
        model.eval()


def test_no_prompts_no_answers(model):
    assert generate(model, [], max_new_tokens=1, eos_ids=()) == []
