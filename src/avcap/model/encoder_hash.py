"""A name for the weights of the frozen encoders: what they made of media is kept under it."""

import hashlib

import torch

from avcap.model.captioning import CaptioningModel


def encoder_hash(model: CaptioningModel) -> str:
    """The weights that turn media into features -> 12 hex digits. Features of other encoders are other features."""
    digest = hashlib.sha256()
    for part in (model.vision_tower, model.sound_encoder):
        for name, tensor in sorted(part.state_dict().items()):
            # as bytes: NumPy has no bfloat16
            raw = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy()
            digest.update(name.encode() + raw.tobytes())
    return digest.hexdigest()[:12]
