"""Whoever asks, and whatever: the server refuses in a sentence, says nothing of this machine, and answers the next."""

import base64
import json
import socket
import struct
import threading
import time
import zlib
from pathlib import Path

import pytest
from support.served_checkpoint import Served, data_url, media, text, with_limits
from support.videos import write_video

from avcap.infer.captioner import Captioner
from avcap.web.server.settings import Access

KEY = "sk-the-key-of-this-server"


def png_bomb(side: int) -> bytes:
    """-> a PNG of side x side black pixels: a few hundred kB that would decode to gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (side * 3 + 1)
    rows = b"".join(packer.compress(row) for _ in range(side // 20)) + packer.flush()  # the head alone says how many
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def b64(data: bytes | str) -> str:
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


@pytest.fixture(scope="module")
def place(tmp_path_factory, videos) -> Path:
    """A folder that is opened, and a film outside of it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "open").mkdir()
    (folder / "open" / "a.mp4").write_bytes((videos / "a.mp4").read_bytes())
    (folder / "secret.mp4").write_bytes((videos / "b.mp4").read_bytes())
    (folder / "open" / "link.mp4").symlink_to(folder / "secret.mp4")
    write_video(folder / "long.mp4", seconds=9, audio_s=0)
    return folder


@pytest.fixture(scope="module")
def server(random_checkpoint, place):
    access = Access(folders=(place / "open",), fetch_hosts=frozenset({"*"}))
    limits = with_limits(media_s=8.0, file_bytes=400_000, body_bytes=900_000, body_timeout_s=2.0, decode_timeout_s=20.0)
    with Served(random_checkpoint, access=access, limits=limits) as server:
        yield server


