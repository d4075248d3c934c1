"""The cache of replies: what is kept, for whom, and what is left of it after a kill."""

import itertools
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_server import Body, ScriptedServer

from avcap.errors import UserError
from avcap.llm.cache import ReplyCache, reply_key
from avcap.llm.chat import open_chat
from avcap.llm.types import ChatRequest, Choice, Message, Part, Reply, TokenLogprobs, described

REPLY = Reply(text="ja \x00\n漢", finished=False, input_tokens=7, output_tokens=3)
REQUEST = ChatRequest(messages=(Message(role="user", content="q"),), max_tokens=10)

# Asks questions FIRST..LAST of a server, and prints each number as soon as its reply is handed on.
ASKING = """
import sys
from avcap.llm.types import ChatRequest, Message
from avcap.llm.cache import ReplyCache
from avcap.llm.chat import open_chat
url, path, count, lease_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
requests = [ChatRequest(messages=(Message(role="user", content=f"{n}"),), max_tokens=10) for n in range(count)]
cache = ReplyCache(path, lease_s=lease_s)
with open_chat(f"openai:tester@{url}", cache=cache, concurrency=4) as chat:
    for number, answer in enumerate(chat.ask(requests)):
        assert answer.text == f"reply to {number}", answer
        print(number, flush=True)
cache.close()
"""


def start_asking(server: ScriptedServer, path: Path, *, count: int, lease_s: float = 15.0) -> "subprocess.Popen[str]":
    arguments = [server.url, str(path), str(count), str(lease_s)]
    return subprocess.Popen([sys.executable, "-c", ASKING, *arguments], stdout=subprocess.PIPE, text=True)


def slow_echo(body: Body) -> str:
    time.sleep(0.02)
    return f"reply to {body['messages'][0]['content']}"


def paid_for(server: ScriptedServer) -> Counter[int]:
    """-> how often each question was paid for, by number."""
    return Counter(int(call.body["messages"][0]["content"]) for call in server.calls if call.paid)


def test_a_reply_comes_back_as_it_was_kept(tmp_path: Path):
    cache = ReplyCache(tmp_path / "cache.db")
    assert cache.claim("k") is True and cache.get("k") is None
    cache.put("k", REPLY, model="m")
    assert cache.claim("k") == cache.get("k") == REPLY
    assert (cache.misses, cache.hits, len(cache)) == (1, 1, 1)
    cache.close()
    assert ReplyCache(tmp_path / "cache.db").get("k") == REPLY


def test_a_claim_is_held_by_one_and_free_after_release(tmp_path: Path):
    one, other = ReplyCache(tmp_path / "cache.db"), ReplyCache(tmp_path / "cache.db")
    assert one.claim("k") is True
    assert other.claim("k") is False and one.claim("k") is False
    one.release("k")
    assert other.claim("k") is True
    one.release("k")  # not its own: nothing happens
    assert one.claim("k") is False
    other.close()  # ends its claims
    assert one.claim("k") is True


def test_a_claim_is_renewed_while_its_process_lives(tmp_path: Path):
    one, other = ReplyCache(tmp_path / "cache.db", lease_s=0.6), ReplyCache(tmp_path / "cache.db")
    one.claim("k")
    time.sleep(1.5)  # two and a half leases
    assert other.claim("k") is False


def test_a_claim_that_nobody_renews_expires(tmp_path: Path):
    one, other = ReplyCache(tmp_path / "cache.db", lease_s=0.2), ReplyCache(tmp_path / "cache.db")
    one._closed.set()  # its thread renews no more, as after a kill
    one.claim("k")
    time.sleep(0.3)
    assert other.claim("k") is True


def test_the_first_reply_stays(tmp_path: Path):
    cache = ReplyCache(tmp_path / "cache.db")
    cache.put("k", REPLY, model="m")
    cache.put("k", replace(REPLY, text="other"), model="m")
    assert cache.get("k") == REPLY


def test_everything_that_can_change_the_reply_changes_the_key():
    key = reply_key(REQUEST, server="http://a/v1", model="m")
    assert key == reply_key(replace(REQUEST), server="http://a/v1", model="m")
    others = [
        reply_key(REQUEST, server="http://b/v1", model="m"),
        reply_key(REQUEST, server="http://a/v1", model="n"),
        *(
            reply_key(changed, server="http://a/v1", model="m")
            for changed in (
                replace(REQUEST, messages=(Message(role="system", content="q"),)),
                replace(REQUEST, messages=(Message(role="user", content="q\ud800"),)),
                replace(REQUEST, messages=REQUEST.messages * 2),
                replace(REQUEST, max_tokens=11),
                replace(REQUEST, temperature=0.1),
                replace(REQUEST, attempt=1),
                replace(REQUEST, schema={"type": "object"}),
            )
        ),
    ]
    assert len({key, *others}) == 1 + 2 + 7


