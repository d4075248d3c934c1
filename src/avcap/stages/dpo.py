"""One round's learning: preference pairs -> a fresh LoRA, trained by guided DPO against the model as it was; merged.

    log-probs of all pairs under the model as it is, kept in OUT/ref_logprobs.jsonl
    -> LoRA with B = 0: the first loss is that of equals (ln 2), checked
    -> packed rows [prompt | chosen | rejected | reference caption], the video read once
    -> merged in float32: the next round's reference policy

Paper (arXiv 2410.06682), section 3: multi-round DPO on a LoRA proxy, guided by cross-entropy on the ground truth. What
is beyond it: questions replayed beside the pairs, so that answering them is not forgotten.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from avcap.files.write import replacing
from avcap.model.captioning import CaptioningModel
from avcap.model.lora import attach_lora, load_lora, lora_tensors, merge_lora
from avcap.records import PreferencePair
from avcap.train.compute import checkpoint_activations, keep_trained_in_float32, round_trained
from avcap.train.loop import LoopConfig, run_loop
from avcap.train.pair_examples import MediaOf, PairBatches, PairEncoder, ReplayItem
from avcap.train.preference_steps import DpoConfig, DpoLearner, make_weight_regularizer, store_ref_logprobs
from avcap.train.ref_logprobs import RefLogprobStore, ref_policy

ADAPTER = "adapter.safetensors"


def dpo(
    model: CaptioningModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    pairs: Sequence[PreferencePair],
    media_of: MediaOf,
    config: DpoConfig,
    seed: int,
    out_dir: Path,
    title: str = "dpo",
    replay: Sequence[ReplayItem] = (),
    adapter: Path | None = None,
) -> None:
    """Learns the pairs in place. Stopped and called again with the same model, it goes on where it was.

    `adapter`: a LoRA to go on with instead of a fresh one; its reference is `model` without it. OUT/adapter.safetensors
    is this round's.
    """
    config.check(has_questions=bool(replay))
    dtype = model.dtype
    out_dir.mkdir(parents=True, exist_ok=True)
    store = RefLogprobStore(out_dir / "ref_logprobs.jsonl", policy=ref_policy(model))
    batches = PairBatches(
        pairs=pairs,
        batch_size=config.batch_size,
        seed=seed,
        replay=replay,
        replay_size=config.replay.batch_size if config.replay.weight else 0,
    )
    encoder = PairEncoder(model=model, tokenizer=tokenizer, media_of=media_of, max_tokens=config.max_tokens)
    store_ref_logprobs(model, encoder, store, pairs, batch_size=config.batch_size)
    _choose_what_learns(model, config, seed=seed, adapter=adapter)
    learner = DpoLearner(
        model=model,
        encoder=encoder,
        batches=batches,
        store=store,
        config=config,
        is_fresh=adapter is None,
        weight_regularizer=make_weight_regularizer(model, encoder, replay, config=config),
    )
    num_steps = config.epochs * batches.steps_per_epoch
    run_loop(
        model,
        make_batch=learner.parts,
        loss_fn=learner.loss,
        optim=config.optim,
        out_dir=out_dir,
        title=title,
        config=LoopConfig(num_steps=num_steps, checkpoint_every=config.checkpoint_every, log_every=1, num_workers=0),
        notes={"stage": "dpo", "seed": seed, "num_steps": num_steps, "num_pairs": len(pairs)},
    )
    if not config.full:
        with replacing(out_dir / ADAPTER) as aside:
            save_file(lora_tensors(model), aside)
        merge_lora(model)
    round_trained(model, dtype=dtype)


def _choose_what_learns(model: CaptioningModel, config: DpoConfig, *, seed: int, adapter: Path | None) -> None:
    """A LoRA, fresh or gone on with, or all layers; and the aligners if wanted."""
    model.requires_grad_(False)
    torch.manual_seed(seed)  # the LoRA's A
    if config.full:
        model.language_model.model.layers.requires_grad_(True)
    else:
        attach_lora(model, config.lora)
    if adapter is not None:
        load_lora(model, adapter)
    if config.train_aligners:
        for aligner in (model.vision_aligner, model.audio_aligner):
            aligner.requires_grad_(True)
    keep_trained_in_float32(model)
    # Dropout would make the policy another one than its reference before anything is learned.
    model.eval()
    if config.checkpoint_activations:
        checkpoint_activations(model)
