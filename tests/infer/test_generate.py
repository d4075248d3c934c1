import pytest
import torch

from avcap.infer.generate import Generated, LoopStop, generate, keep_nucleus, keep_top_k, sample
from avcap.model import MediaFeatures, Salmonn2ForCaptioning
from avcap.model.salmonn2.tiny import tiny_config

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
            audio_KPA=torch.randn(chunks, 50, 96, generator=generator) if chunks else None,
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
    probs_RV = torch.tensor([[0.125, 0.5, 0.375]])
    # sorted .5 .375 .125, mass before each 0, .5, .875
    assert keep_nucleus(probs_RV, top_p=0.6).tolist() == [[0, 0.5, 0.375]]
    assert keep_nucleus(probs_RV, top_p=0.5).tolist() == [[0, 0.5, 0]]
    # a nucleus always holds the likeliest token
    assert keep_nucleus(probs_RV, top_p=0.01).tolist() == [[0, 0.5, 0]]
    # of what top-k left, .875 in all: .5 / .875 = .571 of it is in the first token
    assert keep_nucleus(keep_top_k(probs_RV, top_k=2), top_p=0.57).tolist() == [[0, 0.5, 0]]
    assert keep_nucleus(keep_top_k(probs_RV, top_k=2), top_p=0.58).tolist() == [[0, 0.5, 0.375]]


def test_top_k_keeps_the_likeliest():
    probs_RV = torch.tensor([[0.125, 0.5, 0.375], [0.75, 0.25, 0.0]])
    assert keep_top_k(probs_RV, top_k=1).tolist() == [[0, 0.5, 0], [0.75, 0, 0]]
    assert keep_top_k(probs_RV, top_k=9).tolist() == probs_RV.tolist()


def test_samples_follow_the_probabilities():
    probs_V = torch.tensor([0.2, 0.0, 0.5, 0.3])
    uniform_R = (torch.arange(1000) + 0.5).double() / 1000
    tokens_R = sample(probs_V.expand(1000, -1), uniform_R=uniform_R)
    assert tokens_R.bincount(minlength=4).tolist() == [200, 0, 500, 300]
    # weights need no sum of 1: the half of .5 + .3 ends within token 2, at .5 / .8 = .625 token 3 begins
    kept_RV = torch.tensor([[0.0, 0.0, 0.5, 0.3]])
    for uniform, token in ((0.0, 2), (0.62, 2), (0.63, 3), (0.999, 3)):
        assert sample(kept_RV, uniform_R=torch.tensor([uniform]).double()).tolist() == [token]


@torch.no_grad()
def sampled_by_full_forward(model, prompt, *, seed: int, num_new: int, top_k: int, penalty: float) -> list[int]:
    """Temperature 1, without cache and batch; the draws are those of `generate`, one for each token."""
    ids, media = prompt
    uniform_S = torch.rand(num_new, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    answer: list[int] = []
    for uniform in uniform_S:
        logits_V = model(torch.tensor([[*ids, *answer]]), [media]).logits[0, -1]
        for said in set(answer):
            logits_V[said] = logits_V[said] / penalty if logits_V[said] > 0 else logits_V[said] * penalty
        kept_RV = keep_top_k(logits_V.softmax(dim=-1)[None], top_k=top_k)
        answer.append(sample(kept_RV, uniform_R=uniform[None]).item())
    return answer


@pytest.mark.slow
def test_many_answers_to_several_videos_are_those_of_full_forwards(model, prompts):
    """Shared prompts of several lengths, rows that end at several times, against rows that share nothing."""
    seeds = list(range(4 * len(prompts)))
    answers = generate(
        model,
        prompts,
        max_new_tokens=NUM_NEW,
        eos_ids=ENDS,
        temperature=1.0,
        top_k=9,
        repetition_penalty=1.3,
        seeds=seeds,
        answers_per_prompt=4,
    )
    assert len({len(answer.ids) for answer in answers}) > 3  # else no row was dropped
    for row, answer in enumerate(answers):
        whole = sampled_by_full_forward(
            model, prompts[row // 4], seed=seeds[row], num_new=NUM_NEW, top_k=9, penalty=1.3
        )
        end = next((index for index, token in enumerate(whole) if token in ENDS), None)
        assert answer == Generated(whole[:end], end is not None)


@pytest.mark.parametrize("times", [2, 3])
def test_an_answer_that_goes_in_circles_is_stopped_and_unfinished(model, prompts, times):
    # token 7 wins whatever was said: its bias is larger than any logit
    def only_seven(module, arguments, output):
        output.logits[..., 7] += 1000.0
        return output

    hook = model.language_model.register_forward_hook(only_seven)
    try:
        (free,) = generate(model, prompts[:1], max_new_tokens=NUM_NEW, eos_ids=())
        (stopped,) = generate(
            model, prompts[:1], max_new_tokens=NUM_NEW, eos_ids=(), loop_stop=LoopStop(ngram=3, times=times)
        )
    finally:
        hook.remove()
    assert free.ids == [7] * NUM_NEW
    # 777 is there after 3 tokens and again with each further one: the k-th time after 3 + k - 1
    assert stopped == Generated([7] * (3 + times - 1), False)


def test_a_stopped_row_leaves_its_neighbours_as_they_are(model, prompts):
    settings = {"max_new_tokens": NUM_NEW, "eos_ids": (), "temperature": 0.6, "seeds": range(12)}
    free = generate(model, prompts[:3], answers_per_prompt=4, **settings)
    stopped = generate(model, prompts[:3], answers_per_prompt=4, loop_stop=LoopStop(ngram=1, times=3), **settings)
    expected = []
    for answer in free:
        third = [index for index, token in enumerate(answer.ids) if answer.ids[: index + 1].count(token) == 3]
        expected.append(Generated(answer.ids[: third[0] + 1] if third else answer.ids, False))
    assert stopped == expected != free


def test_misuse_is_an_error(model, prompts):
    with pytest.raises(ValueError, match="got 1, expected one for each of 2"):
        generate(model, prompts[:2], max_new_tokens=1, eos_ids=(), temperature=1.0, seeds=[0])
    with pytest.raises(ValueError, match="ngram=0"):
        LoopStop(ngram=0, times=4)
    model.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            generate(model, prompts[:1], max_new_tokens=1, eos_ids=())
    finally:
        model.eval()


def test_no_prompts_no_answers(model):
    assert generate(model, [], max_new_tokens=1, eos_ids=()) == []
