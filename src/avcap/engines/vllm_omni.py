"""vllm-omni: as vLLM, and told to write alone; it would also speak the answer otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from avcap.engines.dialect import Sent
from avcap.engines.vllm import VLLM
from avcap.engines.vllm import options as vllm_options


def options(sent: Sent) -> Mapping[str, Any]:
    return {**vllm_options(sent), "modalities": ["text"]}


VLLM_OMNI = replace(VLLM, name="vllm_omni", title="vllm-omni", options=options)
