"""What lmms-eval's entry point calls to learn of the model. lmms-eval is imported by nothing else but model.py."""

from typing import Any

MODEL_ID = "avcap"
CLASS_PATH = "avcap.lmms.model.AvcapLmms"


def model_manifest() -> Any:
    """-> lmms-eval's ModelManifest of the model `avcap`, which takes chat messages."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_ID, chat_class_path=CLASS_PATH)