VIDEO_TEXT = "data:video/mp4;base64," + b64("no film")
HOSTILE = {
    "no film": ([media("video_url", VIDEO_TEXT)], "bad_media"),
    "a playlist of files": ([media("video_url", "data:video/mp4;base64," + b64("#EXTM3U\n#EXT-X-TARGETDURATION:9\n"
        "#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"))], "bad_media"),
    "a list for concat": ([media("video_url", "data:video/mp4;base64," + b64("ffconcat version 1.0\n"
        "file /etc/passwd\n"))], "bad_media"),
    "a drawing with a file in it": ([media("image_url", "data:image/svg+xml;base64," + b64("<svg xmlns='http://www.w3"
        ".org/2000/svg'><image href='file:///etc/passwd'/></svg>"))], "bad_media"),
    "an image bomb": ([media("image_url", "data:image/png;base64," + b64(png_bomb(20_000)))], "bad_media"),
    "a file outside": ([media("video_url", "file://{place}/secret.mp4")], "file_not_allowed"),
    "a file outside by ..": ([media("video_url", "file://{place}/open/../secret.mp4")], "file_not_allowed"),
    "a file outside, encoded": ([media("video_url", "file://{place}/open/%2e%2e/secret.mp4")], "file_not_allowed"),
    "a file outside by a link": ([media("video_url", "file://{place}/open/link.mp4")], "file_not_allowed"),
    "a null byte": ([media("video_url", "file://{place}/open/a.mp4%00")], "invalid_value"),
    "a device": ([media("video_url", "file:///dev/zero")], "file_not_allowed"),
    "loopback": ([media("video_url", "http://127.0.0.1/a.mp4")], "address_not_allowed"),
    "loopback in decimal": ([media("video_url", "http://2130706433/a.mp4")], "address_not_allowed"),
    "loopback in IPv6": ([media("video_url", "http://[::ffff:127.0.0.1]/a.mp4")], "address_not_allowed"),
    "the metadata service": ([media("image_url", "http://169.254.169.254/latest")], "address_not_allowed"),
    "another port": ([media("video_url", "http://93.184.216.34:22/")], "host_not_allowed"),
    "a path for base64": ([media("input_audio", "/etc/passwd")], "invalid_value"),
    "too large": ([media("video_url", "data:video/mp4;base64," + "A" * 600_000)], "too_large"),
    "two videos": ([media("video_url", VIDEO_TEXT)] * 2, "invalid_value"),
    "a video and an image": ([media("video_url", VIDEO_TEXT), media("image_url", VIDEO_TEXT[5:])], "invalid_value"),
    "more images than frames": ([media("image_url", "AAAA")] * 21, "invalid_value"),
    "a part of no kind": ([{"type": "__class__"}], "unknown_part_type"),
    "a prompt beyond all bounds": ("word " * 100_000, "context_length_exceeded"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_are_refused_and_tell_nothing(name, server, place):
    content, code = HOSTILE[name]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).replace("{place}", str(place))
    headers = {"Content-Type": "application/json"}
    reply = server.client.post("/v1/chat/completions", content=body, headers=headers)
    error = reply.json()["error"]
    assert 400 <= reply.status_code < 500 and error["code"] == code, reply.text
    for hidden in (str(place), str(server.service._intake.folder), "secret", "root:", "Traceback", ".py"):
        assert hidden not in reply.text
    assert len(error["message"]) < 400


def test_the_server_is_as_before_after_all_of_them(server, place, videos):
    """An answer is right, nothing is under way, held or on the disk."""
    reply = server.ask([media("video_url", f"file://{place}/open/a.mp4")])
    caption = Captioner(server.service.model._captioner.folder).caption(videos / "a.mp4")
    assert reply.json()["choices"][0]["message"]["content"] == caption.text
    gauges = server.service.gauges()
    assert gauges["requests_under_way"] == gauges["held_bytes"] == gauges["jobs_waiting"] == 0
    assert not list(server.service._intake.folder.iterdir())


def test_a_film_that_is_too_long_is_refused_and_an_interval_of_it_is_not(server, place):
    content = [media("video_url", data_url(place / "long.mp4"))]
    reply = server.ask(content)
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "too_long"
    assert "got 9 s of video, expected at most 8 s" in reply.text
    assert server.ask(content, interval_s=[3, 7]).status_code == 200


def test_decoding_is_killed_at_its_deadline(random_checkpoint, videos):
    with Served(random_checkpoint, limits=with_limits(decode_timeout_s=0.001)) as server:
        reply = server.ask([media("video_url", data_url(videos / "a.mp4"))])
        assert reply.status_code == 400 and "video_url: got no result after 0.001 s" in reply.text
        assert server.ask("Say OK.").status_code == 200


# --- bodies -----------------------------------------------------------------------------------------------------------


def raw(server: Served, data: bytes, *, timeout_s: float = 20.0) -> bytes:
    """Bytes to the server -> all that it says until it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s) as connection:
        connection.sendall(data)
        said = b""
        while block := connection.recv(65536):
            said += block
        return said


HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
)


def test_bodies_that_are_too_large_are_refused_before_they_are_read(server):
    assert b" 413 " in raw(server, HEAD + b"Content-Length: 99999999\r\n\r\n{").splitlines()[0]
    chunk = b"%x\r\n%s\r\n" % (90_000, b"x" * 90_000)
    assert b" 413 " in raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 11).splitlines()[0]


def test_a_body_that_never_comes_is_given_up(server):
    assert b" 408 " in raw(server, HEAD + b"Content-Length: 100\r\n\r\n{").splitlines()[0]
    assert server.service.gauges()["requests_under_way"] == 0


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(random_checkpoint):
    hosts = frozenset({"127.0.0.1", "localhost", "[::1]"})
    access = Access(key=KEY, hosts=hosts, origins=("https://studio.example",))
    with Served(random_checkpoint, access=access) as server:
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        yield server


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": ""}, 421),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": KEY}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"Authorization": f"Bearer {KEY[:-1]}"}, 401),
        ({"Authorization": f"Bearer {KEY}x"}, 401),
        ({"Authorization": f"bearer {KEY}"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://studio.example"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=application/json"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_who_may_ask(headers, status, guarded):
    body = {"messages": [{"role": "user", "content": "Say OK."}], "max_tokens": 1}
    headers = {"Content-Type": "application/json"} | headers
    reply = guarded.client.post("/v1/chat/completions", content=json.dumps(body), headers=headers)
    assert reply.status_code == status, reply.text
    assert KEY not in reply.text and KEY not in repr(guarded.settings)


def test_every_answer_carries_the_headers_that_keep_it_to_itself(guarded):
    for path, status in (("/", 200), ("/health", 200), ("/v1/models", 200), ("/nowhere", 404)):
        reply = guarded.client.get(path)
        assert reply.status_code == status
        assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "server" not in reply.headers and "access-control-allow-origin" not in reply.headers
    for path, status in (("/", 200), ("/health", 200), ("/v1/models", 401), ("/metrics", 401), ("/nowhere", 401)):
        assert guarded.client.get(path, headers={"Authorization": ""}).status_code == status


def test_pages_that_were_named_may_ask_and_others_get_no_permission(guarded):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type, authorization"}
    ours = guarded.client.options("/v1/chat/completions", headers={"Origin": "https://studio.example", **asked})
    assert ours.headers["access-control-allow-origin"] == "https://studio.example"
    other = guarded.client.options("/v1/chat/completions", headers={"Origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in other.headers


# --- load -------------------------------------------------------------------------------------------------------------


class Held(Captioner):
    """A captioner that encodes when the test lets it."""

    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        self.begun, self.go = threading.Event(), threading.Event()
        encode_clip = self.encoder.encode_clip

        def held(*words, **options):
            self.begun.set()
            assert self.go.wait(30)
            return encode_clip(*words, **options)

        self.encoder.encode_clip = held


@pytest.fixture(scope="module")
def held_model(random_checkpoint) -> Held:
    return Held(random_checkpoint)


@pytest.fixture
def held(held_model):
    held_model.begun.clear()
    held_model.go.clear()
    yield held_model
    held_model.go.set()


def until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def in_thread(run) -> tuple[threading.Thread, list]:
    results: list = []
    thread = threading.Thread(target=lambda: results.append(run()))
    thread.start()
    return thread, results


def test_more_requests_than_are_allowed_get_429_and_those_under_way_are_answered(random_checkpoint, held, videos):
    content = [media("video_url", data_url(videos / "a.mp4"))]
    with Served(random_checkpoint, open_captioner=lambda: held, limits=with_limits(waiting=2)) as server:
        under_way = [in_thread(lambda: server.ask(content)) for _ in range(2)]
        until(lambda: server.service.num_under_way == 2 and held.begun.is_set())
        refused = server.ask(content)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "queue_full"
        assert server.client.get("/health").status_code == 200
        held.go.set()
        for thread, _ in under_way:
            thread.join()
        assert [results[0].status_code for _, results in under_way] == [200, 200]
        assert server.ask("Say OK.").status_code == 200


def test_large_requests_together_are_bounded(random_checkpoint, held, videos):
    content = [media("video_url", data_url(videos / "a.mp4"))]
    size = len(json.dumps(content))
    with Served(random_checkpoint, open_captioner=lambda: held, limits=with_limits(held_bytes=size * 3 // 2)) as server:
        thread, results = in_thread(lambda: server.ask(content))
        until(held.begun.is_set)
        refused = server.ask(content)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "memory_full")
        held.go.set()
        thread.join()
        assert results[0].status_code == 200 and server.service.gauges()["held_bytes"] == 0


def test_no_more_decoded_clips_wait_than_the_next_batches_need(random_checkpoint, held, videos):
    names = ("a", "b", "c", "silent")
    bodies = [[media("video_url", data_url(videos / f"{name}.mp4"))] for name in names]
    with Served(random_checkpoint, open_captioner=lambda: held, batch_size=1) as server:
        asked = [in_thread(lambda body=body: server.ask(body)) for body in bodies]
        # room is for 2 x 1: one is with the model, one waits; the others are not decoded
        until(lambda: held.begun.is_set() and server.service.model.num_waiting == 1)
        until(lambda: server.service.num_under_way == 4)
        assert server.service.clip_room.locked()
        until(lambda: len(list(server.service._intake.folder.iterdir())) == 2)
        held.go.set()
        for thread, _ in asked:
            thread.join()
        assert [results[0].status_code for _, results in asked] == [200] * 4
        assert not server.service.clip_room.locked()


def test_the_parts_of_a_request_together_are_no_larger_than_one_may_be(random_checkpoint, place):
    size = (place / "open" / "a.mp4").stat().st_size
    limits = with_limits(body_bytes=size * 3 // 2, file_bytes=size * 2)
    url = f"file://{place}/open/a.mp4"
    with Served(random_checkpoint, access=Access(folders=(place / "open",)), limits=limits) as server:
        assert server.ask([media("video_url", url)]).status_code == 200
        reply = server.ask([media("video_url", url), media("audio_url", url)])
        assert (reply.status_code, reply.json()["error"]["param"]) == (413, "messages[0].content[1].audio_url")


def test_a_request_has_its_time(random_checkpoint, held, videos):
    limits = with_limits(request_timeout_s=1.0)
    content = [media("video_url", data_url(videos / "b.mp4")), text("Too late?")]
    with Served(random_checkpoint, open_captioner=lambda: held, limits=limits) as server:
        late = server.ask(content)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        stream = server.ask(content, stream=True)
        assert stream.status_code == 200 and '"code": "timeout"' in stream.text and "[DONE]" not in stream.text
        assert server.service.gauges()["requests_under_way"] == 0
        held.go.set()


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_a_client_that_went_away_asked_is_not_answered(random_checkpoint, held, videos, is_stream):
    first = [media("video_url", data_url(videos / "a.mp4"))]
    second = [media("video_url", data_url(videos / "c.mp4"))]
    body = json.dumps({"messages": [{"role": "user", "content": second}], "stream": is_stream}).encode()
    with Served(random_checkpoint, open_captioner=lambda: held, batch_size=1) as server:
        thread, results = in_thread(lambda: server.ask(first))
        until(held.begun.is_set)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = HEAD.replace(b"Connection: close\r\n", b"")
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            until(lambda: server.service.model.num_waiting == 1)
        until(lambda: server.counted("requests", status="499") == 1 and server.service.num_under_way == 1)
        held.go.set()
        thread.join()
        assert results[0].status_code == 200 and server.ask("Say OK.").status_code == 200
        assert server.counted("clips_encoded") == 1  # the second video never reached the model
        assert server.service.gauges()["jobs_waiting"] == 0


def test_a_server_that_is_told_to_end_answers_what_is_under_way(random_checkpoint, held, videos):
    server = Served(random_checkpoint, open_captioner=lambda: held)
    with server:
        thread, results = in_thread(lambda: server.ask([media("video_url", data_url(videos / "a.mp4"))]))
        until(held.begun.is_set)
        server._server.should_exit = True
        held.go.set()
        thread.join()
        assert results[0].status_code == 200
    assert not server.service._intake.folder.exists()


def test_an_idle_model_is_unloaded_and_loaded_again(random_checkpoint, videos):
    content = [media("video_url", data_url(videos / "a.mp4"))]
    with Served(random_checkpoint, unload_after_s=0.2) as server:
        first = server.ask(content).json()
        until(lambda: not server.service.model.is_loaded)
        loads = server.counted("model_loads")
        again = server.ask(content).json()
        assert again["choices"] == first["choices"]
        assert server.counted("model_loads") == loads + 1 and server.counted("clips_encoded") == 1
