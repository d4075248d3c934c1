"""Losses by hand: two pairs with log-probs whose margins are round numbers."""

import math

import pytest
import torch

from avcap.errors import UserError
from avcap.train.losses import PreferenceConfig, StepSize, preference_loss
from avcap.train.packing import AnswerLogprobs, ExampleLogprobs
from avcap.train.preference_steps import check_fresh_start


def answer(total: float, num_tokens: int = 10) -> AnswerLogprobs:
    return AnswerLogprobs(total=torch.tensor(total, requires_grad=True), num_tokens=num_tokens)


def pair(chosen: float, rejected: float, *, target: AnswerLogprobs | None = None) -> ExampleLogprobs:
    return ExampleLogprobs(chosen=answer(chosen, 10), rejected=answer(rejected, 20), target=target)


POLICY = [pair(-10.0, -40.0, target=answer(-6.0, 12)), pair(-20.0, -20.0, target=answer(-14.0, 28))]
TARGET = [pair(-20.0, -30.0), pair(-20.0, -30.0)]
# log-ratios: chosen +10, rejected -10: 20; chosen 0, rejected +10: -10. beta .1: margins 2 and -1
PLAIN = PreferenceConfig(beta=0.1, guidance_weight=0.0)


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def test_dpo_is_the_mean_of_minus_log_sigmoid_of_the_margins():
    output = preference_loss(POLICY, TARGET, PLAIN)
    assert output.loss.item() == pytest.approx((-log_sigmoid(2) - log_sigmoid(-1)) / 2)
    assert output.metrics["preference"] == pytest.approx(output.loss.item())


def test_guidance_adds_cross_entropy_per_token_of_the_reference_captions():
    guided = preference_loss(POLICY, TARGET, PreferenceConfig(beta=0.1, guidance_weight=0.3))
    # (6 + 14) nats over 12 + 28 tokens: 0.5
    assert guided.metrics["guidance"] == pytest.approx(0.5)
    plain = preference_loss(POLICY, TARGET, PLAIN)
    assert guided.loss.item() == pytest.approx(plain.loss.item() + 0.3 * 0.5)
    assert plain.metrics["guidance"] == pytest.approx(0.5)  # told, not learned


def test_label_smoothing_takes_some_pairs_for_the_wrong_way_round():
    output = preference_loss(POLICY, TARGET, PreferenceConfig(beta=0.1, guidance_weight=0.0, label_smoothing=0.2))
    expected = [-0.8 * log_sigmoid(margin) - 0.2 * log_sigmoid(-margin) for margin in (2, -1)]
    assert output.loss.item() == pytest.approx(sum(expected) / 2)


def test_ipo_pulls_the_log_ratios_to_one_over_two_beta():
    output = preference_loss(POLICY, TARGET, PreferenceConfig(loss="ipo", beta=0.1, guidance_weight=0.0))
    # 1 / (2 * .1) = 5: (20 - 5)^2 = 225, (-10 - 5)^2 = 225
    assert output.loss.item() == pytest.approx(225.0)


def test_length_normalised_takes_log_probs_per_token():
    config = PreferenceConfig(beta=1.0, guidance_weight=0.0, length_normalised=True)
    output = preference_loss(POLICY, TARGET, config)
    # chosen of 10 tokens, rejected of 20: 10 / 10 + 10 / 20 = 1.5; 0 - 10 / 20 = -.5
    assert output.loss.item() == pytest.approx((-log_sigmoid(1.5) - log_sigmoid(-0.5)) / 2)


def test_sft_is_the_cross_entropy_alone_and_needs_no_ref_policy():
    output = preference_loss(POLICY, [ExampleLogprobs()] * 2, PreferenceConfig(loss="sft", guidance_weight=0.0))
    assert output.loss.item() == pytest.approx(0.5)
    assert not any(name.startswith("rewards/") for name in output.metrics)


def test_the_figures_have_the_names_people_look_for():
    metrics = preference_loss(POLICY, TARGET, PLAIN).metrics
    # rewards: .1 * (10, 0) and .1 * (-10, 10); margins 2 and -1, of which one is right
    assert metrics["rewards/chosen"] == pytest.approx(0.5)
    assert metrics["rewards/rejected"] == pytest.approx(0.0)
    assert metrics["rewards/margins"] == pytest.approx(0.5)
    assert metrics["rewards/accuracies"] == pytest.approx(0.5)
    assert metrics["logps/chosen"] == pytest.approx(-15.0)
    assert metrics["logps/rejected"] == pytest.approx(-30.0)


