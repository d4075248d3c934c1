"""Tensors to logits. Importing this registers the models with the Auto classes of `transformers`."""

from transformers import AutoConfig, AutoModelForCausalLM

from avcap.model.features import MediaFeatures, MediaTokens
from avcap.model.salmonn2.configuration import Salmonn2Config
from avcap.model.salmonn2.modeling import Salmonn2ForCaptioning
from avcap.model.salmonn2_plus.configuration import Salmonn2PlusConfig
from avcap.model.salmonn2_plus.modeling import Salmonn2PlusForCaptioning

for config, model in ((Salmonn2Config, Salmonn2ForCaptioning), (Salmonn2PlusConfig, Salmonn2PlusForCaptioning)):
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModelForCausalLM.register(config, model, exist_ok=True)

__all__ = [
    "MediaFeatures",
    "MediaTokens",
    "Salmonn2Config",
    "Salmonn2ForCaptioning",
    "Salmonn2PlusConfig",
    "Salmonn2PlusForCaptioning",
]
