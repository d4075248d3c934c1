"""A name for the weights of the frozen encoders: what they made of media is kept under it."""

import hashlib

from avcap.files.hashes import hash_tensors
from avcap.model.captioning import CaptioningModel


def encoder_hash(model: CaptioningModel) -> str:
    """The weights that turn media into features -> 12 hex digits. Features of other encoders are other features."""
    parts = (model.vision_tower, model.audio_encoder)
    tensors = (named for part in parts for named in sorted(part.state_dict().items()))
    return hash_tensors(tensors, digest=hashlib.sha256())[:12]