def test_gradients_reach_the_policy_and_not_the_ref_policy():
    policy, target = [pair(-10.0, -40.0)], [pair(-20.0, -30.0)]
    preference_loss(policy, target, PLAIN).loss.backward()
    slope = -0.1 * (1 - 1 / (1 + math.exp(-2)))  # -beta * sigmoid(-margin)
    assert policy[0].chosen.total.grad.item() == pytest.approx(slope)
    assert policy[0].rejected.total.grad.item() == pytest.approx(-slope)
    assert target[0].chosen.total.grad is None


def test_examples_without_a_pair_count_in_the_guidance_alone():
    alone = ExampleLogprobs(target=answer(-9.0, 10))
    output = preference_loss([POLICY[0], alone], [TARGET[0], ExampleLogprobs()], PreferenceConfig(beta=0.1))
    # one pair of margin 2; (6 + 9) nats over 12 + 10 tokens
    assert output.loss.item() == pytest.approx(-log_sigmoid(2) + 0.1 * 15 / 22)
    assert output.counts["guidance/captions"] == 2
    assert output.num_tokens == 10 + 20 + 12 + 10


def test_without_reference_captions_guidance_is_off_and_said():
    output = preference_loss([pair(-10.0, -40.0)], [TARGET[0]], PreferenceConfig(guidance_weight=1.0))
    assert output.loss.item() == pytest.approx(-log_sigmoid(2))
    assert output.counts["guidance/captions"] == 0 and "guidance" not in output.metrics


def test_microbatches_have_their_share_of_the_step():
    config = PreferenceConfig(beta=0.1, guidance_weight=0.3)
    whole = preference_loss(POLICY, TARGET, config)
    num_tokens = sum(one.target.num_tokens for one in POLICY)
    step = StepSize(num_pairs=len(POLICY), num_guided_tokens=num_tokens)
    parts = [preference_loss([one], [ref], config, step=step) for one, ref in zip(POLICY, TARGET, strict=True)]
    assert len(parts) == 2
    assert sum(part.loss.item() for part in parts) == pytest.approx(whole.loss.item(), rel=1e-6)


def test_nothing_to_learn_is_an_error():
    with pytest.raises(UserError, match="nothing to learn: 1 examples"):
        preference_loss([pair(-10.0, -40.0)], [TARGET[0]], PreferenceConfig(loss="sft"))


def test_a_pair_without_ref_logprobs_is_an_error():
    with pytest.raises(UserError, match="without reference log-probs"):
        preference_loss(POLICY, [TARGET[0], ExampleLogprobs()], PLAIN)


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_a_fresh_start_is_checked(loss):
    config = PreferenceConfig(loss=loss, beta=0.1, guidance_weight=0.0)
    fresh = preference_loss(TARGET, TARGET, config)
    # margin 0: -log sigmoid(0) = ln 2 = 0.6931; (0 - 5)^2 = 25
    assert fresh.loss.item() == pytest.approx(math.log(2) if loss == "dpo" else 25.0, abs=1e-4)
    # neither answer is ahead yet, and a tie is not right
    assert fresh.metrics["rewards/accuracies"] == 0
    check_fresh_start(fresh, config)
    with pytest.raises(UserError, match=r"first step of the round: preference loss.*rewards/chosen 0\.5"):
        check_fresh_start(preference_loss(POLICY, TARGET, config), config)


def test_rewards_that_cancel_are_not_a_fresh_start():
    """Both answers 5 nats off: the margin is 0 and the loss ln 2, and yet the reference is not this model's."""
    shifted = preference_loss([pair(-15.0, -25.0)], [TARGET[0]], PLAIN)
    assert shifted.loss.item() == pytest.approx(math.log(2))
    with pytest.raises(UserError, match=r"rewards/rejected 0\.5"):
        check_fresh_start(shifted, PLAIN)


@pytest.mark.parametrize("chosen, rejected", [(math.nan, -30.0), (-20.0, math.nan), (math.nan, math.nan)])
def test_rewards_that_are_no_numbers_are_not_a_fresh_start(chosen, rejected):
    broken = preference_loss([pair(chosen, rejected)], [TARGET[0]], PLAIN)
    with pytest.raises(UserError, match="first step of the round: preference loss nan"):
        check_fresh_start(broken, PLAIN)


@pytest.mark.parametrize(
    "wrong",
    [
        {"beta": 0.0},
        {"label_smoothing": 0.5},
        {"guidance_weight": -1.0},
        {"loss": "hinge"},
        {"loss": "ipo", "label_smoothing": 0.1},
    ],
)
def test_settings_out_of_range_are_errors(wrong):
    with pytest.raises(UserError, match=f"{list(wrong)[-1]}: got"):
        PreferenceConfig(**wrong)
