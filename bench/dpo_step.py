"""What does one guided DPO step cost when the video is read once, against rows that read it for every answer?

    python bench/dpo_step.py [--prompt 2048] [--answer 128] [--layers 4] [--rounds 3] [--curve] [--trl]

One process, one thread, the same model, batch and loss; candidates take turns. Prints for each: loss, distance of its
LoRA gradients from the first one's, CPU seconds (least of the rounds), peak memory above the model's. `--curve` adds
other lengths and numbers of answers beside the FLOP formula; `--trl` TRL's DPOTrainer (pip install -e ".[bench]").
"""

import argparse
import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from avcap.train.losses import PreferenceConfig, preference_loss
from avcap.train.packing import (
    ExampleLogprobs,
    PackedBatch,
    PairExample,
    SplitConcat,
    answer_token_logprobs,
    pack,
    read_row,
    split_logprobs,
)

HIDDEN, HEADS, KV_HEADS, INTERMEDIATE, VOCAB = 512, 8, 2, 1408, 8192
CONFIG = PreferenceConfig(beta=0.1, guidance_weight=0.1)
Step = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Measured:
    loss: float
    gradients: Tensor
    cpu_s: float
    peak_mb: float


def make_model(num_layers: int) -> Any:
    """-> a PEFT model: Qwen2 with random weights and a LoRA that is not fresh on all its linear layers."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCAB,
            hidden_size=HIDDEN,
            intermediate_size=INTERMEDIATE,
            num_hidden_layers=num_layers,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            max_position_embeddings=32768,
            tie_word_embeddings=False,
        )
    )
    peft_model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    with torch.no_grad():
        for name, param in peft_model.named_parameters():
            if "lora_B" in name:
                param.normal_(std=0.02)
    return peft_model.eval()


def make_example(prompt: int, answers: list[int]) -> PairExample:
    ids = [torch.randint(0, VOCAB, (length,)).tolist() for length in (prompt, *answers)]
    return PairExample(
        sample_id="bench",
        prompt_ids=ids[0],
        chosen_ids=ids[1],
        rejected_ids=ids[2],
        target_ids=ids[3] if len(ids) > 3 else None,
    )


def shared_logprobs(model: Any, packed: PackedBatch) -> list[ExampleLogprobs]:
    base = model.get_base_model()
    ids = [i for example in packed.examples for part in (example.prompt_ids, *example.answers) for i in part]
    embeds_1LD = base.model.embed_tokens(torch.tensor([ids]))
    row = SplitConcat(packed.groups, like=embeds_1LD)
    hidden_LD = read_row(base.model, embeds_1LD=embeds_1LD, positions=packed.positions, row=row)
    return split_logprobs(answer_token_logprobs(base.lm_head, hidden_LD, packed), packed)


def rows_logprobs(model: Any, packed: PackedBatch) -> list[ExampleLogprobs]:
    """Rows [prompt | answer], padded right to the longest; head on answer positions alone, as with the packed row."""
    base = model.get_base_model()
    rows = [[*example.prompt_ids, *answer] for example in packed.examples for answer in example.answers]
    prompts = [len(example.prompt_ids) for example in packed.examples for _ in example.answers]
    longest = max(map(len, rows))
    ids_BL = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    hidden_BLD = base.model(ids_BL, use_cache=False).last_hidden_state
    places = [
        index * longest + place
        for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
        for place in range(prompt - 1, len(row) - 1)
    ]
    of_rows = replace(packed, predictor_T=torch.tensor(places))
    return split_logprobs(answer_token_logprobs(base.lm_head, hidden_BLD.flatten(0, 1), of_rows), of_rows)


def make_step(
    model: Any, packed: PackedBatch, read: Callable, *, stored: list[ExampleLogprobs] | None, guide_by_chosen: bool
) -> Step:
    """-> function that computes the loss; without `stored` it computes the reference log-probs as well.

    Nothing is stored for the reference caption, and none is read for it in a reference forward.
    """
    without = pack([replace(example, target_ids=None) for example in packed.examples])

    def step() -> Tensor:
        target = stored
        if target is None:
            with torch.no_grad(), model.disable_adapter():
                target = read(model, without)
        logprobs = read(model, packed)
        if guide_by_chosen:
            logprobs = [replace(one, target=one.chosen) for one in logprobs]
        return preference_loss(logprobs, target, CONFIG).loss

    return step


def trl_steps(model: Any, packed: PackedBatch, stored: list[ExampleLogprobs]) -> dict[str, Step]:
    """TRL's own loss on the same pairs: DPO + 0.1 x cross-entropy on the chosen answer (it has no third text)."""
    import trl.trainer.utils as trl_utils
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    words = Tokenizer(models.WordLevel({"a": 0, "<pad>": 1, "<eos>": 2}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    arguments = DPOConfig(
        output_dir="out/bench_trl",
        report_to=[],
        use_cpu=True,
        max_length=None,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, CONFIG.guidance_weight],
        beta=CONFIG.beta,
        per_device_train_batch_size=1,
        bf16=False,
        gradient_checkpointing=False,
    )
    pairs = Dataset.from_list([{"prompt": "a", "chosen": "a a", "rejected": "a"}])
    trainer = DPOTrainer(model, args=arguments, train_dataset=pairs, processing_class=tokenizer)
    if "ref" in model.peft_config:
        model.delete_adapter("ref")  # its copy of a given LoRA; the reference here is the model without one
    model.eval()
    inputs = _trl_inputs(packed)
    ref = {
        "ref_chosen_logps": torch.stack([one.chosen.total for one in stored]),
        "ref_rejected_logps": torch.stack([one.rejected.total for one in stored]),
    }
    on_any_device, real = (lambda device: True), trl_utils._use_triton

    def step(precomputed: bool, compact: bool) -> Step:
        def run() -> Tensor:
            trainer.precompute_ref_logps = precomputed
            # as on a GPU: the head reads answer positions alone
            trl_utils._use_triton = on_any_device if compact else real
            return trainer.compute_loss(trainer.model, inputs | ref if precomputed else dict(inputs))

        return run

    return {
        "TRL, reference each step": step(False, False),
        "TRL, stored reference": step(True, False),
        "TRL, stored, head on answers": step(True, True),
    }


def _trl_inputs(packed: PackedBatch) -> dict[str, Tensor]:
    """What TRL's collator makes of the pairs: all chosen rows, then all rejected ones, padded right."""
    pairs = [(e.prompt_ids, e.chosen_ids) for e in packed.examples]
    pairs += [(e.prompt_ids, e.rejected_ids) for e in packed.examples]
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "completion_mask": []}
    for prompt, answer in pairs:
        padding = [0] * (longest - len(prompt) - len(answer))
        rows["input_ids"].append([*prompt, *answer, *padding])
        rows["attention_mask"].append([1] * (len(prompt) + len(answer)) + padding)
        rows["completion_mask"].append([0] * len(prompt) + [1] * len(answer) + padding)
    return {name: torch.tensor(value) for name, value in rows.items()}


