"""Bodies of requests: what they ask, and what is refused with the field's name."""

import json
import math

import pytest

from avcap.web.server.call import read_call
from avcap.web.server.refusals import Refused
from avcap.web.server.settings import Limits

VIDEO = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
USER = {"role": "user", "content": "Say OK."}


def call(body, **limits):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_call(raw, model="tiny", max_new_tokens=12, limits=Limits(**limits))


def refused(body, **limits) -> Refused:
    with pytest.raises(Refused) as caught:
        call(body, **limits)
    return caught.value


def test_a_plain_question_is_greedy_and_as_long_as_the_checkpoint_says():
    asked = call({"messages": [USER]})
    assert asked.turns == (("Say OK.", None),) and not asked.media and not asked.is_stream
    assert (asked.decoding.max_new_tokens, asked.decoding.temperature, asked.num_answers) == (12, 0.0, 1)


def test_every_form_of_media_is_found_and_texts_are_joined():
    content = [
        {"type": "text", "text": "Look:"},
        VIDEO,
        {"type": "audio_url", "audio_url": {"url": "https://a.example/a.wav"}},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
        {"type": "input_video", "input_video": {"data": "AAAA"}},
        {"type": "image_url", "image_url": {"url": "data:video/mp4;base64,AAAA"}},
        {"type": "image_url", "image_url": "data:image/png;base64,AAAA"},
        {"type": "text", "text": "What happens?"},
    ]
    asked = call({"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": content}]})
    assert [part.kind for part in asked.media] == ["video", "audio", "audio", "video", "video", "image"]
    assert asked.media[1].param == "messages[1].content[2].audio_url"
    assert asked.turns == (("Be short.\n\nLook:\n\nWhat happens?", None),)


def test_seconds_before_images_are_times_and_other_texts_are_not():
    image = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}}
    content = [{"type": "text", "text": "second 1.5:"}, image, {"type": "text", "text": "And this?"}, image]
    asked = call({"messages": [{"role": "user", "content": content}]})
    assert [part.second for part in asked.media] == [1.5, None]
    assert asked.turns == (("And this?", None),)


def test_a_conversation_has_its_media_in_the_first_question():
    messages = [{"role": "user", "content": [VIDEO]}, {"role": "assistant", "content": "A bell."}, USER]
    assert call({"messages": messages}).turns == (("", "A bell."), ("Say OK.", None))
    late = [USER, {"role": "assistant", "content": "OK."}, {"role": "user", "content": [VIDEO]}]
    assert refused({"messages": late}).param == "messages[2]"


def test_options_of_engines_are_read_or_told_as_ignored():
    asked = call(
        {
            "messages": [USER],
            "max_tokens": 3,
            "max_completion_tokens": 7,
            "temperature": 0.5,
            "top_k": -1,
            "seed": 4,
            "n": 2,
            "logprobs": True,
            "top_logprobs": 5,
            "use_audio_in_video": False,
            "chat_template_kwargs": {"enable_thinking": False},
            "user": "me",
            "stop": [],
            "tools": None,
        }
    )
    assert (asked.decoding.max_new_tokens, asked.decoding.top_k, asked.decoding.seed) == (7, 0, 4)
    assert (asked.num_answers, asked.top_logprobs, asked.use_own_audio) == (2, 5, False)
    assert asked.ignored == ("chat_template_kwargs", "user")
    fields = {"mm_processor_kwargs": {"use_audio_in_video": False}}
    assert not call({"messages": [USER], **fields}).use_own_audio


def test_an_interval_is_of_one_video():
    messages = [{"role": "user", "content": [VIDEO]}]
    assert call({"messages": messages, "interval_s": [3, None]}).interval_s == (3.0, math.inf)
    assert refused({"messages": [USER], "interval_s": [3, 7]}).param == "interval_s"


def test_seeds_of_samples_are_drawn_unless_they_are_given():
    body = {"messages": [USER], "temperature": 1.0}
    assert len({call(body).decoding.seed for _ in range(5)}) > 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no JSON object"),
        (b"\xff\xfe", "no UTF-8"),
        (b"[" * 100_000, "no JSON object"),
        (b'{"a": NaN}', "no JSON object"),
        (b'{"n": 1, "n": 2}', "no JSON object"),
        ([], "body of list"),
        ({}, "got no messages"),
        ({"messages": {}}, "got no messages"),
        ({"messages": [[]]}, "got the role"),
        ({"messages": [{"role": "root", "content": "x"}]}, "got the role 'root'"),
        ({"messages": [{"role": "user", "content": 5}]}, "got no content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "Unknown part type"),
        ({"messages": [{"role": "user", "content": [{"type": ["text"]}]}]}, "Unknown part type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "without text"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "got no data"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": None}}]}]}, "got no da"),
        ({"messages": [{"role": "system", "content": [VIDEO]}, USER]}, "Unknown part type"),
        ({"messages": [{"role": "user", "content": " "}]}, "got no question"),
        ({"messages": [USER, {"role": "assistant", "content": "OK."}]}, "got no question"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 301}]}, "more than 300 parts"),
        ({"messages": [USER], "model": "other"}, "got the model 'other', expected 'tiny'"),
        ({"messages": [USER], "temperature": -1}, "temperature: got -1"),
        ({"messages": [USER], "temperature": True}, "temperature: got True"),
        ({"messages": [USER], "max_tokens": 0}, "max_tokens: got 0"),
        ({"messages": [USER], "max_tokens": 1.5}, "max_tokens: got 1.5"),
        ({"messages": [USER], "n": 17, "temperature": 1}, "n: got 17, expected a whole number from 1 to 16"),
        ({"messages": [USER], "n": 2}, "got n = 2 at temperature 0"),
        ({"messages": [USER], "top_p": 0}, "top_p: got 0"),
        ({"messages": [USER], "stream": "yes"}, "expected true or false"),
        ({"messages": [USER], "stop": ["x"]}, "stop is not supported"),
        ({"messages": [USER], "tools": [{}]}, "tools is not supported"),
        ({"messages": [USER], "response_format": {"type": "json_object"}}, "response_format is not supported"),
        ({"messages": [{"role": "user", "content": [VIDEO]}], "interval_s": [7, 3]}, "got the interval 7 to 3 s"),
        ({"messages": [{"role": "user", "content": [VIDEO]}], "interval_s": "3-7"}, "got no interval"),
    ],
)
def test_what_is_no_request_is_refused_in_one_sentence(body, message):
    error = refused(body)
    assert message in error.message and len(error.message) < 400 and "\n" not in error.message
    assert error.status in (400, 404)
