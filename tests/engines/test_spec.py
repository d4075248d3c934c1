"""--model openai:NAME@URL?... is read, refused in one line, and never shows what might be a key."""

import pytest

from avcap.engines.spec import EngineSpec, is_engine, read_engine_spec
from avcap.errors import UserError

URL = "http://127.0.0.1:8000/v1"


def test_all_that_can_be_said():
    spec = read_engine_spec(f"openai:Qwen/Qwen3-Omni-30B-A3B-Instruct@{URL}?dialect=vLLM-omni&fps=0.5&max_frames=64")
    assert spec == EngineSpec(
        model="Qwen/Qwen3-Omni-30B-A3B-Instruct", url=URL, dialect="vllm_omni", fps=0.5, max_frames=64
    )
    assert spec.name == f"openai:Qwen/Qwen3-Omni-30B-A3B-Instruct@{URL}?dialect=vllm_omni&fps=0.5&max_frames=64"
    assert read_engine_spec(spec.name) == spec
    assert read_engine_spec(f"openai:omni@{URL}/?dialect=auto").name == f"openai:omni@{URL}"


@pytest.mark.parametrize("spelling", ["llama_cpp", "llama.cpp", "llamacpp", "Llama-cpp"])
def test_a_dialect_has_many_spellings(spelling):
    assert read_engine_spec(f"openai:omni@{URL}?dialect={spelling}").dialect == "llama_cpp"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("dialect=tgi", "got ?dialect=tgi, expected auto or one of vllm, sglang"),
        ("fps=fast", "got ?fps=fast, expected a number from 0.01 to 60"),
        ("max_frames=0", "got ?max_frames=0, expected a number from 1 to 2048"),
        ("max_frames=1.5", "got ?max_frames=1.5, expected a whole number"),
        ("vllm", "expected some of dialect, fps, max_frames, max_pixels"),
        ("api_key=sk-secret", "got 'api_key' behind the ?"),
    ],
)
def test_what_is_wrong_behind_the_question_mark(query, told):
    with pytest.raises(UserError) as caught:
        read_engine_spec(f"openai:omni@{URL}?{query}")
    assert told in str(caught.value) and "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["openai:omni@http://me:sk-secret@host/v1", "openai:omni@ftp://host", "openai:@http://x"]
)
def test_a_wrong_name_shows_no_secret(text):
    with pytest.raises(UserError) as caught:
        read_engine_spec(text)
    assert str(caught.value).startswith("engine: ") and "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "dialect", "variables"),
    [
        (URL, None, ("AVCAP_ENGINE_KEY", "OPENAI_API_KEY")),
        ("https://api.openai.com/v1", "frames", ("AVCAP_ENGINE_KEY", "OPENAI_API_KEY")),
        (
            "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
            "dashscope",
            ("AVCAP_ENGINE_KEY", "DASHSCOPE_API_KEY"),
        ),
        (
            "https://ws1.cn-beijing.maas.aliyuncs.com/compatible-mode/v1",
            "dashscope",
            ("AVCAP_ENGINE_KEY", "DASHSCOPE_API_KEY"),
        ),
        (
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "gemini",
            ("AVCAP_ENGINE_KEY", "GEMINI_API_KEY"),
        ),
        ("https://dashscope.aliyuncs.com.evil.example/v1", None, ("AVCAP_ENGINE_KEY", "OPENAI_API_KEY")),
    ],
)
def test_an_address_tells_dialect_and_key(url, dialect, variables):
    spec = EngineSpec(model="omni", url=url)
    assert (spec.host_dialect, spec.key_variables) == (dialect, variables)


def test_what_is_an_engine():
    assert is_engine(f"openai:omni@{URL}")
    assert not is_engine("tiny") and not is_engine("org/name") and not is_engine("./openai")