def test_many_threads_share_one_cache(tmp_path: Path):
    cache = ReplyCache(tmp_path / "cache.db")
    won: list[str] = []

    def claim_all() -> None:
        won.extend(str(n) for n in range(100) if cache.claim(str(n)) is True)

    threads = [threading.Thread(target=claim_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won, key=int) == [str(n) for n in range(100)]  # each claimed by exactly one


@pytest.mark.parametrize("content", [b"not a database, but long enough to look at" * 50, b"SQLite format 3\0broken"])
def test_a_file_that_is_no_database_is_refused(content: bytes, tmp_path: Path):
    path = tmp_path / "cache.db"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cache\.db: cannot be used as a cache.*move it away"):
        ReplyCache(path)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path):
    with sqlite3.connect(tmp_path / "cache.db") as database:
        database.execute("CREATE TABLE replies (mine)")
    with pytest.raises(UserError, match="another program"):
        ReplyCache(tmp_path / "cache.db")
    with sqlite3.connect(tmp_path / "cache.db") as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("replies",)]


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be used"):
        ReplyCache(tmp_path / "no folder" / "cache.db")


def test_a_file_that_breaks_later_is_reported(tmp_path: Path):
    path = tmp_path / "cache.db"
    cache = ReplyCache(path)
    for index in range(500):
        cache.put(str(index), replace(REPLY, text="x" * 200), model="m")
    cache.close()
    content = bytearray(path.read_bytes())
    content[4096:] = random.Random(0).randbytes(len(content) - 4096)  # all but the page with the header
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be used as a cache"):
        [ReplyCache(path).claim(str(index)) for index in range(500)]


def test_two_processes_pay_once(tmp_path: Path):
    with ScriptedServer(answer=slow_echo) as server:
        processes = [start_asking(server, tmp_path / "cache.db", count=60) for _ in range(2)]
        told = [process.communicate()[0].split() for process in processes]
    assert told == [[str(n) for n in range(60)]] * 2
    assert paid_for(server) == Counter(range(60))  # each once


def test_a_kill_loses_nothing_and_pays_nothing_twice(tmp_path: Path):
    """kill -9 after the replies 10 and 40 were handed on; then to the end."""
    told: set[int] = set()
    with ScriptedServer(answer=slow_echo) as server:
        for goal in (10, 40):
            process = start_asking(server, tmp_path / "cache.db", count=60, lease_s=1.0)
            assert process.stdout is not None
            told |= {int(line) for line in itertools.islice(process.stdout, goal + 1)}
            process.kill()
            told |= {int(line) for line in process.communicate()[0].split()}
            num_before = len(server.calls)
        last = start_asking(server, tmp_path / "cache.db", count=60, lease_s=1.0)
        assert last.communicate()[0].split() == [str(n) for n in range(60)] and last.returncode == 0
        asked_later = {int(call.body["messages"][0]["content"]) for call in server.calls[num_before:] if call.paid}
    paid = paid_for(server)
    assert told >= set(range(41)) and sorted(paid) == list(range(60))
    # What was handed on was committed before: the last process did not ask for it.
    assert not told & asked_later
    # Only a call on the wire when its process died may be paid for and lost: at most 4 at each of 2 kills.
    assert paid.total() - 60 <= 2 * 4


def test_a_warm_cache_is_fast(tmp_path: Path):
    """As many replies as the published test set has videos. Measured: 0.25 ms of CPU for each."""
    cache = ReplyCache(tmp_path / "cache.db")
    requests = [replace(REQUEST, attempt=attempt) for attempt in range(483)]
    with ScriptedServer() as server, open_chat(f"openai:tester@{server.url}", cache=cache) as chat:
        for asked in requests:
            cache.put(chat.key(asked), replace(REPLY, text="x" * 4000), model="m")
        began = time.process_time()
        answers = list(chat.ask(requests))
        seconds = time.process_time() - began
    assert len(answers) == 483 and not server.calls
    assert seconds < 2


def test_what_few_replies_have_is_kept_too(tmp_path):
    reply = Reply(
        text="B",
        others=(Choice(text="C", finished=False),),
        audio_tokens=0,
        visual_tokens=12,
        logprobs=(TokenLogprobs(token="B", logprob=-0.5, top=(("B", -0.5), ("A", -1.5))),),
    )
    cache = ReplyCache(tmp_path / "replies.sqlite")
    assert cache.claim("k") is True
    cache.put("k", reply, model="m")
    cache.close()
    cache = ReplyCache(tmp_path / "replies.sqlite")
    assert cache.get("k") == reply
    cache.close()


def test_media_are_known_by_their_digests():
    """Two requests that differ in what stands before their text are two; the text alone has the key that it had."""

    def asked(*digests):
        parts = tuple(Part(body={"type": "x", "data": "A" * 100}, digest=digest) for digest in digests)
        return ChatRequest(messages=(Message(role="user", content="q", parts=parts),), max_tokens=5)

    several = ((), ("a",), ("b",), ("a", "b"), ("b", "a"))
    keys = [reply_key(asked(*digests), server="s", model="m") for digests in several]
    assert len(set(keys)) == 5
    assert described(asked())["messages"] == ({"role": "user", "content": "q"},)
