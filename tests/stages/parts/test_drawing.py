"""What a round asks its model."""

from dataclasses import replace

from avcap.data.qa_files import VideoQuestion
from avcap.records import Sample
from avcap.stages.parts.drawing import SamplingConfig

WHOLE = [Sample(sample_id=f"{i}", video=f"{i}.mp4", prompt="") for i in range(20)]
LOCAL = [replace(one, sample_id=f"{one.sample_id} local", interval_s=(0.0, 2.0)) for one in WHOLE[:10]]


def num_drawn(samples: list[Sample], **sampling) -> tuple[int, int]:
    """-> global and local prompts of a round."""
    prompts = SamplingConfig(**sampling).draw_prompts(samples, seed=0, round_number=1)
    assert len({sample.sample_id for sample in prompts}) == len(prompts)
    num_local = sum(sample.interval_s is not None for sample in prompts)
    return len(prompts) - num_local, num_local


def test_a_round_has_its_share_of_local_prompts_as_far_as_there_are_some():
    both = [*WHOLE, *LOCAL]
    assert num_drawn(both, num_prompts=11, local_share=0.25) == (8, 3)  # 11 x 0.25 = 2.75
    assert num_drawn(both, num_prompts=24, local_share=0.5) == (14, 10)  # 12 wanted, but there are 10
    assert num_drawn(both, num_prompts=400, local_share=0.25) == (20, 10)  # no more than there are
    assert num_drawn(WHOLE, num_prompts=8, local_share=0.25) == (8, 0)
    assert num_drawn(both, num_prompts=8, local_share=0.0) == (8, 0)


def test_prompts_are_drawn_anew_for_each_round_and_seed_and_always_the_same_for_one():
    def names(round_number: int, seed: int) -> list[str]:
        drawn = SamplingConfig(num_prompts=12).draw_prompts([*WHOLE, *LOCAL], seed=seed, round_number=round_number)
        return [sample.sample_id for sample in drawn]

    drawn = [names(round_number, seed) for round_number in (1, 2) for seed in (0, 1)]
    assert len({tuple(sorted(one)) for one in drawn}) == 4 and names(1, 0) == drawn[0]


def test_questions_of_a_round_are_as_many_as_its_number_says_and_the_last_number_holds_on():
    questions = [VideoQuestion(question_id=str(i), video="v", kind="k", text="?", answer="a") for i in range(9)]
    sampling = SamplingConfig(num_questions=(0, 4, 20))
    drawn = [sampling.draw_questions(questions, seed=0, round_number=number) for number in (1, 2, 3, 4)]
    assert [len(found) for found in drawn] == [0, 4, 9, 9]  # no more than there are
    again = SamplingConfig(num_questions=(4,))
    assert again.draw_questions(questions, seed=0, round_number=2) == drawn[1]
    assert again.draw_questions(questions, seed=1, round_number=2) != drawn[1]


def test_no_answer_of_any_round_has_the_seed_of_another():
    sampling = SamplingConfig(captions_per_prompt=6, temperature=0.9, top_p=0.8)
    seeds = []
    for seed in (0, 1):
        for round_number in (1, 2, 3):
            decoding = sampling.request(max_new_tokens=30, seed=seed, round_number=round_number).decoding
            seeds += range(decoding.seed, decoding.seed + 6)  # answer k draws from seed + k
            assert (decoding.temperature, decoding.top_p, decoding.max_new_tokens) == (0.9, 0.8, 30)
    assert len(set(seeds)) == 2 * 3 * 6
