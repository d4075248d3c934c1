"""Parity rows of video-SALMONN 2+ (family "plus"); see parity.py."""

# F frames  K chunks  S samples  M mel bins  L tokens  D width  V vocabulary  R patches  E numbers of a patch

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import ChatStyle, encode_chat
from avcap.infer.generate import generate
from avcap.media.frame_size import PixelBudget, smart_resize
from avcap.media.frame_times import official_plus_frame_index, official_plus_seconds_per_grid
from avcap.media.mel import chunk_waveform, log_mel
from avcap.model.checkpoint.load import load
from avcap.model.features import MediaFeatures, MediaTokens, VisionGrid
from avcap.model.interleave import AUDIO_ID, VISUAL_ID
from avcap.model.salmonn2_plus import mrope
from avcap.model.salmonn2_plus.modeling import Salmonn2PlusForCaptioning
from avcap.model.salmonn2_plus.patches import normalize_patches, resize_frames, to_patches
from avcap.model.salmonn2_plus.released import our_plus_name
from avcap.train.packing import ExampleLogprobs, PairExample, pack, response_logprobs
from support.parity_checks import (
    CLOSE,
    EXACT,
    IGNORED,
    LOG_MEL,
    LOGITS,
    RECORDED_SCALE,
    REPETITION_PENALTY,
    SAME,
    SAMPLE_RATE_HZ,
    Check,
    Row,
    difference,
    run_checks,
    tiled_waveform,
)

TAGS = ("<video>", "<image>", "<audio>")
MODES_APART = 0.1  # what two rules of positions change at least: mistakes of structure are larger, rounding is smaller
MODES = {"train": "train", "official_generate": "generate"}  # our name of a choice of positions -> the recorded one


@dataclass(frozen=True, eq=False)
class Case:
    """A recorded case with the model that its weights make."""

    folder: Path
    facts: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    model: Salmonn2PlusForCaptioning
    tokenizer: PreTrainedTokenizerBase

    @property
    def data_args(self) -> dict[str, Any]:
        return self.facts["data_args"]

    @property
    def is_image(self) -> bool:
        return "image_grid_thw" in self.inputs

    @property
    def has_video(self) -> bool:
        return "pixel_patches_u8" in self.inputs

    @property
    def has_audio(self) -> bool:
        return "waveform_tile_i16" in self.inputs

    @property
    def patch_grid(self) -> tuple[int, int, int]:
        """Recorded patch grid: temporal, height, width."""
        return tuple(self.inputs["image_grid_thw" if self.is_image else "video_grid_thw"][0].tolist())

    @property
    def prompt_ids(self) -> list[int]:
        """The recorded prompt with placeholders where media tokens go."""
        return self.with_placeholders(self.inputs["input_ids"])

    def with_placeholders(self, ids_1L: Tensor) -> list[int]:
        config = self.model.config
        stands_for = dict.fromkeys((config.video_token_id, config.image_token_id), VISUAL_ID)
        stands_for[config.audio_token_id] = AUDIO_ID
        return [stands_for.get(token, token) for token in ids_1L[0].tolist()]

    @cached_property
    def waveform_S(self) -> Tensor:
        return tiled_waveform(self.inputs["waveform_tile_i16"], self.inputs["waveform_num_samples"].item())

    @cached_property
    def mel_KMF(self) -> Tensor:
        config = self.model.config
        chunks_KS = chunk_waveform(self.waveform_S, chunk_s=config.chunk_s)
        return log_mel(chunks_KS, num_mel_bins=config.audio_config.num_mel_bins)

    @cached_property
    def features(self) -> MediaFeatures:
        """What the encoders make of the recorded patches and of the sound."""
        grid, vision_TNV, times_s = None, None, ()
        if self.has_video:
            temporal, height, width = self.patch_grid
            merge = self.model.config.patch_sizes.merge
            seconds = 1.0 if self.is_image else self.inputs["second_per_grid"].item()
            grid = VisionGrid(
                height=height // merge,
                width=width // merge,
                seconds_per_grid=seconds,
                is_image=self.is_image,
                num_frames=1 if self.is_image else len(self.inputs["frame_index"]),
            )
            vision_TNV = self.model.encode_patches(self.inputs["pixel_patches_u8"], self.patch_grid)
            times_s = [index * seconds for index in range(temporal)]
        return MediaFeatures(
            vision_TNV=vision_TNV,
            frame_times_T=times_s,
            grid=grid,
            audio_KPA=self.model.encode_audio(self.mel_KMF) if self.has_audio else None,
            audio_seconds=len(self.waveform_S) / SAMPLE_RATE_HZ if self.has_audio else 0.0,
        )

    def media(self, positions: str) -> MediaTokens:
        """The media tokens with one choice of positions."""
        self.model.config.positions = positions
        return self.model.align(self.features)