def measure(model: Any, steps: dict[str, Step], *, rounds: int) -> dict[str, Measured]:
    best: dict[str, Measured] = {}
    for _ in range(rounds):
        for name, step in steps.items():
            found = _measure_once(model, step)
            old = best.get(name, found)
            best[name] = replace(found, cpu_s=min(found.cpu_s, old.cpu_s), peak_mb=min(found.peak_mb, old.peak_mb))
    return best


def _measure_once(model: Any, step: Step) -> Measured:
    model.get_base_model().set_attn_implementation("sdpa")  # what the packed row changes is changed anew
    model.zero_grad(set_to_none=True)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before_mb = _memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    began = time.process_time()
    loss = step()
    loss.backward()
    cpu_s = time.process_time() - began
    gradients = torch.cat([param.grad.flatten() for param in model.parameters() if param.grad is not None])
    return Measured(loss=loss.item(), gradients=gradients, cpu_s=cpu_s, peak_mb=_memory_mb("VmHWM") - before_mb)


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def flop_ratio(prompt: int, answer: int, num_answers: int) -> float:
    """Rows over packed row, per layer: linear weights and causal attention."""
    linear = HIDDEN * HIDDEN * 2 + HIDDEN * (HIDDEN // HEADS * KV_HEADS) * 2 + 3 * HIDDEN * INTERMEDIATE
    rows = 2 * linear * num_answers * (prompt + answer) + 4 * HIDDEN * num_answers * (prompt + answer) ** 2 / 2
    pairs = prompt**2 / 2 + num_answers * (prompt * answer + answer**2 / 2)
    return rows / (2 * linear * (prompt + num_answers * answer) + 4 * HIDDEN * pairs)


def show(title: str, found: dict[str, Measured]) -> None:
    """The first one is what the others are compared with."""
    print(f"\n{title}")
    print(f"  {'candidate':38s} {'loss':>12s} {'grad diff':>10s} {'CPU s':>8s} {'speed':>7s} {'MB':>7s} {'of':>6s}")
    first = next(iter(found.values()))
    for name, one in found.items():
        distance = ((one.gradients - first.gradients).norm() / first.gradients.norm()).item()
        print(
            f"  {name:38s} {one.loss:12.7f} {distance:10.1e} {one.cpu_s:8.2f} {first.cpu_s / one.cpu_s:6.2f}x "
            f"{one.peak_mb:7.0f} {one.peak_mb / first.peak_mb:6.0%}",
            flush=True,
        )


def compare_with_rows(model: Any, *, prompt: int, answers: list[int], rounds: int, each_step: bool) -> None:
    packed = pack([make_example(prompt, answers)])
    with torch.no_grad(), model.disable_adapter():
        stored = rows_logprobs(model, packed)
    reads = {"padded rows": rows_logprobs, "packed row": shared_logprobs}
    steps = {
        f"{name}, stored reference": make_step(model, packed, read, stored=stored, guide_by_chosen=False)
        for name, read in reads.items()
    }
    formula = flop_ratio(prompt, answers[0], len(answers))
    show(f"P={prompt} R={answers}: FLOP formula {formula:.2f}x", measure(model, steps, rounds=rounds))
    if each_step:
        steps = {
            "padded rows, reference each step": make_step(
                model, packed, rows_logprobs, stored=None, guide_by_chosen=False
            ),
            "packed row, reference each step": make_step(
                model, packed, shared_logprobs, stored=None, guide_by_chosen=False
            ),
            "packed row, stored reference": steps["packed row, stored reference"],
        }
        show("The same with a reference forward in each step", measure(model, steps, rounds=rounds))


def compare_with_trl(model: Any, *, prompt: int, answer: int, rounds: int) -> None:
    packed = pack([make_example(prompt, [answer, answer])])
    with_caption = pack([make_example(prompt, [answer] * 3)])
    with torch.no_grad(), model.disable_adapter():
        stored, stored_3 = shared_logprobs(model, packed), shared_logprobs(model, with_caption)
    steps = trl_steps(model, packed, stored)
    steps["packed row, stored reference"] = make_step(
        model, packed, shared_logprobs, stored=stored, guide_by_chosen=True
    )
    steps["packed row, reference each step"] = make_step(
        model, packed, shared_logprobs, stored=None, guide_by_chosen=True
    )
    steps["packed row, stored, a third answer"] = make_step(
        model, with_caption, shared_logprobs, stored=stored_3, guide_by_chosen=False
    )
    title = f"TRL: P={prompt} R={answer}, two answers (another loss in the last line)"
    show(title, measure(model, steps, rounds=rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--answer", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--trl", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = make_model(arguments.layers)
    rounds = arguments.rounds
    compare_with_rows(model, prompt=arguments.prompt, answers=[arguments.answer] * 3, rounds=rounds, each_step=True)
    if arguments.curve:
        for prompt, answer, number in (
            (512, 64, 3),
            (512, 128, 3),
            (1024, 128, 2),
            (1024, 128, 3),
            (1024, 256, 3),
            (2048, 64, 3),
            (2048, 128, 2),
            (2048, 256, 3),
        ):
            compare_with_rows(model, prompt=prompt, answers=[answer] * number, rounds=rounds, each_step=False)
    if arguments.trl:
        compare_with_trl(model, prompt=arguments.prompt, answer=arguments.answer, rounds=rounds)


if __name__ == "__main__":
    main()
