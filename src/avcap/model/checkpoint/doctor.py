"""What a checkpoint is, whether it is whole, and what it takes to run it: from its small files and headers alone."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from avcap.errors import UserError
from avcap.model.checkpoint.convert import LORA, check_adapter_config, overlay_values, plain_name
from avcap.model.checkpoint.layouts import ADAPTER, TRAINING, Checkpoint, check_tokenizer_files, identify
from avcap.model.checkpoint.load import Source, check_fit, load_tokenizer, open_source, skeleton
from avcap.model.checkpoint.placement import (
    QUANTIZED_BYTES,
    DevicePlacement,
    available_bytes,
    describe_bytes,
    describe_count,
)
from avcap.model.salmonn2_plus.keys import NOT_IN_ADAPTERS

NUM_NAMED = 5


@dataclass(kw_only=True)
class Report:
    """What was found: lines of (what, finding), and what keeps the checkpoint from being run as it is."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def say(self, what: str, finding: str) -> None:
        self.lines.append((what, finding))

    def try_to(self, check: Callable[[], object]) -> None:
        """Runs a check; the line that it fails with is one of the problems."""
        try:
            check()
        except UserError as error:
            self.problems.append(str(error))


def examine(path: Path, *, base: Path | None = None) -> Report:
    """Path of anything -> what it is. UserError, one line, where it is no checkpoint at all or half a download."""
    checkpoint = identify(path)
    report = Report()
    report.say("layout", f"{checkpoint.layout}{checkpoint.layout.notes_of(checkpoint.tensors)}")
    _describe_files(checkpoint, report)
    if checkpoint.layout.runs:
        report.try_to(lambda: _describe_model(checkpoint, report))
    elif checkpoint.layout is ADAPTER:
        report.try_to(lambda: _describe_adapter(checkpoint, base, report))
    if not checkpoint.layout.runs:
        report.say("to run it", checkpoint.layout.what_to_do.format(path=checkpoint.path))
    return report


def _describe_files(checkpoint: Checkpoint, report: Report) -> None:
    if checkpoint.layout is TRAINING:
        size = describe_bytes(checkpoint.path.stat().st_size)
        report.say("weights", f"a pickle of {size}, not opened here; avcap convert reads it in a process apart")
        return
    tensors = checkpoint.tensors.values()
    files = Counter(tensor.file.name for tensor in tensors)
    by_type: Counter[str] = Counter()
    for tensor in tensors:
        by_type[tensor.dtype] += tensor.num_bytes
    parts = ", ".join(f"{dtype} {describe_bytes(size)}" for dtype, size in by_type.most_common())
    weights = describe_count(sum(tensor.numel for tensor in tensors))
    plural = f"{len(files)} shards" if len(files) > 1 else next(iter(files), "no file")
    report.say("weights", f"{weights} in {len(tensors)} tensors, {plural}: {parts}")


def _describe_model(checkpoint: Checkpoint, report: Report) -> None:
    """A layout that runs -> its keys, head, tokenizer and memory."""
    source = open_source(checkpoint.path)
    expected = {name: tuple(weight.shape) for name, weight in skeleton(source).named_parameters()}
    missing = sorted(name for name in expected if name not in source.tensors)
    unknown = sorted(source.tensors[name].name for name in source.tensors if name not in expected)
    misshapen = [info.name for name, info in source.tensors.items() if expected.get(name, info.shape) != info.shape]
    found = len(expected) - len(missing)
    report.say(
        "keys",
        f"{found} of {len(expected)} weights have a value{_named(', missing', missing)}"
        f"{_named(', unexpected', unknown)}{_named(', of another shape', misshapen)}",
    )
    without_meaning = len(checkpoint.tensors) - len(source.tensors)
    if without_meaning:
        report.say("", f"{without_meaning} tensors that nothing reads (position_ids)")
    tied = "tied to the embedding, not in the files" if checkpoint.is_tied else "of its own"
    report.say("head", tied)
    report.try_to(lambda: check_fit(source))
    report.try_to(lambda: check_tokenizer_files(checkpoint.path))
    if not report.problems:
        report.try_to(lambda: _describe_tokenizer(source, report))
    _describe_memory(source, report)


def _describe_tokenizer(source: Source, report: Report) -> None:
    tokenizer = load_tokenizer(source.checkpoint.path, source.config)
    rows = source.config.text_config.vocab_size
    if len(tokenizer) > rows:
        raise UserError(
            f"{source.checkpoint.path}: its tokenizer knows {len(tokenizer)} tokens, its embedding {rows}; they are of "
            "two models: download the tokenizer again"
        )
    report.say("tokenizer", f"{len(tokenizer)} tokens")


def _describe_memory(source: Source, report: Report) -> None:
    count = sum(tensor.numel for tensor in source.tensors.values())
    forms = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    sizes = [f"{describe_bytes(count * dtype.itemsize)} {name}" for name, dtype in forms.items()]
    sizes += [f"{describe_bytes(count * size)} {form}" for form, size in QUANTIZED_BYTES.items()]
    free = available_bytes(DevicePlacement())
    here = "" if free is None else f"; {describe_bytes(free)} are free here"
    report.say("to run it", f"weights take {', '.join(sizes)}{here}; for tokens and time: avcap plan")


def _describe_adapter(checkpoint: Checkpoint, base: Path | None, report: Report) -> None:
    fields = checkpoint.fields
    check_adapter_config(checkpoint)
    lora = sum(1 for name in checkpoint.tensors if LORA.fullmatch(plain_name(name))) // 2
    report.say("adapter", f"LoRA of rank {fields['r']}, alpha {fields['lora_alpha']}, on {lora} matrices")
    report.say("trained on", str(fields.get("base_model_name_or_path")))
    if not any(plain_name(name) in NOT_IN_ADAPTERS for name in checkpoint.tensors):
        lacks = ", ".join(NOT_IN_ADAPTERS)
        report.say("lacks", f"{lacks}: those of the base are used; see docs/checkpoints.md, q_tokens")
    if base is None:
        report.say("base", "not given; with --base FOLDER it is checked that they fit")
        return
    source = open_source(base)
    check_fit(source)
    overlay_values(source, checkpoint.tensors, scale=lambda rank: 1.0, what=str(checkpoint.path))
    (q_tokens,) = map(source.family.our_name, NOT_IN_ADAPTERS)
    holds = "holds q_tokens" if q_tokens in source.tensors else "HAS NO q_tokens"
    report.say("base", f"{base} fits, and {holds}")


def _named(what: str, names: list[str]) -> str:
    if not names:
        return ""
    return f"{what} {len(names)}: {', '.join(names[:NUM_NAMED])}{', ...' if len(names) > NUM_NAMED else ''}"