def load_case(folder: Path, facts: dict[str, Any]) -> Case:
    """Case folder and its case.json -> the case with its model."""
    model, tokenizer = load(folder / facts["weights"])
    return Case(
        folder=folder,
        facts=facts,
        inputs=load_file(folder / "inputs.safetensors"),
        outputs=load_file(folder / "outputs.safetensors"),
        model=model,
        tokenizer=tokenizer,
    )


@torch.no_grad()
def check_case(case: Case) -> list[Check]:
    """Every row for which the case has recorded tensors."""
    stages = [check_loader, check_prompt, check_sequence, check_positions, check_logits, check_greedy]
    if case.has_audio:
        stages += [check_audio]
    if case.has_video:
        stages += [check_frames, check_vision]
    if (case.folder / "dpo.safetensors").exists():
        stages += [check_preference]
    return run_checks(case.folder.name, case, stages)


def check_loader(case: Case) -> Iterator[Row]:
    """A1, C9: `load` has raised on any key too many or too few; here, that every value is where it belongs."""
    ours = dict(case.model.named_parameters(remove_duplicate=False))
    weights = (case.folder / case.facts["weights"]).parent
    stored = {name: value for file in weights.glob("model*.safetensors") for name, value in load_file(file).items()}
    places = {name: our_plus_name(name) for name in stored}
    worst = max(difference(ours[place].detach(), stored[name].float()) for name, place in places.items() if place)
    yield "A1", "weights", worst, EXACT
    if case.model.config.tie_word_embeddings:
        head = case.model.get_output_embeddings().weight
        yield "C9", "tied head", difference(head.detach(), case.model.get_input_embeddings().weight.detach()), EXACT
        yield "C9", "heads in the file", float("lm_head.weight" in stored), EXACT


def check_audio(case: Case) -> Iterator[Row]:
    """A2-A6: waveform to audio tokens."""
    inputs, outputs, model = case.inputs, case.outputs, case.model
    num_tokens = len(case.mel_KMF) * model.config.audio_tokens_per_chunk
    yield "A2", "number of audio tokens", difference([num_tokens], inputs["audio_num_tokens"]), EXACT
    expected = np.resize(inputs["waveform_tile_i16"].numpy(), len(case.waveform_S)).astype(np.float32) / 32768
    yield "A2", "samples", difference(case.waveform_S, torch.from_numpy(expected)), EXACT
    yield "A3", "log-mel", difference(case.mel_KMF[..., ::60], inputs["mel_every_60th_frame"]), LOG_MEL
    if "input_features_first_1100_frames" in inputs:
        expected = inputs["input_features_first_1100_frames"]
        yield "A3", "log-mel, first frames", difference(case.mel_KMF[..., : expected.shape[-1]], expected), LOG_MEL
    audio_KPA = case.features.audio_KPA
    yield "A4", "Whisper", difference(audio_KPA[:, ::25], outputs["whisper_hidden_every_25th"]), CLOSE
    queries_UQ = model.qform_audio(audio_KPA)
    expected = outputs["qformer_hidden"]
    yield "A5", "Q-Former", difference(queries_UQ.view(-1, *expected.shape[1:]), expected), CLOSE
    tokens_KUD = model.audio_aligner.project(queries_UQ).unflatten(0, (len(audio_KPA), -1))
    yield "A6", "audio tokens", difference(tokens_KUD, outputs["audio_tokens"]), CLOSE


def check_frames(case: Case) -> Iterator[Row]:
    """C1, C2: which frames, their size and their patches."""
    inputs, args = case.inputs, case.data_args
    name = "raw_frames_u8" if "raw_frames_u8" in inputs else "raw_frames_u8_first6"
    raw_FCHW = inputs[name].permute(0, 3, 1, 2)
    limits = {"factor": case.model.config.patch_sizes.factor}
    if case.is_image:
        limits |= {"min_pixels": args["min_pixels"], "max_pixels": args["max_pixels"]}
        size = smart_resize(*raw_FCHW.shape[2:], **limits)
    else:
        source = {"num_frames": inputs["source_num_frames"].item(), "source_fps": inputs["source_fps"].item()}
        index = official_plus_frame_index(
            **source,
            interval_s=args["base_interval"],
            min_frames=args["video_min_frames"],
            max_frames=args["video_max_frames"],
        )
        yield "C1", "frame index", difference(index, inputs["frame_index"]), EXACT
        seconds = official_plus_seconds_per_grid(**source, num_looked_at=len(index))
        yield "C1", "seconds of a grid", abs(seconds - inputs["second_per_grid"].item()), 1e-12
        budget = PixelBudget(
            max_frame_pixels=args["video_max_frame_pixels"],
            min_frame_pixels=args["video_min_frame_pixels"],
            max_frames=args["video_max_frames"],
            **limits,
        )
        size = budget.frame_size(*raw_FCHW.shape[2:], num_frames=len(index))
    rows_RE, grid = to_patches(resize_frames(raw_FCHW, size), case.model.config.patch_sizes)
    yield "C2", "patches of a grid", difference(grid[1:], torch.tensor(case.patch_grid[1:])), EXACT
    yield "C2", "patches", difference(rows_RE, inputs["pixel_patches_u8"][: len(rows_RE)]), EXACT
    if "pixel_values_first_48_rows" in inputs:
        expected = inputs["pixel_values_first_48_rows"]
        config = case.model.config
        got = normalize_patches(inputs["pixel_patches_u8"], mean=config.image_mean, std=config.image_std)
        yield "C2", "pixel values", difference(got[: len(expected)], expected), SAME


