"""What the published code of video-SALMONN 2 does otherwise than we do; docs/official.md measures it."""

from collections.abc import Sequence
from typing import Any

from avcap.model.family import OfficialRules

# Dials of our models that no published one has -> the value without them.
_OURS = {"frame_difference": False, "connector_norm": False, "time_vectors": False, "type_vectors": False}
_LANGUAGE_MODEL = "qwen2"


class Salmonn2Official(OfficialRules):
    title = "video-SALMONN 2"
    config_fields = {"sync": "official"}  # noqa: RUF012  (read only)
    reading = "v1"
    cuts_intervals = True
    resize = "Pillow bicubic, squashed"

    def unpublished(self, config: Any) -> list[str]:
        """Config -> what of it no published model has."""
        ours = [name for name, value in _OURS.items() if getattr(config, name) != value]
        text = config.text_config.model_type
        return ours if text == _LANGUAGE_MODEL else [*ours, f"a language model {text}"]

    def prompt(self, ids: Sequence[int], *, end_id: int, pad_id: int | None) -> list[int]:
        """Ids of a prompt -> those that reach the published model.

        Its collator masks padding by its id. A tokenizer that pads with `<|im_end|>`, or has no padding and so falls
        back to it, loses every `<|im_end|>` of the prompt.
        """
        return list(ids) if pad_id not in (None, end_id) else [token for token in ids if token != end_id]
