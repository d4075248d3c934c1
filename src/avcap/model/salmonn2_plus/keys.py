"""Key names of the released 2+ files, old and new, and those of the stock modules. Standard library only.

The files hold a Qwen2.5-VL under its names of before transformers 4.52 ("old") or of today ("new"), and `audio.*`.
Both are brought to the new ones, which stock classes have; `audio.*` keeps its name, and AUDIO_PARTS says what is what.
"""

OLD_TO_NEW = (("visual.", "model.visual."), ("model.", "model.language_model."))
"""Backbone: old prefix -> new prefix, first match wins. `lm_head.` is the same in both; a tied one is left out."""
NEW_PREFIXES = ("model.language_model.", "model.visual.")
NEW_AUDIO_PREFIX, AUDIO_PREFIX = "model.audio.", "audio."

AUDIO_PARTS = (
    ("q_tokens", "query_tokens"),
    ("qformer.bert.embeddings.LayerNorm.", "qformer.layernorm."),
    ("qformer.bert.encoder.", "qformer.encoder."),
    ("audio_proj.", "proj."),
    ("", "audio_encoder."),
)
"""After `audio.`: released prefix -> part of the audio branch, first match wins; the rest is the Whisper encoder."""
IN_QFORMER = (("attention.self.", "attention.attention."),)
"""Within `qformer.encoder.`: BERT's names -> those of `Blip2QFormerModel`."""
WITHOUT_MEANING = ("audio.qformer.bert.embeddings.position_ids",)
"""A table 0..511 that BERT keeps; nothing reads it."""

ADAPTER_PREFIX = "base_model.model."
"""What PEFT puts before the name of every module of the model it wraps."""
TRAINING_PREFIXES = ("module.", ADAPTER_PREFIX)
"""What DeepSpeed and PEFT put before names in `checkpoint-N.bin`, in this order; each may be absent."""
NOT_IN_ADAPTERS = ("audio.q_tokens",)
"""Bare parameters that PEFT cannot store: an adapter's base must bring them."""


def new_name(name: str) -> str:
    """Released name, old or new -> the name in today's stock Qwen2.5-VL, or "audio...." for the audio branch.

    >>> new_name("model.layers.0.mlp.up_proj.weight"), new_name("visual.merger.ln_q.weight")
    ('model.language_model.layers.0.mlp.up_proj.weight', 'model.visual.merger.ln_q.weight')
    """
    if name.startswith(NEW_AUDIO_PREFIX):
        return name.removeprefix("model.")
    if name.startswith(NEW_PREFIXES):
        return name
    for old, new in OLD_TO_NEW:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def old_name(name: str) -> str:
    """The other way: a name in today's stock Qwen2.5-VL, or of the audio branch -> the released old name."""
    for old, new in OLD_TO_NEW:
        if name.startswith(new):
            return old + name.removeprefix(new)
    return new_name(name)


def audio_part(name: str) -> str | None:
    """ "audio...." -> its name in the audio branch, beginning with the part; None for one without meaning.

    >>> audio_part("audio.qformer.bert.encoder.layer.0.attention.self.query.bias")
    'qformer.encoder.layer.0.attention.attention.query.bias'
    """
    if name in WITHOUT_MEANING:
        return None
    rest = name.removeprefix(AUDIO_PREFIX)
    for theirs, ours in AUDIO_PARTS:
        if rest.startswith(theirs):
            part = ours + rest.removeprefix(theirs)
            for old, new in IN_QFORMER if part.startswith("qformer.") else ():
                part = part.replace(old, new)
            return part
    raise AssertionError(f"{name}: AUDIO_PARTS ends with a prefix that fits all")