def check_vision(case: Case) -> Iterator[Row]:
    """C4: tower and merger."""
    rows_RV = case.features.vision_TNV.flatten(0, 1).view(-1, case.model.config.vision_config.hidden_size)
    got = case.model.vision_aligner(rows_RV)
    yield "C4", "visual tokens", difference(got, case.outputs["vision_features"]), CLOSE


def check_prompt(case: Case) -> Iterator[Row]:
    """A10, C3: the prompt as ids, with every media token in its place."""
    value = case.facts["conversations"][0]["value"]
    tag = next(tag for tag in TAGS if tag in value)
    before, _, after = value.partition(tag)
    chat = ChatStyle(**case.model.config.chat)
    chat = dataclasses.replace(chat, user_prefix=chat.user_prefix + before, media_suffix="")
    media = case.media("train")
    ids = encode_chat(case.tokenizer, [(after, None)], media.ids, chat).ids
    yield "A10", "prompt ids", difference([case.model.official_ids(ids, media)], case.inputs["input_ids"]), EXACT


def check_sequence(case: Case) -> Iterator[Row]:
    """A7: what enters the language model."""
    yield "A7", "merged sequence", difference(embeds(case), case.outputs["inputs_embeds"]), CLOSE


def embeds(case: Case) -> Tensor:
    return case.model.embed(torch.tensor([case.prompt_ids]), [case.media("train")])


def check_positions(case: Case) -> Iterator[Row]:
    """C5, C6: positions of the prompt by both rules, and of what is generated."""
    outputs = case.outputs
    train = case.model.positions(case.prompt_ids, case.media("train"))
    yield "C5", "positions, training", difference(train.of_ids[:, None], outputs["position_ids_train"]), EXACT
    generated = case.model.positions(case.prompt_ids, case.media("official_generate"))
    expected = outputs["position_ids_generate_prefill"]
    yield "C6", "positions, generate", difference(generated.of_ids[:, None], expected), EXACT
    expected = outputs["position_ids_generate_steps"]
    steps = torch.arange(generated.following, generated.following + expected.shape[-1])
    yield "C6", "positions, further steps", difference(steps.expand(3, 1, -1), expected), EXACT
    delta = [[generated.following - len(case.prompt_ids)]]
    yield "C6", "rope delta", difference(delta, outputs["rope_delta_generate"]), EXACT


def check_logits(case: Case) -> Iterator[Row]:
    """A8, C7: logits and hidden states by both rules of positions, from the recorded sequence and end to end."""
    outputs = case.outputs
    for source, embeds_1LD, tolerance in (
        ("recorded", outputs["inputs_embeds"], CLOSE),
        ("end to end", embeds(case), LOGITS),
    ):
        found = {}
        for positions, name in MODES.items():
            places = case.model.positions(case.prompt_ids, case.media(positions))
            output = case.model(
                inputs_embeds=embeds_1LD, position_ids=places.of_ids[:, None], output_hidden_states=True
            )
            found[positions] = output.logits
            expected = outputs[f"logits_{name}_last48"]
            yield (
                "C7",
                f"logits, {name}, {source}",
                difference(output.logits[:, -expected.shape[1] :], expected),
                tolerance,
            )
            if f"final_hidden_{name}" in outputs:
                expected = outputs[f"final_hidden_{name}"]
                yield "C7", f"hidden, {name}, {source}", difference(output.hidden_states[-1], expected), tolerance
        if case.has_audio and case.has_video:
            apart = difference(found["train"], found["official_generate"])
            yield "C7", f"the two rules differ, {source}", max(0.0, MODES_APART - apart), EXACT
        yield "A8", f"greedy logits, {source}", difference(*greedy_logits(case, embeds_1LD)), tolerance


