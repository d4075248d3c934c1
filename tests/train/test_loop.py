"""k steps + kill + resume = n steps, bit for bit; a checkpoint is whole or not there."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from support.copy_run import OPTIM, Batches, make_net, train
from torch import nn

from avcap.errors import UserError
from avcap.train.checkpoint import latest_state
from avcap.train.loop import LoopConfig, LossOutput, joined, run_loop


@pytest.mark.parametrize("stop_after", [1, 5, 11, 19])
def test_stopped_and_resumed_is_the_same_bit_for_bit(tmp_path, stop_after):
    whole, resumed = make_net(), make_net()
    train(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(resumed, tmp_path / "resumed", stop_after=stop_after)
    resumed = make_net()
    train(resumed, tmp_path / "resumed")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_dropout_goes_on_where_it_was(tmp_path):
    def drop_out(out_dir: Path, *, stop_after: int | None = None) -> torch.Tensor:
        net = make_net()
        net.scale.register_hook(lambda grad: nn.functional.dropout(grad, 0.5))
        torch.manual_seed(1)
        train(net, out_dir, stop_after=stop_after)
        return net.scale.detach()

    whole = drop_out(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        drop_out(tmp_path / "resumed", stop_after=9)
    assert torch.equal(drop_out(tmp_path / "resumed"), whole)


def test_metrics_have_each_step_once_after_a_resumption(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(make_net(), tmp_path, stop_after=10)  # steps 1-10 logged, the checkpoint is from step 8
    train(make_net(), tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 21))


@pytest.mark.slow
def test_worker_processes_change_nothing(tmp_path):
    alone, helped = make_net(), make_net()
    train(alone, tmp_path / "alone", num_steps=6)
    train(helped, tmp_path / "helped", num_steps=6, workers=1)
    assert torch.equal(alone.layers[0].weight, helped.layers[0].weight)


def rows_of(out_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]


def test_microbatches_are_one_big_batch(tmp_path):
    whole, divided = make_net(), make_net()
    train(whole, tmp_path / "whole")
    train(divided, tmp_path / "divided", parts=4)  # 4 x 2 rows instead of 8
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, divided.state_dict()[name], rtol=0, atol=1e-6), name
    for one, other in zip(rows_of(tmp_path / "whole"), rows_of(tmp_path / "divided"), strict=True):
        for figure in ("loss", "mean", "grad_norm"):
            assert one[figure] == pytest.approx(other[figure], rel=1e-5)
        assert one["rows"] == other["rows"] == 8  # added up, where means are averaged


def test_stopped_between_two_microbatches_it_ends_the_same(tmp_path):
    whole, resumed = make_net(), make_net()
    train(whole, tmp_path / "whole", parts=4)
    with pytest.raises(KeyboardInterrupt):
        train(resumed, tmp_path / "resumed", parts=4, stop_after=4 * 9 + 2)  # half of the tenth step is done
    resumed = make_net()
    train(resumed, tmp_path / "resumed", parts=4)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_figures_of_unequal_parts_are_weighted():
    parts = [
        LossOutput(loss=torch.tensor(1.0), metrics={"a": 2.0}, counts={"n": 1}, num_tokens=10, weight=3.0),
        LossOutput(loss=torch.tensor(2.0), metrics={"a": 6.0, "b": 5.0}, num_tokens=20, weight=1.0),
    ]
    step = joined(parts)
    assert step.loss.item() == 3.0 and step.num_tokens == 30 and step.counts == {"n": 1}
    assert step.metrics == {"a": 3.0, "b": 5.0}  # (3 * 2 + 1 * 6) / 4


def test_narrow_weights_do_not_learn(tmp_path):
    with pytest.raises(AssertionError, match="not in float32"):
        train(make_net().bfloat16(), tmp_path)


def test_other_settings_are_refused(tmp_path):
    train(make_net(), tmp_path, num_steps=8)
    with pytest.raises(UserError, match="num_steps 8, this run has 9"):
        train(make_net(), tmp_path, num_steps=9)


def test_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path):
    net = make_net()
    before = net.scale.detach().clone()
    with pytest.raises(FloatingPointError, match="step 1"):
        run_loop(
            net,
            make_batch=Batches(),
            loss_fn=lambda x: LossOutput(loss=net(x).sum() * float("nan")),
            optim=OPTIM,
            out_dir=tmp_path,
            title="nan",
            config=LoopConfig(num_steps=3, num_workers=0),
            notes={},
        )
    assert torch.equal(net.scale, before)


KILLED_RUN = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import avcap.train.checkpoint as checkpoint
    from support.copy_run import make_net, train

    save_file, calls = checkpoint.save_file, 0
    def save_and_die(*args, **kwargs):
        global calls
        calls += 1
        if calls == 4:  # the optimiser's file of the second checkpoint: the folder is half written
            os.kill(os.getpid(), signal.SIGKILL)
        save_file(*args, **kwargs)
    checkpoint.save_file = save_and_die
    train(make_net(), Path(sys.argv[1]))
""")


@pytest.mark.slow
def test_kill_in_the_middle_of_a_checkpoint_leaves_the_one_before(tmp_path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run([sys.executable, "-c", KILLED_RUN, str(tmp_path)], env=env)
    assert process.returncode == -signal.SIGKILL
    state = latest_state(tmp_path / "checkpoints")
    assert state is not None and state.name == "step-000004"
    resumed, whole = make_net(), make_net()
    train(resumed, tmp_path)
    train(whole, tmp_path / "whole")
    assert torch.equal(resumed.layers[0].weight, whole.layers[0].weight)
