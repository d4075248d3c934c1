"""Parity rows of video-SALMONN 2 (family "v1"); see parity.py."""

# F frames  K chunks  S samples  M mel bins  L tokens  D width  V vocabulary

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import IM_END, ChatStyle, encode_chat, released_targets, time_text_ids
from avcap.infer.generate import generate
from avcap.media.frame_times import official_v1_frame_index
from avcap.media.mel import chunk_waveform, log_mel
from avcap.media.official import official_v1_audio
from avcap.model.checkpoint.load import SHARD_INDEX, load
from avcap.model.configuration import CHATML_V1
from avcap.model.features import MediaFeatures, MediaTokens
from avcap.model.salmonn2.aligner import segment_positions
from avcap.model.salmonn2.modeling import Salmonn2ForCaptioning
from avcap.model.salmonn2.released import our_name
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
)

MEDIA_MARK = -200  # stands for the whole media block in recorded prompts


@dataclass(frozen=True, eq=False)
class Case:
    """A recorded case with the model that its weights make."""

    folder: Path
    facts: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    model: Salmonn2ForCaptioning
    tokenizer: PreTrainedTokenizerBase

    @property
    def weights_folder(self) -> Path:
        return (self.folder / self.facts["weights"]).parent

    @property
    def has_frames(self) -> bool:
        return "raw_frames_u8" in self.inputs

    @property
    def has_audio(self) -> bool:
        return "waveform_tile_i16" in self.inputs

    @property
    def interval_s(self) -> tuple[float, float] | None:
        """The part of the file that was recorded; None: all of it."""
        timestamps = self.facts.get("timestamps")
        return None if timestamps is None else tuple(timestamps)

    @property
    def real_time_s(self) -> float:
        """What the released code takes for the length: of an interval as asked, of a video by its frames."""
        if not self.has_frames:
            return float(self.model.config.chunk_s * len(self.chunks_KS))
        if self.interval_s is not None:
            return self.interval_s[1] - self.interval_s[0]
        return (self.inputs["source_num_frames"] / self.inputs["source_fps"]).item()

    @cached_property
    def waveform_S(self) -> Tensor:
        """The sound that the model was given: of the interval, and as long as the picture at most."""
        num_samples = self.inputs["waveform_num_samples"].item()
        tile = self.inputs["waveform_tile_i16"].numpy()
        waveform_S = np.resize(tile, num_samples) / np.float32(32768)
        start_s, end_s = self.interval_s or (0.0, self.real_time_s if self.has_frames else self.facts["max_time"])
        if not self.has_frames:
            end_s = min(end_s, start_s + self.facts["max_time"])
        return torch.from_numpy(official_v1_audio(waveform_S, start_s=start_s, end_s=end_s))

    @cached_property
    def chunks_KS(self) -> Tensor:
        return chunk_waveform(self.waveform_S, chunk_s=self.model.config.chunk_s)

    @cached_property
    def mel_KMF(self) -> Tensor:
        return log_mel(self.chunks_KS, num_mel_bins=self.model.config.audio_config.num_mel_bins)

    @cached_property
    def frames_FCHW(self) -> Tensor:
        """8-bit frames at the size of the tower."""
        side = self.model.config.vision_config.image_size
        images = [Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC) for frame in self._raw_frames]
        return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)

    @property
    def _raw_frames(self) -> np.ndarray:
        return self.inputs["raw_frames_u8"].numpy()

    @cached_property
    def features(self) -> MediaFeatures:
        """What the encoders make of the case."""
        vision = audio = times_s = text_ids = None
        if self.has_frames:
            vision = self.model.encode_frames(self.model.normalize_pixels(self.frames_FCHW))
            times_s = (self.inputs["frame_index"] / self.inputs["source_fps"]).tolist()
        if self.has_audio:
            audio = self.model.encode_audio(self.mel_KMF)
        elif self.model.config.time_text:
            text_ids = time_text_ids(self.tokenizer, num_frames=len(self._raw_frames), duration_s=self.real_time_s)
        return MediaFeatures(
            vision_TNV=vision,
            frame_times_T=times_s or (),
            audio_KPA=audio,
            audio_seconds=len(self.waveform_S) / SAMPLE_RATE_HZ if self.has_audio else 0.0,
            time_text_ids=text_ids,
        )

    @cached_property
    def media(self) -> MediaTokens:
        return self.model.align(self.features)

    @cached_property
    def prompt_ids(self) -> list[int]:
        return self.expand(self.inputs["input_ids"][0].tolist(), self.media.ids)

    @cached_property
    def embeds_1LD(self) -> Tensor:
        return self.model.embed(torch.tensor([self.prompt_ids]), [self.media])

    @staticmethod
    def expand(ids: Sequence[int], media: Sequence[int]) -> list[int]:
        """Ids (or labels) with one mark for the media -> with one entry per media token."""
        at = list(ids).index(MEDIA_MARK)
        return [*ids[:at], *media, *ids[at + 1 :]]


