"""A family is one object: no other file tells families apart, and a third one needs no other file."""

import ast
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.third_family import ThirdFamily, write_third

import avcap
from avcap.errors import UserError
from avcap.infer.captioner import Captioner
from avcap.infer.plan import plan
from avcap.infer.question_answering import Answerer
from avcap.model import family as registry
from avcap.model.checkpoint.layouts import all_layouts, runnable
from avcap.model.checkpoint.load import load
from avcap.model.family import families, family_of, family_of_type, register_family
from avcap.model.lora import LoraConfig
from avcap.records import PreferencePair, read_jsonl
from avcap.runs.dpo_from_file import DpoFromFileConfig, run_dpo_from_file
from avcap.stages.parts.finetune import Run
from avcap.stages.sft import SftConfig, train_sft
from avcap.train.corpus import CorpusConfig, CorpusFinetuneConfig
from avcap.train.loop import LoopConfig
from avcap.train.optim import OptimConfig
from avcap.train.preference_steps import DpoConfig

SOURCE = Path(avcap.__file__).parent
OWN_ROOMS = ("model/salmonn2/", "model/salmonn2_plus/")
FAMILY_WORDS = {"salmonn2", "salmonn2_plus", "plus", "v1", "qwen2_5_vl", "qwen3_vl", "video_salmonn_2"}
FAMILY_ATTRIBUTES = {"model_type", "family", "model_class", "config_class", "positions", "sync", "official"}
# What is compared there is no family: a field of a file or of a request, an option, or what is known of any model.
ALLOWED = {
    "model/checkpoint/layouts.py: model_type in (*released, *_PARTS)": "a file of no known type is refused",
    "model/checkpoint/hub.py: model_type not in CONFIG_MAPPING": "a judge of a type that transformers does not know",
}


@pytest.fixture(scope="module")
def third(tmp_path_factory):
    """A checkpoint of a family that only this test knows."""
    known = dict(registry._FAMILIES)
    register_family(ThirdFamily())
    yield write_third(tmp_path_factory.mktemp("third") / "model")
    registry._FAMILIES.clear()
    registry._FAMILIES.update(known)


def test_a_config_and_a_type_name_their_family():
    plus = families()["avcap_salmonn2_plus"]
    assert family_of(plus.config_class()) is plus
    assert family_of_type("qwen2_5_vl") is plus  # as its releases call it
    assert family_of_type("video_salmonn_2") is families()["avcap_salmonn2"]
    assert family_of_type("llama") is None and family_of_type(None) is None


def test_layouts_are_called_with_their_article():
    assert [layout.one.split()[0] for layout in all_layouts()] == ["an", *["a"] * (len(all_layouts()) - 1)]
    assert all_layouts()[0].one == "an avcap model folder" and str(all_layouts()[0]) == "avcap model folder"
    assert [layout.title for layout in runnable()] == [
        "avcap model folder",
        "released video-SALMONN 2 folder",
        "released video-SALMONN 2+ folder",
    ]


def test_a_third_family_captions_and_answers_through_the_public_doors(third, videos):
    captioner = Captioner(third)
    caption = captioner.caption(videos / "a.mp4")
    # 3 s at the family's 2 frames a second, a token each; two tokens for a second of audio
    assert (caption.seen.frames, caption.seen.visual_tokens, caption.seen.audio_tokens) == (6, 6, 6)
    silent, dark = (captioner.caption(videos / "a.mp4", **{name: False}) for name in ("use_audio", "use_video"))
    assert silent.seen.audio_tokens == 0 and dark.seen.visual_tokens == 0
    assert len({caption.text, captioner.caption(videos / "b.mp4").text, dark.text}) > 1
    assert Answerer(captioner).needs_lead_in is False
    assert plan(third, seconds=3.0).visual_tokens == 6


def test_a_third_family_has_no_official_behaviour(third):
    with pytest.raises(
        UserError, match=r"never published \(it has a model of avcap_third\), expected a released video"
    ):
        Captioner(third, official=True)


