"""Tensors to logits. Importing this registers the model with the Auto classes of `transformers`."""

from transformers import AutoConfig, AutoModelForCausalLM

from avcap.model.configuration import Salmonn2Config
from avcap.model.features import MediaFeatures, MediaTokens
from avcap.model.salmonn2 import Salmonn2ForCaptioning

AutoConfig.register(Salmonn2Config.model_type, Salmonn2Config, exist_ok=True)
AutoModelForCausalLM.register(Salmonn2Config, Salmonn2ForCaptioning, exist_ok=True)

__all__ = ["MediaFeatures", "MediaTokens", "Salmonn2Config", "Salmonn2ForCaptioning"]