def load_case(folder: Path, facts: dict[str, Any]) -> Case:
    """Case folder and its case.json -> the case with its model, run exactly as published."""
    model, tokenizer = load(folder / facts["weights"], config_fields={"sync": "official"})
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
    stages = [check_loader, check_prompt, check_sequence, check_logits, check_greedy, check_pad_quirk]
    if case.has_audio:
        stages += [check_audio]
    if case.has_frames:
        stages += [check_frames, check_vision]
    if (case.folder / "dpo.safetensors").exists():
        stages += [check_preference]
    return run_checks(case.folder.name, case, stages)


def check_loader(case: Case) -> Iterator[Row]:
    """A1: `load` has raised on any key too many or too few; here, that every value is where it belongs."""
    ours = dict(case.model.named_parameters())
    worst = 0.0
    folder = case.weights_folder
    index = folder / SHARD_INDEX
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    for file in files:
        with safe_open(folder / file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  (not a dict)
                if (place := our_name(name)) is not None:
                    worst = max(worst, difference(ours[place].detach(), stored.get_tensor(name).float()))
    yield "A1", "weights", worst, EXACT


def check_audio(case: Case) -> Iterator[Row]:
    """A2-A6 and B6: waveform to audio tokens."""
    inputs, outputs, model = case.inputs, case.outputs, case.model
    yield "A2", "number of chunks", abs(len(case.chunks_KS) - case.facts["chunks"]), EXACT
    yield "A2", "samples", difference(case.chunks_KS.flatten()[: len(case.waveform_S)], case.waveform_S), EXACT
    yield "A3", "log-mel", difference(case.mel_KMF[..., ::60], inputs["mel_every_60th_frame"]), LOG_MEL
    if "input_features_first_1100_frames" in inputs:
        expected = inputs["input_features_first_1100_frames"]
        yield "A3", "log-mel, first frames", difference(case.mel_KMF[..., : expected.shape[-1]], expected), LOG_MEL
    audio_KPA, aligner = case.features.audio_KPA, model.audio_aligner
    yield "A4", "Whisper", difference(audio_KPA[:, ::25], outputs["whisper_hidden_every_25th"]), CLOSE
    normed_KPA = aligner.input_norm(audio_KPA)
    yield "A4", "speech norm", difference(normed_KPA[:, ::25], outputs["ln_speech_every_25th"]), CLOSE
    queries_UQ = model.qform_audio(audio_KPA)
    expected = outputs["qformer_hidden"]
    yield "A5", "Q-Former", difference(queries_UQ.view(-1, *expected.shape[1:]), expected), CLOSE
    tokens_KUD = aligner.project(queries_UQ).unflatten(0, (len(audio_KPA), -1))
    yield "A6", "audio tokens", difference(tokens_KUD, outputs["audio_tokens"]), CLOSE
    if "segment_position_table_first8" in outputs:
        expected = outputs["segment_position_table_first8"]
        got = segment_positions(torch.arange(len(expected)), width=expected.shape[-1])
        yield "B6", "segment positions", difference(got, expected), SAME


def check_frames(case: Case) -> Iterator[Row]:
    """B1 and B2: which frames, and their pixels."""
    inputs, facts = case.inputs, case.facts
    frame_index = official_v1_frame_index(
        num_frames=inputs["source_num_frames"].item(),
        source_fps=inputs["source_fps"].item(),
        fps=facts["video_fps"],
        max_frames=round(facts["max_time"] * facts["video_fps"]),
        interval_s=case.interval_s,
    )
    yield "B1", "frame index", difference(frame_index, inputs["frame_index"]), EXACT
    resized = case.frames_FCHW
    yield "B2", "resized frames", difference(resized[:, :, ::6, ::6], inputs["resized_u8_every_6th_pixel"]), EXACT
    if "resized_u8_frame0_every_2nd_pixel" in inputs:
        expected = inputs["resized_u8_frame0_every_2nd_pixel"]
        yield "B2", "resized frame 0", difference(resized[0, :, ::2, ::2], expected), EXACT
    if "pixel_values_frame0_every_6th_pixel" in inputs:
        expected = inputs["pixel_values_frame0_every_6th_pixel"]
        got = case.model.normalize_pixels(resized[:1])[0, :, ::6, ::6]
        yield "B2", "pixel values", difference(got, expected), EXACT


def check_vision(case: Case) -> Iterator[Row]:
    """B3-B5 and B7: frames to visual tokens, and what follows each frame."""
    outputs, aligner = case.outputs, case.model.vision_aligner
    vision_TNV = case.features.vision_TNV
    yield "B3", "SigLIP", difference(vision_TNV[0, ::3], outputs["vision_tower_frame0_every_3rd_token"]), CLOSE
    got = aligner.projector(vision_TNV[0])[::9]
    yield "B4", "projector", difference(got, outputs["projector_frame0_every_9th_token"]), CLOSE
    yield "B4", "visual tokens", difference(aligner(vision_TNV[:1])[0], outputs["vision_tokens_frame0"]), CLOSE
    first, last = outputs["multimodal_span"].tolist()
    frames_FLD = case.embeds_1LD[0, first:last].unflatten(0, (len(vision_TNV), -1))
    num_visual = case.model.config.visual_tokens_per_frame
    tokens_per_frame = [num_visual, frames_FLD.shape[1] - num_visual]
    yield "B5", "tokens per frame", difference(tokens_per_frame, outputs["tokens_per_frame"]), EXACT
    if "tail_tokens_all_frames" in outputs:
        row, what, tolerance = ("B5", "sound in each frame", CLOSE) if case.has_audio else ("B7", "time text", SAME)
        yield row, what, difference(frames_FLD[:, num_visual:], outputs["tail_tokens_all_frames"]), tolerance


def check_prompt(case: Case) -> Iterator[Row]:
    """A10: the prompt as ids."""
    question = case.facts["conversations"][0]["value"].replace("<image>", "", 1)
    chat = ChatStyle(**CHATML_V1)
    if question.startswith("\n"):
        question = question[1:]
    else:  # the second newline of the prompt belongs to the recorded question, and this one has none
        chat = dataclasses.replace(chat, media_suffix="\n")
    ids = encode_chat(case.tokenizer, [(question, None)], [MEDIA_MARK], chat).ids
    yield "A10", "prompt ids", difference([ids], case.inputs["input_ids"]), EXACT
    yield "A10", "real time", difference(case.real_time_s, case.inputs["real_time"][0]), EXACT


def check_sequence(case: Case) -> Iterator[Row]:
    """A7: what enters the language model."""
    outputs = case.outputs
    first = case.inputs["input_ids"][0].tolist().index(MEDIA_MARK)
    span = [first, first + len(case.media.ids)]
    yield "A7", "media span", difference(span, outputs["multimodal_span"]), EXACT
    yield "A7", "merged sequence", difference(case.embeds_1LD, outputs["inputs_embeds"]), CLOSE
    positions = torch.arange(case.embeds_1LD.shape[1])[None]
    yield "A7", "positions", difference(positions, outputs["position_ids"]), EXACT


def check_logits(case: Case) -> Iterator[Row]:
    """A8: logits from the recorded sequence and end to end, then along the recorded greedy answer."""
    model, outputs = case.model, case.outputs
    for source, embeds_1LD, tolerance in (
        ("recorded", outputs["inputs_embeds"], CLOSE),
        ("end to end", case.embeds_1LD, LOGITS),
    ):
        output = model(inputs_embeds=embeds_1LD, output_hidden_states=True)
        expected = outputs["logits_last48"]
        yield "A8", f"logits, {source}", difference(output.logits[:, -expected.shape[1] :], expected), tolerance
        hidden_1LD = output.hidden_states[-1][:, ::16]
        yield "A8", f"hidden, {source}", difference(hidden_1LD, outputs["final_hidden_every_16th"]), tolerance
        answer_1LD = model.get_input_embeddings()(outputs["greedy"][None, :-1])
        logits_1LV = model(inputs_embeds=torch.cat([embeds_1LD, answer_1LD], dim=1)).logits
        expected = outputs["greedy_logits"]
        yield "A8", f"greedy logits, {source}", difference(logits_1LV[0, -len(expected) :], expected), tolerance


def check_greedy(case: Case) -> Iterator[Row]:
    """A9: ids of the greedy answer, without and with repetition penalty."""
    for name, penalty in (("greedy", 1.0), ("greedy_rep105", REPETITION_PENALTY)):
        expected = case.outputs[name]
        yield "A9", name, difference(greedy(case, case.prompt_ids, expected, penalty), expected), EXACT


def greedy(case: Case, ids: Sequence[int], expected: Tensor, penalty: float = 1.0) -> list[int]:
    """Prompt ids -> as many greedy ids as were recorded; the end token is one of them and ends nothing."""
    (answer,) = generate(
        case.model, [(ids, case.media)], max_new_tokens=len(expected), eos_ids=(), repetition_penalty=penalty
    )
    return answer.ids


def check_pad_quirk(case: Case) -> Iterator[Row]:
    """B8: when the pad token falls back to <|im_end|>, the released collator drops all of them from the prompt."""
    outputs = case.outputs
    end_id = case.tokenizer.convert_tokens_to_ids(IM_END)
    kept = [token_id for token_id in case.inputs["input_ids"][0].tolist() if token_id != end_id]
    yield "B8", "pad quirk, ids", difference(kept, outputs["padquirk_input_ids_kept"]), EXACT
    ids = case.expand(kept, case.media.ids)
    expected = outputs["padquirk_greedy"]
    yield "B8", "pad quirk, greedy", difference(greedy(case, ids, expected), expected), EXACT
    logits_1LV = case.model(torch.tensor([ids + expected[:-1].tolist()]), [case.media]).logits
    expected = outputs["padquirk_greedy_logits"]
    yield "B8", "pad quirk, logits", difference(logits_1LV[0, -len(expected) :], expected), LOGITS


def check_preference(case: Case) -> Iterator[Row]:
    """The preference step: labels, summed log-probabilities of policy and reference, both losses."""
    dpo = load_file(case.folder / "dpo.safetensors")
    for answer, prefix in (("chosen", ""), ("reject", "reject_")):
        labels = dpo[f"{prefix}labels"]
        yield "DPO", f"{answer} labels", difference(recomputed_labels(case, dpo, prefix), labels), EXACT
        got, expected = expanded_labels(case, dpo, prefix), dpo[f"expanded_{prefix}labels"]
        yield "DPO", f"{answer} labels, expanded", difference(got, expected), EXACT
        expected = dpo[f"{answer}_logits_last48"]
        got = answer_logits(case, dpo, prefix)[:, -expected.shape[1] :]
        yield "DPO", f"{answer} logits", difference(got, expected), LOGITS
    policy_logps = torch.tensor([answer_logp(case, dpo, prefix) for prefix in ("", "reject_")])
    yield "DPO", "policy log-probabilities", difference(policy_logps, dpo["policy_logps"]), 2e-3
    recorded_model = recorded_case(case)
    ref_logps = torch.tensor([answer_logp(recorded_model, dpo, prefix) for prefix in ("", "reject_")])
    yield "DPO", "reference log-probabilities", difference(ref_logps, dpo["reference_logps"]), 2e-3
    chosen, rejected = (policy_logps - ref_logps) * dpo["beta"]
    dpo_loss = -F.logsigmoid(chosen - rejected)[None]
    yield "DPO", "preference loss", difference(dpo_loss, dpo["dpo_loss"]), 2e-4
    logits_1LV, labels_1L = answer_logits(case, dpo, "gt_"), expanded_labels(case, dpo, "gt_")
    ce_gt = F.cross_entropy(logits_1LV[0, :-1], labels_1L[0, 1:], ignore_index=IGNORED)[None]
    yield "DPO", "cross-entropy", difference(ce_gt, dpo["ce_gt"]), 1e-4
    yield "DPO", "total loss", difference(dpo_loss + dpo["ce_weight"] * ce_gt, dpo["total_loss"]), 3e-4


def recomputed_labels(case: Case, dpo: dict[str, Tensor], prefix: str) -> list[list[int]]:
    """Recorded ids of prompt and answer -> labels by our rule for the released targets."""
    ids = dpo[f"{prefix}input_ids"][0].tolist()
    num_prompt = case.inputs["input_ids"].shape[1]
    targets = released_targets(case.tokenizer, ids, [at >= num_prompt for at in range(len(ids))])
    return [[token_id if target else IGNORED for token_id, target in zip(ids, targets, strict=True)]]


def expanded_labels(case: Case, dpo: dict[str, Tensor], prefix: str) -> Tensor:
    """Recorded labels -> labels of the merged sequence (1, L): no media token is a target."""
    labels = dpo[f"{prefix}labels"][0].tolist()
    labels[dpo[f"{prefix}input_ids"][0].tolist().index(MEDIA_MARK)] = MEDIA_MARK
    return torch.tensor([case.expand(labels, [IGNORED] * len(case.media.ids))])


def answer_logits(case: Case, dpo: dict[str, Tensor], prefix: str) -> Tensor:
    ids = case.expand(dpo[f"{prefix}input_ids"][0].tolist(), case.media.ids)
    return case.model(torch.tensor([ids]), [case.media]).logits


def answer_logp(case: Case, dpo: dict[str, Tensor], prefix: str) -> float:
    """Summed log-probability of an answer; the released trainer counts targets of the last positions only."""
    num_last = dpo[f"{prefix}labels"].shape[1]
    labels_L = expanded_labels(case, dpo, prefix)[0, -num_last:][1:]
    logps_LV = answer_logits(case, dpo, prefix)[0, -num_last:][:-1].log_softmax(dim=-1)
    return logps_LV.gather(1, labels_L.clamp(min=0)[:, None])[:, 0][labels_L != IGNORED].sum().item()


def recorded_case(case: Case) -> Case:
    """The case with the recorded reference policy as its model; media tokens are shared."""
    model, _ = load(case.folder / case.facts["weights"], config_fields={"sync": "official"})
    for layer in model.language_model.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.weight.mul_(RECORDED_SCALE)
    return dataclasses.replace(case, model=model)