def test_a_third_family_learns_a_step_of_sft_and_a_step_of_dpo(third, videos, tmp_path):
    optim = OptimConfig(lr=1e-2, muon_lr=None, warmup_steps=0)
    row = {"id": "a", "video": str(videos / "a.mp4")}
    row["conversations"] = [{"from": "human", "value": "<video>\nDescribe."}, {"from": "gpt", "value": "a red cat"}]
    (tmp_path / "train.json").write_text(json.dumps([row]))
    model, tokenizer = load(third)
    finetune = CorpusFinetuneConfig(
        corpus=CorpusConfig(files=(str(tmp_path / "train.json"),), fps=2.0, max_frames=6),
        batch_size=1,
        loop=LoopConfig(num_steps=1, num_workers=0),
        optim=optim,
    )
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    run = Run(model=model, tokenizer=tokenizer, out_dir=tmp_path / "sft", parent=third)
    train_sft(run, SftConfig(finetune=finetune))
    changed = [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])]
    moved = {name.partition(".")[0] for name in changed}
    assert {"vision_aligner", "audio_aligner"} <= moved and "vision_tower" not in moved

    pair = PreferencePair(
        sample_id="a", video=str(videos / "a.mp4"), prompt="Describe.", chosen="a cat", rejected="a dog"
    )
    lora = LoraConfig(rank=2, alpha=4, dropout=0.0)
    config = DpoFromFileConfig(dpo=DpoConfig(lora=lora, epochs=1, batch_size=1, optim=optim))
    checkpoint = run_dpo_from_file(third, [pair], config=config, out_dir=tmp_path / "dpo")
    (step,) = (tmp_path / "dpo" / "train" / "metrics.jsonl").read_text().splitlines()
    # nothing was learned before: margin 0 -> -log sigmoid(0) = ln 2 = 0.6931
    assert json.loads(step)["preference"] == pytest.approx(math.log(2), abs=1e-4)
    old, new = load_file(third / "model.safetensors"), load_file(checkpoint / "model.safetensors")
    assert any("q_proj" in name and not torch.equal(old[name], new[name]) for name in new)
    assert list(read_jsonl(tmp_path / "dpo" / "pairs.jsonl", PreferencePair)) == [pair]
    assert Captioner(checkpoint).caption(videos / "a.mp4").checkpoint != Captioner(third).checkpoint


CLASS_TESTS = ("isinstance", "issubclass", "hasattr", "getattr")


def comparisons(path: Path) -> list[str]:
    """A file -> what in it could tell families apart: comparisons and class tests that name one, or its marks."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        tested: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            tested = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in CLASS_TESTS:
            tested = list(node.args)
        elif isinstance(node, ast.Match):
            tested = [node]
        if any(_names_a_family(part, is_none_test=_is_none_test(node)) for part in tested):
            found.append(ast.unparse(node))
    return found


def _names_a_family(part: ast.AST, *, is_none_test: bool) -> bool:
    """One side of a comparison -> whether it is a family's class, its name, or an attribute that says which it is."""
    inside = list(ast.walk(part))
    names = {one.id for one in inside if isinstance(one, ast.Name)}
    names |= {one.attr for one in inside if isinstance(one, ast.Attribute)}
    names |= {one.value for one in inside if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    classes = {
        one.__name__
        for family in families().values()
        for one in (family.model_class, family.config_class, type(family))
    }
    is_mark = isinstance(part, ast.Attribute) and part.attr in FAMILY_ATTRIBUTES and not is_none_test
    return is_mark or bool(names & (classes | FAMILY_WORDS | {"model_type"}))


def _is_none_test(node: ast.AST) -> bool:
    """`x is None`: a family without releases, a request without official rules."""
    return isinstance(node, ast.Compare) and ast.unparse(node.comparators[-1]) == "None"


def test_no_other_file_tells_families_apart():
    files = [path for path in SOURCE.rglob("*.py") if not path.relative_to(SOURCE).as_posix().startswith(OWN_ROOMS)]
    assert len(files) > 250
    found = {f"{path.relative_to(SOURCE).as_posix()}: {one}" for path in files for one in comparisons(path)}
    assert found == set(ALLOWED)


def test_the_rule_finds_what_it_forbids(tmp_path):
    file = tmp_path / "a.py"
    for line in (
        "isinstance(model, Salmonn2PlusForCaptioning)",
        "issubclass(source.model_class, CaptioningModel)",
        "config.model_type == 'x'",
        "fields['model_type'] in KNOWN",
        "request.official == 'v1'",
        "hasattr(config, 'positions') and config.positions == rule",
        "type(family) is Salmonn2Family",
    ):
        file.write_text(f"found = {line}\n")
        assert comparisons(file), line
    file.write_text("ok = family.official is None and isinstance(x, str)\n")
    assert not comparisons(file)
