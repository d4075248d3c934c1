"""What is planned is what a run then takes."""

import pytest
import torch
from support import ASSETS
from support.released_layouts import SIZES_TINY, write_plus

from avcap.errors import UserError
from avcap.infer.captioner import Captioner
from avcap.infer.plan import cache_bytes, plan
from avcap.model.transformers_renames import cache_of

V1_FOLDER = ASSETS / "v1_av_31s"


@pytest.mark.parametrize("family", ["tiny", "plus"])
def test_tokens_weights_and_cache_are_those_of_a_run(family, random_checkpoint, videos, tmp_path):
    folder = random_checkpoint
    if family == "plus":
        folder = write_plus(tmp_path / "plus", SIZES_TINY, tokenizer_from=V1_FOLDER)
    planned = plan(folder, seconds=3.0, frame_size=(64, 64))
    captioner = Captioner(folder)
    seen = captioner.caption(str(videos / "a.mp4"), max_new_tokens=2).seen
    assert planned.visual_tokens == pytest.approx(seen.visual_tokens, rel=0.1)
    assert planned.audio_tokens == pytest.approx(seen.audio_tokens, abs=2)
    weights = sum(weight.numel() * weight.element_size() for weight in captioner.model.parameters())
    assert planned.weight_bytes == pytest.approx(weights, rel=0.1)
    ids = torch.ones(1, 40, dtype=torch.long)
    output = captioner.model.language_model(input_ids=ids, use_cache=True)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache_of(output).layers)
    assert cache_bytes(captioner.model.config.text_config, 40, dtype=torch.float32) == kept
    assert planned.cache_bytes == kept // 40 * (planned.prompt_tokens + planned.new_tokens)


def test_the_command_says_it_before_anything_is_loaded(run, random_checkpoint):
    code, out, err = run("plan", "--model", random_checkpoint, "--video", "3s", "--train")
    assert (code, err) == (0, "")
    for word in ("tokens", "weights", "keys, values", "activations", "training", "time", "judge"):
        assert f"  {word:14}" in out
    for words in (["--video", "soon"], ["--video", "3s", "--frame", "wide"]):
        code, _, err = run("plan", "--model", random_checkpoint, *words)
        assert code == 2 and "expected" in err


def test_a_folder_that_is_no_model_is_an_error(tmp_path):
    with pytest.raises(UserError, match="expected a checkpoint folder"):
        plan(tmp_path, seconds=1.0)
