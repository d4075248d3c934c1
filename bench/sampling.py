"""Eight captions of one video: what sharing the prompt is worth.

    PYTHONPATH=src OMP_NUM_THREADS=1 python bench/sampling.py [--rounds 3] [--prompt 1024] [--new 128] [--answers 8]

Side by side, interleaved, minimum of the rounds, CPU seconds at one thread, on a Qwen2 of random weights (8 layers,
width 512, 8 query heads on 2 key heads, 32000 tokens): transformers' `generate` called once per answer, and once with
num_return_sequences; ours called once per answer, and once for all. `--calls 1` times only so many of the separate
calls, which are all alike, and multiplies. Printed besides: whether our answers are those of separate seeded calls, and
our greedy answer is transformers'.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import Qwen2Config

from avcap.infer.generate import Generated, Prompt, generate
from avcap.model import Salmonn2ForCaptioning
from avcap.model.salmonn2.tiny import tiny_config

VOCAB_SIZE = 32_000
SHARPNESS = 25.0  # of the logits: random weights find all tokens alike, and then rounding decides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=1024, help="tokens of the prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--calls", type=int, default=0, help="separate calls to time; 0: one for each answer")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = random_model()
    ids = torch.randint(0, VOCAB_SIZE, (arguments.prompt,), generator=torch.Generator().manual_seed(1)).tolist()
    seeds = list(range(arguments.answers))
    called = seeds[: arguments.calls or len(seeds)]
    candidates: dict[str, Callable[[], list[Generated] | None]] = {
        "ours, all from one prompt": lambda: ours(model, ids, arguments.new, seeds=seeds),
        "transformers, num_return_sequences": lambda: theirs(model, ids, arguments.new, count=len(seeds)),
        "ours, called for each": lambda: [ours(model, ids, arguments.new, seeds=[seed])[0] for seed in called],
        "transformers, called for each": lambda: [theirs(model, ids, arguments.new, count=1) for _ in called] and None,
    }
    seconds, answers = measure(candidates, rounds=arguments.rounds)
    for name in ("ours, called for each", "transformers, called for each"):
        seconds[name] *= len(seeds) / len(called)
    best = seconds["ours, all from one prompt"]
    print(f"{arguments.prompt} + {arguments.new} tokens, {len(seeds)} answers, best of {arguments.rounds} rounds:")
    for name, value in seconds.items():
        tokens = len(seeds) * arguments.new
        print(f"  {name:36} {value:7.2f} CPU s {tokens / value:6.0f} tokens/s   {value / best:5.2f} x")
    separate, together = answers["ours, called for each"], answers["ours, all from one prompt"]
    same = sum(one == other for one, other in zip(separate, together, strict=False))
    print(f"answers that are those of separate seeded calls: {same} of {len(separate)}")
    greedy = theirs_greedy(model, ids, arguments.new)
    (our_greedy,) = generate(model, [(ids, None)], max_new_tokens=arguments.new, eos_ids=())
    print(f"greedy answer is that of transformers: {our_greedy.ids == greedy}")


def random_model() -> Salmonn2ForCaptioning:
    """A captioner whose language model has the size of the measurements in question; the rest of it stays idle."""
    torch.manual_seed(0)
    config = tiny_config(vocab_size=VOCAB_SIZE, time_token_ids=range(20))
    config.text_config = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = Salmonn2ForCaptioning(config).eval()
    with torch.no_grad():
        model.language_model.lm_head.weight.mul_(SHARPNESS)
    return model


def ours(model: Salmonn2ForCaptioning, ids: list[int], num_new: int, *, seeds: list[int]) -> list[Generated]:
    prompt: Prompt = (ids, None)
    return generate(
        model,
        [prompt],
        max_new_tokens=num_new,
        eos_ids=(),
        temperature=1.0,
        seeds=seeds,
        answers_per_prompt=len(seeds),
    )


def theirs(model: Salmonn2ForCaptioning, ids: list[int], num_new: int, *, count: int) -> None:
    their_generate(model, ids, num_new, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=count)


def theirs_greedy(model: Salmonn2ForCaptioning, ids: list[int], num_new: int) -> list[int]:
    return their_generate(model, ids, num_new, do_sample=False)[0, len(ids) :].tolist()


def their_generate(model: Salmonn2ForCaptioning, ids: list[int], num_new: int, **settings: Any) -> torch.Tensor:
    ids_1L = torch.tensor([ids])
    return model.language_model.generate(
        ids_1L, attention_mask=torch.ones_like(ids_1L), max_new_tokens=num_new, pad_token_id=0, **settings
    )


def measure(
    candidates: dict[str, Callable[[], list[Generated] | None]], *, rounds: int
) -> tuple[dict[str, float], dict[str, list[Generated]]]:
    """Candidates, run in turn -> least CPU seconds of each, and the answers of those that give some."""
    seconds = dict.fromkeys(candidates, float("inf"))
    answers: dict[str, list[Generated]] = {}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            began = time.process_time()
            found = candidate()
            seconds[name] = min(seconds[name], time.process_time() - began)
            if found:
                answers[name] = found
            print(f"  ... {name}: {seconds[name]:.2f} CPU s", flush=True)
    return seconds, answers


if __name__ == "__main__":
    main()
