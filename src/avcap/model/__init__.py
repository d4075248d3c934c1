"""Tensors to logits. Importing this registers the models with the Auto classes of `transformers`."""

from avcap.model.family import register_family
from avcap.model.features import MediaFeatures, MediaTokens
from avcap.model.salmonn2.configuration import Salmonn2Config
from avcap.model.salmonn2.family import Salmonn2Family
from avcap.model.salmonn2.modeling import Salmonn2ForCaptioning
from avcap.model.salmonn2_plus.configuration import Salmonn2PlusConfig
from avcap.model.salmonn2_plus.family import Salmonn2PlusFamily
from avcap.model.salmonn2_plus.modeling import Salmonn2PlusForCaptioning

register_family(Salmonn2Family())
register_family(Salmonn2PlusFamily())

__all__ = [
    "MediaFeatures",
    "MediaTokens",
    "Salmonn2Config",
    "Salmonn2ForCaptioning",
    "Salmonn2PlusConfig",
    "Salmonn2PlusForCaptioning",
]
