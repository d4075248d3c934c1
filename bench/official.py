"""What each mistake or quirk of the published code changes, measured on recorded cases: the table of docs/official.md.

    python bench/official.py [DIR]

DIR is searched for recorded cases as by tests/parity.py (default: tests/assets). "logits" is the largest absolute
difference of the logits at the last 48 positions of the prompt from those that the published code gave. Deterministic,
on the CPU.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import parity  # noqa: E402
from support import parity_plus, parity_v1  # noqa: E402
from support.parity_checks import difference, tiled_waveform  # noqa: E402

from avcap.data.prompt import ChatStyle, encode_chat, released_targets  # noqa: E402
from avcap.infer.generate import generate  # noqa: E402
from avcap.media.frame_times import frame_instants, official_plus_seconds_per_grid  # noqa: E402
from avcap.model.features import MediaFeatures  # noqa: E402
from avcap.model.interleave import AUDIO_ID  # noqa: E402
from avcap.model.salmonn2_plus import mrope  # noqa: E402
from avcap.model.salmonn2_plus.patches import resize_frames, to_patches  # noqa: E402

BETA = 0.1
PENALTY = 1.05
LAST = 48


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    family: str
    official: str
    option: str
    changes: str

    @property
    def line(self) -> str:
        return f"| {self.family} | {self.official} | {self.option} | {self.changes} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "tests" / "assets")
    print("| family | the published code | here | what that changes |\n|---|---|---|---|")
    for row in measure(parser.parse_args().folder):
        print(row.line, flush=True)


@torch.no_grad()
def measure(folder: Path) -> Iterator[Row]:
    """Folder of recorded cases -> the rows of the table; each is measured on the first case that allows it."""
    torch.manual_seed(0)
    cases = [parity.load_case(*found) for found in parity.find_cases(folder)[0]]
    v1 = next(case for case in cases if isinstance(case, parity_v1.Case) and case.has_frames and case.has_audio)
    plus = next(case for case in cases if isinstance(case, parity_plus.Case) and case.has_video and case.has_audio)
    image = next(case for case in cases if isinstance(case, parity_plus.Case) and case.is_image)
    rows: list[Callable[[], Iterator[Row]]] = [
        lambda: v1_order(v1),
        lambda: v1_frames(v1),
        lambda: v1_time_text(v1),
        lambda: v1_padding(v1),
        lambda: v1_lost_audio(v1),
        lambda: v1_targets(v1),
        lambda: v1_preference(v1),
        lambda: plus_positions(plus),
        lambda: plus_frames(plus),
        lambda: plus_resize(image),
        lambda: plus_padded_audio(plus),
        lambda: plus_short_audio(plus),
        lambda: plus_axes(plus),
        lambda: plus_penalty(plus),
        lambda: plus_query_tokens(plus),
        lambda: plus_two_turns(plus),
    ]
    for find in rows:
        yield from find()


def v1_logits(case: parity_v1.Case, features: MediaFeatures, *, sync: str) -> tuple[Tensor, list[int]]:
    """Features and order of tokens -> logits of the last positions, ids of the prompt."""
    case.model.config.sync = sync
    media = case.model.align(features)
    ids = case.expand(case.inputs["input_ids"][0].tolist(), media.ids)
    logits = case.model(torch.tensor([ids]), [media], logits_to_keep=LAST).logits
    case.model.config.sync = "official"
    return logits, ids


def v1_order(case: parity_v1.Case) -> Iterator[Row]:
    logits, ids = v1_logits(case, case.features, sync="true_time")
    middle = int(case.real_time_s / 2)
    beside = {}
    for sync in ("official", "true_time"):
        case.model.config.sync = sync
        beside[sync] = audio_beside(case, middle)
    case.model.config.sync = "official"
    yield Row(
        "2",
        "stretches all sound tokens, those of the silence that fills the last 30 s too, evenly over the frames",
        '`--official` (`sync="official"`); default `sync="true_time"`',
        f"{len(case.prompt_ids)} -> {len(ids)} tokens; logits {difference(logits, case.outputs['logits_last48']):.1f}; "
        f"in {case.real_time_s:.0f} s of video, second {middle} of sound stands after the frame of "
        f"{beside['official']:.1f} s -> {beside['true_time']:.1f} s",
    )


def audio_beside(case: parity_v1.Case, second: int) -> float:
    """Second of sound -> time of the frame that its first token follows."""
    outline = case.model.outline(case.features)
    placed = [(token, at) for token, at in zip((i for i in outline.ids if i < 0), outline.seconds, strict=True)]
    first = placed.index((AUDIO_ID, second))
    num_visual = sum(token != AUDIO_ID for token, _ in placed[:first])
    return case.features.frame_times_T[num_visual // case.model.config.visual_tokens_per_frame - 1]


def v1_frames(case: parity_v1.Case) -> Iterator[Row]:
    cap = round(case.facts["max_time"] * case.facts["video_fps"])
    instants_T = frame_instants(start_s=0, end_s=case.real_time_s, fps=case.facts["video_fps"], max_frames=cap)
    official_T = case.inputs["frame_index"].numpy() / case.inputs["source_fps"].item()
    apart_s = np.abs(instants_T - official_T).max()
    yield Row(
        "2",
        "picks frames by number: every round(rate)-th; above the cap, evenly from the first to the very last, cut "
        "to whole numbers",
        "`--official`; by default what is on screen at each instant, at any frame rate",
        f"{len(official_T)} frames at most {apart_s:.2f} s apart",
    )


def v1_time_text(case: parity_v1.Case) -> Iterator[Row]:
    silent = dataclasses.replace(case.features, audio_KPA=None, audio_seconds=0.0)
    texts = parity_v1.time_text_ids(case.tokenizer, num_frames=len(silent.frame_times_T), duration_s=case.real_time_s)
    without, ids = v1_logits(case, silent, sync="official")
    with_text, ids_with = v1_logits(case, dataclasses.replace(silent, time_text_ids=texts), sync="official")
    yield Row(
        "2",
        "writes each frame's time as text, but loses it where there is sound",
        "the same in both: it was trained so (`time_text` in config.json)",
        f"picture alone, with text -> without: {len(ids_with)} -> {len(ids)} tokens; logits "
        f"{difference(with_text, without):.1f}",
    )


def v1_padding(case: parity_v1.Case) -> Iterator[Row]:
    outputs = case.outputs
    lost = case.inputs["input_ids"].shape[1] - len(outputs["padquirk_input_ids_kept"])
    logits = difference(outputs["padquirk_greedy_logits"][0], outputs["greedy_logits"][0])
    differ = (outputs["padquirk_greedy"] != outputs["greedy"]).sum().item()
    yield Row(
        "2",
        "drops every `<\\|im_end\\|>` of the prompt where the tokenizer pads with it",
        "`--official`, for such a tokenizer; the default keeps them",
        f"{lost} tokens less; logits {logits:.1f}; {differ} of {len(outputs['greedy'])} greedy ids differ",
    )


def v1_lost_audio(case: parity_v1.Case) -> Iterator[Row]:
    silent = dataclasses.replace(case.features, audio_KPA=None, audio_seconds=0.0)
    logits, ids = v1_logits(case, silent, sync="official")
    yield Row(
        "both",
        "goes on without sound where it cannot be decoded, and does not say so",
        "not reproduced: such a file is an error, and every caption counts the seconds of sound that it heard",
        f"without its sound {len(ids)} tokens instead of {len(case.prompt_ids)}; logits "
        f"{difference(logits, case.outputs['logits_last48']):.1f}",
    )


def v1_targets(case: parity_v1.Case) -> Iterator[Row]:
    ids, ours, theirs = answered(case, case.outputs["greedy"].tolist())
    logps = token_logps(case, case.model, ids, torch.float32)
    losses = [-logps[torch.tensor(targets[1:])].mean().item() for targets in (theirs, ours)]
    yield Row(
        "2",
        "learns the `<\\|im_start\\|>`, `<\\|im_end\\|>` and newlines of system and user turns, too",
        "`data.prompt.released_targets`; by default answers and their end alone",
        f"{sum(theirs)} -> {sum(ours)} targets; cross-entropy {losses[0]:.2f} -> {losses[1]:.2f}",
    )


def v1_preference(case: parity_v1.Case) -> Iterator[Row]:
    answers = [case.outputs[name].tolist() for name in ("greedy", "padquirk_greedy")]
    recorded_model = parity_v1.recorded_case(case).model
    sums: dict[str, list[float]] = {"ours": [], "last": [], "bf16": []}
    for answer in answers:
        ids, ours, theirs = answered(case, answer)
        # it takes the last N positions, N = length before the media was put in: targets before the media fall out
        length = case.inputs["input_ids"].shape[1] + len(answer)
        last = [target and at >= len(ids) - length for at, target in enumerate(theirs)]
        for name, targets, dtype in (
            ("ours", ours, torch.float32),
            ("last", last, torch.float32),
            ("bf16", ours, torch.bfloat16),
        ):
            chosen = torch.tensor(targets[1:])
            policy, fixed = (
                token_logps(case, one, ids, dtype)[chosen].sum().item() for one in (case.model, recorded_model)
            )
            sums[name] += [policy, policy - fixed]
    losses = {name: -F.logsigmoid(torch.tensor(BETA * (s[1] - s[3]))).item() for name, s in sums.items()}
    yield Row(
        "2",
        "preference step: of the targets, counts those in the last N positions, N = length of the prompt before "
        "frames and sound are put in",
        "not reproduced in training (tests/parity.py does)",
        f"summed log-probability {sums['last'][0]:.1f} -> {sums['ours'][0]:.1f}; loss {losses['last']:.4f} -> "
        f"{losses['ours']:.4f}: it cancels",
    )
    yield Row(
        "2",
        "preference step: log-probabilities in bfloat16",
        "not reproduced: float32",
        f"summed log-probability {sums['bf16'][0]:.3f} -> {sums['ours'][0]:.3f}; loss {losses['bf16']:.4f} -> "
        f"{losses['ours']:.4f}",
    )


def answered(case: parity_v1.Case, answer: list[int]) -> tuple[list[int], list[bool], list[bool]]:
    """Answer -> ids of prompt and answer; which are to be learned by our rule, and by the published one."""
    ids = [*case.prompt_ids, *answer]
    ours = [at >= len(case.prompt_ids) for at in range(len(ids))]
    return ids, ours, released_targets(case.tokenizer, ids, ours)


def token_logps(case: parity_v1.Case, model: Any, ids: list[int], dtype: torch.dtype) -> Tensor:
    """Ids -> log-probability of each but the first (L - 1,), computed in `dtype`."""
    logits_LV = model(torch.tensor([ids]), [case.media]).logits[0, :-1].to(dtype)
    expected_L = torch.tensor(ids[1:]).clamp(min=0)
    return logits_LV.log_softmax(dim=-1).gather(1, expected_L[:, None])[:, 0].float()


def plus_logits(case: parity_plus.Case, features: MediaFeatures, *, positions: str = "train") -> tuple[Tensor, Tensor]:
    """Features and rule of positions -> logits of the last positions, positions (3, L)."""
    case.model.config.positions = positions
    media = case.model.align(features)
    first = next(at for at, token in enumerate(case.prompt_ids) if token == case.model.config.vision_start_token_id)
    behind = len(case.prompt_ids) - 1 - case.prompt_ids[::-1].index(case.model.config.vision_end_token_id)
    ids = [*case.prompt_ids[:first], *media.ids, *case.prompt_ids[behind + 1 :]]
    logits = case.model(torch.tensor([ids]), [media], logits_to_keep=LAST).logits
    return logits, case.model.positions(ids, media).of_ids


def plus_positions(case: parity_plus.Case) -> Iterator[Row]:
    logits, train_XL = plus_logits(case, case.features)
    _, generate_XL = plus_logits(case, case.features, positions="official_generate")
    same = (train_XL == generate_XL).all(dim=0).float().mean().item()
    differ = (case.outputs["greedy_generate"] != case.outputs["greedy_train_positions"]).sum().item()
    yield Row(
        "2+",
        "generates at other positions than it was trained with: a grid counts as a second, and sound shifts all "
        "that follows",
        '`--official` (`positions="official_generate"`); default `positions="train"`',
        f"logits {difference(logits, case.outputs['logits_generate_last48']):.1f}; {same:.0%} of the positions are the "
        f"same; the last one is {generate_XL.max()} -> {train_XL.max()}; "
        f"{differ} of {len(case.outputs['greedy_generate'])} greedy ids differ",
    )


def plus_frames(case: parity_plus.Case) -> Iterator[Row]:
    inputs, args = case.inputs, case.data_args
    rate, num_frames = inputs["source_fps"].item(), inputs["source_num_frames"].item()
    instants_T = frame_instants(
        start_s=0, end_s=num_frames / rate, fps=1 / args["base_interval"], max_frames=args["video_max_frames"]
    )
    official_T = inputs["frame_index"].numpy() / rate
    taken = official_plus_seconds_per_grid(num_frames=num_frames, source_fps=rate, num_looked_at=len(official_T))
    true_s = 2 * np.diff(official_T).mean()
    yield Row(
        "2+",
        "spreads frames from the first to the very last, cut to whole numbers, at least 64, and takes them to be "
        "spread over the whole duration",
        "`--official`; by default one every 0.1 s",
        f"{len(official_T)} frames at most {np.abs(instants_T - official_T).max():.2f} s apart; a temporal grid lasts "
        f"{taken:.4f} s in its positions and {true_s:.4f} s in its frames",
    )


def plus_resize(case: parity_plus.Case) -> Iterator[Row]:
    frames_1HWC = case.inputs["raw_frames_u8"]
    _, height, width = case.patch_grid
    size = tuple(side * case.model.config.patch_sizes.patch for side in (height, width))
    theirs_1CHW = resize_frames(frames_1HWC.permute(0, 3, 1, 2), size)
    image = Image.fromarray(frames_1HWC[0].numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
    ours_1CHW = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
    levels = (theirs_1CHW.int() - ours_1CHW.int()).abs()
    rows_RE, grid = to_patches(ours_1CHW, case.model.config.patch_sizes)
    features = dataclasses.replace(case.features, vision_TNV=case.model.encode_patches(rows_RE, grid))
    logits, _ = plus_logits(case, features)
    yield Row(
        "2+",
        "resizes 8-bit tensors, rounding between its two passes",
        "`--official`; by default Pillow while decoding",
        f"{(levels > 0).float().mean():.1%} of the values, by at most {levels.max()} of 255; logits "
        f"{difference(logits, case.outputs['logits_train_last48']):.1e}",
    )


def plus_padded_audio(case: parity_plus.Case) -> Iterator[Row]:
    case.model.config.padded_audio = False
    logits, positions_XL = plus_logits(case, case.features)
    case.model.config.padded_audio = True
    yield Row(
        "2+",
        "puts the tokens of the silence that fills the last 30 s behind the last frames",
        "the same in both: it was trained so (`padded_audio` in config.json leaves them out)",
        f"without them {positions_XL.shape[1]} tokens instead of {len(case.prompt_ids)}; logits "
        f"{difference(logits, case.outputs['logits_train_last48']):.1f}",
    )


def plus_short_audio(case: parity_plus.Case) -> Iterator[Row]:
    num_audio = case.inputs["audio_num_tokens"].item()
    audio_s = len(tiled_waveform(case.inputs["waveform_tile_i16"], case.inputs["waveform_num_samples"].item())) / 16000
    limit_s = next(s for s in range(1, 1000) if mrope.grid_times(5 * s, seconds_per_grid=0.2)[-1] > num_audio)
    counts = mrope.audio_per_grid(5 * limit_s, np.arange(num_audio), seconds_per_grid=0.2)
    yield Row(
        "2+",
        "fails where sound ends well before the picture, and drops the video (in training: takes another one)",
        "`--official` says so in one line; the default leaves later frames without sound",
        f"{audio_s:.0f} s of sound ({num_audio} tokens): pictures of {limit_s} s and more fail; by default all "
        f"{sum(counts)} tokens are placed",
    )


def plus_axes(case: parity_plus.Case) -> Iterator[Row]:
    media = case.media("train")
    places_XL = case.model.positions(case.prompt_ids, media).of_ids.clone()
    is_audio_L = torch.tensor(case.prompt_ids) == AUDIO_ID
    places_XL[1:, is_audio_L] = places_XL[1:, is_audio_L].flip(0)
    logits = case.model(
        inputs_embeds=parity_plus.embeds(case), position_ids=places_XL[:, None], logits_to_keep=LAST
    ).logits
    yield Row(
        "2+",
        "sound beside a picture is at (time, 0, time), alone at (time, time, 0)",
        "the same in both: it was trained so",
        f"sound beside a picture as if alone: logits {difference(logits, case.outputs['logits_train_last48']):.1f}",
    )


def plus_penalty(case: parity_plus.Case) -> Iterator[Row]:
    outputs = case.outputs
    total = len(outputs["greedy_generate"])
    differ = (outputs["greedy_generate"] != outputs["greedy_generate_rep105"]).sum().item()
    logits_V = outputs["greedy_generate_logits"][0]
    penalized_V = torch.where(logits_V > 0, logits_V / PENALTY, logits_V * PENALTY)
    counted = case.inputs["input_ids"].unique()
    yield Row(
        "2+",
        "takes a repetition penalty of 1.05 from generation_config.json, in greedy decoding too",
        "`--official` takes what that file says; the default has none",
        f"before the first word {len(counted)} logits change, by at most "
        f"{difference(penalized_V[counted], logits_V[counted]):.2f}; {differ} of {total} greedy ids differ",
    )
    ids = {}
    for counts_prompt in (True, False):
        case.model.penalty_counts_prompt = counts_prompt
        (answer,) = generate(
            case.model,
            [(case.prompt_ids, case.media("official_generate"))],
            max_new_tokens=total,
            eos_ids=(),
            repetition_penalty=PENALTY,
        )
        ids[counts_prompt] = answer.ids
    del case.model.penalty_counts_prompt
    differ = sum(a != b for a, b in zip(*ids.values(), strict=True))
    yield Row(
        "both",
        "the penalty counts the ids of the prompt in 2+, and not in 2",
        "the same in both",
        f"2+ by the rule of 2: {len(counted)} logits fewer before the first word; {differ} of {total} ids differ",
    )


def plus_query_tokens(case: parity_plus.Case) -> Iterator[Row]:
    tokens = case.model.audio_aligner.query_tokens
    kept = tokens.clone()
    tokens.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    logits, _ = plus_logits(case, case.features)
    tokens.copy_(kept)
    yield Row(
        "2+",
        "its adapters do not hold `audio.q_tokens`; loaded by its recipe, they are random",
        "`avcap convert ADAPTER DST --base FOLDER --q-tokens FULL`; without, a loud warning",
        f"random ones: logits {difference(logits, case.outputs['logits_train_last48']):.1f}",
    )


def plus_two_turns(case: parity_plus.Case) -> Iterator[Row]:
    chat = ChatStyle(**case.model.config.chat)
    turns = [("What is seen?", "A red ball."), ("What is heard?", None)]
    encoded = encode_chat(case.tokenizer, turns, case.media("train").ids, chat)
    prompt, targets = encoded.ids, encoded.is_target
    yield Row(
        "2+",
        "asks the second question of a chat with a prompt that is cut: it takes as many ids as are no targets",
        "not reproduced",
        f"{len(prompt) - sum(targets)} of {len(prompt)} ids are asked",
    )


if __name__ == "__main__":
    main()
