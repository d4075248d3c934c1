"""Rounds whose captions an engine samples: it has to serve the round's model, and the round's LoRA is kept for it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.scripted_engine import VLLM, Asked, ScriptedEngine
from support.served_model import ServedModel
from support.tiny_plus import write_tiny_plus

from avcap.captioners import open_engine_captioner
from avcap.data.qa_files import VideoQuestion
from avcap.data.request import Request
from avcap.engines.engine import EngineOptions
from avcap.engines.spec import read_engine_spec
from avcap.errors import UserError
from avcap.evaluation.same_weights import Probe, check_same_weights
from avcap.infer.captioner import Captioner
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.infer.question_answering import Answerer
from avcap.judge.inputs.ingest import read_truth
from avcap.judge.oracle import OracleJudge
from avcap.media.encode import decode_wav, encode_wav
from avcap.media.load import read_clip
from avcap.model.average import read_weights
from avcap.model.checkpoint.convert import plan_conversion, write_conversion
from avcap.model.lora import LoraConfig
from avcap.preference.round_data import RoundData
from avcap.preference.select import PairConfig
from avcap.records import Caption, Decoding, Sample, read_jsonl
from avcap.stages.rounds import RoundsConfig, SamplingConfig, run_rounds
from avcap.train.optim import OptimConfig
from avcap.train.preference_steps import DpoConfig

EXAMPLES = Path(__file__).parents[2] / "examples" / "truth.jsonl"
LORA = LoraConfig(rank=4, alpha=8, dropout=0.0)
CONFIG = RoundsConfig(
    num_rounds=1,
    sampling=SamplingConfig(num_prompts=2, local_share=0.0, captions_per_prompt=4, temperature=1.0),
    pairs=PairConfig(rule="best_vs_worst", min_gap=0.01, min_length_ratio=0.1, max_length_ratio=10.0),
    dpo=DpoConfig(
        lora=LORA,
        epochs=1,
        batch_size=2,
        optim=OptimConfig(lr=1e-3, muon_lr=None, warmup_steps=1),
        checkpoint_every=1,
    ),
)


def audio(path: str) -> bytes:
    """A file -> its audio as an engine is sent it."""
    return decode_wav(encode_wav(read_clip(path, with_video=False).waveform_S)).tobytes()


class Served(ScriptedEngine):
    """vLLM with a model of ours: what it says about a video is what the model here says of it."""

    def serve(self, captioner: Captioner, samples: list[Sample], *, logprobs: bool = True) -> "Served":
        request = Request(decoding=Decoding(max_new_tokens=captioner.settings.max_new_tokens))
        answerer, self.said = Answerer(captioner), {}
        for sample, clip in zip(samples, answerer.clips(samples, request), strict=True):
            looked = answerer.look(clip, sample=sample, request=request)
            prompt = captioner.settings.prompts.global_caption
            (reply,) = answerer.reply(looked, [prompt], max_new_tokens=request.decoding.max_new_tokens)
            asked = VideoQuestion(
                question_id="q", video="", kind="", text=prompt, answer=reply.text, options=(reply.text,)
            )
            ((score,),) = answerer.text_scores(looked, [asked])
            sampled = replace(request, decoding=replace(request.decoding, temperature=1.0))
            drawn = [row.text for row in captioner.sample([sample], sampled, num_answers=4)]
            self.said[audio(sample.video)] = (reply.text, score if logprobs else None, drawn)
        return self

    def _completion(self, asked: Asked, body: dict) -> bytes:
        text, score, drawn = self.said.get(asked.waveform_S.tobytes(), (None, None, []))
        if text is None:
            return super()._completion(asked, body)
        texts = drawn[: body.get("n", 1)] if body["temperature"] else [text]
        choices = [{"finish_reason": "stop", "message": {"content": one}} for one in texts]
        if score is not None and body.get("logprobs"):
            words = text.split()
            choices[0]["logprobs"] = {"content": [{"token": word, "logprob": score / len(words)} for word in words]}
        return json.dumps({"choices": choices, "usage": self._usage(asked)}).encode()


@pytest.fixture(scope="module")
def truth():
    return read_truth(EXAMPLES)


@pytest.fixture(scope="module")
def samples(truth) -> list[Sample]:
    """Whole videos, the last to measure on."""
    found = [replace(sample, video=truth.video_path(sample)) for sample in truth.samples if sample.interval_s is None]
    return [replace(sample, prompt="") for sample in found[:3]]


@pytest.fixture(scope="module")
def tiny() -> Captioner:
    return Captioner("tiny-sft")


def sampler_of(server: ScriptedEngine, captioner: Captioner):
    settings = captioner.settings
    spec = replace(read_engine_spec(server.model), fps=settings.fps, max_frames=settings.max_frames)
    return open_engine_captioner(spec, EngineOptions(timeout_s=20), prompts=settings.prompts)


@pytest.mark.slow
@pytest.mark.parametrize("logprobs", [True, False])
def test_the_same_weights_are_known(logprobs, tiny, samples):
    with Served(VLLM).serve(tiny, samples, logprobs=logprobs) as server, sampler_of(server, tiny) as sampler:
        probes = check_same_weights(sampler, tiny, samples, folder="tiny-sft")
    assert len(probes) == 3 and all(probe.text == probe.own_text for probe in probes)
    assert all(probe.gap == (pytest.approx(0, abs=1e-4) if logprobs else None) for probe in probes)


@pytest.mark.slow
@pytest.mark.parametrize("logprobs", [True, False])
def test_other_weights_are_refused(logprobs, tiny, samples):
    other = Captioner("tiny-base")
    told = r"serves other weights than round-1.* load round-1 there, and run this again"
    served = Served(VLLM).serve(other, samples, logprobs=logprobs)
    with served as server, sampler_of(server, tiny) as sampler, pytest.raises(UserError, match=told):
        check_same_weights(sampler, tiny, samples, folder="round-1")


@pytest.mark.slow
def test_weights_of_the_other_family_are_known_and_told_apart(samples, tmp_path):
    folder = write_tiny_plus(tmp_path / "plus")
    other, plus = write_tiny_plus(tmp_path / "other", seed=1), Captioner(folder)
    videos = [sample.video for sample in samples]
    with ServedModel(VLLM).load(folder, videos) as server, sampler_of(server, plus) as sampler:
        probes = check_same_weights(sampler, plus, samples, folder=str(folder))
        assert all(probe.text == probe.own_text and probe.lead == 0 for probe in probes)
        assert all(probe.gap == pytest.approx(0, abs=1e-4) for probe in probes)
        server.load(other, videos)
        with pytest.raises(UserError, match=r"serves other weights than .*plus: of 3 of 3 probes"):
            check_same_weights(sampler, plus, samples, folder=str(folder))


@pytest.mark.parametrize(
    ("served", "lead", "is_same"),
    [
        (-0.50, 0.0, True),
        (-0.54, 0.25, True),  # a near tie, taken the other way
        (-0.54, 0.26, False),  # as a model of the round before would
        (-0.56, 0.0, False),  # 0.06 a token
    ],
)
def test_what_makes_weights_the_same(served, lead, is_same):
    probe = Probe(sample_id="a", text="one", own_text="two", own=-0.50, served=served, lead=lead)
    assert probe.is_same == is_same


@pytest.mark.slow
def test_a_round_sampled_by_an_engine_keeps_its_adapter(tiny, samples, truth, tmp_path):
    """The adapter, merged into the model that the round began with by avcap convert, is the round's checkpoint."""
    said = []
    parent = find_checkpoint("tiny-sft")
    with Served(VLLM).serve(tiny, samples) as server:
        run_rounds(
            parent,
            config=CONFIG,
            round_data=RoundData(samples=samples[:2], held_out=samples[2:]),
            out_dir=tmp_path,
            judge=OracleJudge(truth.worlds.values()),
            say=said.append,
            sampler=lambda settings: sampler_of(server, tiny),
        )
        assert f"round 1: {sampler_of(server, tiny).checkpoint} serves {parent} (2 probes)" in said
        captions = list(read_jsonl(tmp_path / "round-1/captions.jsonl", Caption))
        drawn = {text for _, _, texts in server.said.values() for text in texts}
    assert len(captions) == 8 and {caption.text for caption in captions} <= drawn
    assert all(caption.seen.audio == "confirmed" for caption in captions)
    adapter = tmp_path / "round-1/adapter"
    fields = json.loads((adapter / "adapter_config.json").read_text())
    assert (fields["r"], fields["lora_alpha"], fields["base_model_name_or_path"]) == (4, 8, str(parent))
    names = set(load_file(adapter / "adapter_model.safetensors"))
    assert "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight" in names
    plan = plan_conversion(adapter, workspace=tmp_path / "work", base=parent)
    write_conversion(plan, tmp_path / "merged")
    merged, kept = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", adapter.parent / "checkpoint")
    )
    assert merged.keys() == kept.keys()
    assert all(merged[name].allclose(kept[name], atol=1e-6) for name in merged)
    before = read_weights(next(parent.glob("*.safetensors")))
    assert any(not before[name].equal(kept[name]) for name in kept)