def greedy_logits(case: Case, embeds_1LD: Tensor) -> tuple[Tensor, Tensor]:
    """Logits along the recorded greedy answer, ours and the recorded ones."""
    expected = case.outputs["greedy_generate_logits"]
    answer = case.outputs["greedy_generate"][:-1]
    places = case.model.positions(case.prompt_ids, case.media("official_generate"))
    steps = torch.arange(places.following, places.following + len(answer)).expand(3, -1)
    output = case.model(
        inputs_embeds=torch.cat([embeds_1LD, case.model.get_input_embeddings()(answer[None])], dim=1),
        position_ids=torch.cat([places.of_ids, steps], dim=1)[:, None],
    )
    return output.logits[0, -len(expected) :], expected


def check_greedy(case: Case) -> Iterator[Row]:
    """A9, C8: ids of the greedy answer, by both rules of positions, and with the penalty on repetition."""
    for name, positions, penalty in (
        ("greedy_generate", "official_generate", 1.0),
        ("greedy_generate_rep105", "official_generate", REPETITION_PENALTY),
        ("greedy_train_positions", "train", 1.0),
    ):
        expected = case.outputs[name]
        (answer,) = generate(
            case.model,
            [(case.prompt_ids, case.media(positions))],
            max_new_tokens=len(expected),
            eos_ids=(),
            repetition_penalty=penalty,
        )
        yield "A9" if positions == "official_generate" else "C8", name, difference(answer.ids, expected), EXACT


def check_preference(case: Case) -> Iterator[Row]:
    """The preference step, as one packed row: positions, labels, log-probabilities of both policies, losses."""
    dpo = load_file(case.folder / "dpo.safetensors")
    media = case.media("train")
    num_prompt = len(case.prompt_ids)
    answers = {}
    for name in ("chosen", "reject", "gt"):
        ids = case.with_placeholders(dpo[f"{name}_ids"])
        answers[name] = ids[num_prompt:]
        places = case.model.positions(ids, media)
        yield "DPO", f"{name} positions", difference(places.of_ids[:, None], dpo[f"{name}_position_ids"]), EXACT
        labels = [IGNORED] * num_prompt + answers[name]
        yield "DPO", f"{name} labels", difference([labels], dpo[f"{name}_labels"]), EXACT
    example = PairExample(
        sample_id=case.folder.name,
        prompt_ids=case.prompt_ids,
        chosen_ids=answers["chosen"],
        rejected_ids=answers["reject"],
        target_ids=answers["gt"],
    )
    policy = answer_logprobs(case.model, example, media)
    recorded_model = answer_logprobs(ref_model(case), example, media)
    pairs = [torch.stack([one.chosen.total, one.rejected.total]) for one in (policy, recorded_model)]
    yield "DPO", "policy log-probabilities", difference(pairs[0], dpo["policy_logps"]), 2e-3
    yield "DPO", "reference log-probabilities", difference(pairs[1], dpo["reference_logps"]), 2e-3
    chosen, rejected = (pairs[0] - pairs[1]) * dpo["beta"]
    dpo_loss = -F.logsigmoid(chosen - rejected)[None]
    yield "DPO", "preference loss", difference(dpo_loss, dpo["dpo_loss"]), 2e-4
    ce_gt = -(policy.target.total / policy.target.num_tokens)[None]
    yield "DPO", "cross-entropy", difference(ce_gt, dpo["ce_gt"]), 1e-4
    yield "DPO", "total loss", difference(dpo_loss + dpo["ce_weight"] * ce_gt, dpo["total_loss"]), 3e-4


def answer_logprobs(model: Salmonn2PlusForCaptioning, example: PairExample, media: MediaTokens) -> ExampleLogprobs:
    (logprobs,) = response_logprobs(model, pack([example]), [media])
    return logprobs


def ref_model(case: Case) -> Salmonn2PlusForCaptioning:
    """The recorded reference policy."""
    model, _ = load(case.folder / case.facts["weights"])
    for layer in model.language_model.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.weight.mul_(RECORDED_SCALE)
    return model


def check_tables(path: Path) -> list[Check]:
    """C3: how many audio tokens follow each grid, and when each grid begins, for many lengths of video."""
    tables = load_file(path)
    counts: list[Sequence[int]] = []
    times: list[Sequence[int]] = []
    for _, _, grids, num_audio, seconds in tables["cases"].tolist():
        audio_times_U = np.arange(int(num_audio))
        counts.append(mrope.audio_per_grid(int(grids), audio_times_U, seconds_per_grid=seconds))
        times.append(mrope.grid_times(int(grids), seconds_per_grid=seconds).tolist())
    case = path.parent.name
    return [
        Check(case, "C3", what, max(map(_row_difference, got, tables[name])), EXACT)
        for what, name, got in (("sound per grid", "audio_per_grid", counts), ("times of grids", "time_index", times))
    ]


def _row_difference(got: Sequence[int], padded: Tensor) -> float:
    """A row and the recorded one, which is padded on the right."""
    return difference(got, padded[: len(got)])
