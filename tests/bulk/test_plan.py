"""What captioning a folder is said to take: sums over its files, or over some of them, multiplied."""

import pytest

from avcap.bulk.plan import LookedAt, length_request, look_at, multiplied, plan_local
from avcap.engines.plan import EnginePlan, Length
from avcap.errors import MediaError

REQUEST = length_request("", fps=1.0, max_frames=8, max_pixels=64 * 64)


def length(path: str, seconds: float) -> Length:
    return Length(path=path, seconds=seconds, height=36, width=64, has_audio=True)


def test_of_many_files_some_are_looked_at_and_multiplied():
    paths = [f"{index:04}.mp4" for index in range(4000)]
    asked: list[str] = []

    def measure(drawn):
        asked.extend(drawn)
        return [length(path, 2.0 if int(path[:4]) % 2 else 4.0) for path in drawn]

    looked = look_at(paths, measure=measure, request=REQUEST, most=400)
    assert len(asked) == len(set(asked)) == 400 and looked.is_sample
    assert looked.factor == 10.0 and looked.num_readable == 4000
    # true: 4,000 files of 3 s are 12,000 s; two standard errors of 400 draws of +-1 s: 2 * 1 / 20 / 3 = 3.3 %
    assert looked.error_share == pytest.approx(0.033, abs=0.003)
    assert looked.seconds == pytest.approx(12_000, rel=looked.error_share * 1.5)
    again = look_at(paths, measure=lambda drawn: [length(path, 1.0) for path in drawn], request=REQUEST, most=400)
    assert [one.path for one in again.lengths] == [one.path for one in looked.lengths]  # the same seed


def test_of_few_files_all_are_looked_at_and_errors_counted(videos, tmp_path):
    from avcap.engines.plan import measure

    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    paths = [str(videos / "a.mp4"), str(videos / "b.mp4"), str(bad)]
    looked = look_at(paths, measure=lambda some: list(measure(some, max_pixels=64 * 64)), request=REQUEST)
    assert not looked.is_sample and looked.factor == 1.0 and looked.error_share == 0.0
    assert (looked.num_files, looked.num_readable, len(looked.errors)) == (3, 2, 1)
    assert looked.seconds == pytest.approx(3 + 2, abs=0.1)
    assert 0 < looked.decoding_s < 10


def test_bad_files_are_as_frequent_among_those_that_were_not_looked_at():
    found = [length("a", 10.0), length("b", 10.0), length("c", 10.0), MediaError("d: no video")]
    looked = LookedAt(num_files=400, lengths=tuple(found[:3]), errors=(found[3],), decoding_s=0.0)
    assert looked.num_readable == 300 and looked.seconds == 3000.0
    # 1,024 tokens of 4 bytes: 4,096 of a side-car, 900 + 4,096 of the record
    assert looked.disk_bytes(new_tokens=1024) == 300 * (900 + 4096 + 4096)


def test_an_engine_s_figures_are_multiplied():
    plan = EnginePlan(
        num_files=2,
        seconds=5.0,
        frames=5,
        visual_tokens=10,
        audio_tokens=20,
        text_tokens=30,
        new_tokens=40,
        money_usd=None,
        assumed="nothing",
    )
    whole = multiplied(plan, 2.5)
    assert (whole.num_files, whole.seconds, whole.new_tokens, whole.money_usd, whole.assumed) == (
        5,
        12.5,
        100,
        None,
        "nothing",
    )


def test_lengths_are_planned_in_groups():
    class Found:
        def __init__(self, seconds):
            self.prompt_tokens, self.new_tokens = round(100 * seconds), 7
            self.seconds, self.total_bytes = seconds**2, round(seconds)

    lengths = tuple(length(str(seconds), float(seconds)) for seconds in (1, 2, 3, 4, 5, 60))
    looked = LookedAt(num_files=60, lengths=lengths, errors=(), decoding_s=0.5)
    found = plan_local(looked, lambda seconds, size: Found(seconds))
    assert found.prompt_tokens == 10 * 100 * 75 and found.new_tokens == 10 * 6 * 7
    assert found.most_bytes == 60
    assert found.model_s == pytest.approx(10 * (1 + 4 + 9 + 16 + 25 + 3600))  # a group for each of six
    assert found.decoding_s == 0.5 * 750


def test_the_command_plans_a_folder_for_a_model_that_runs_here(random_checkpoint, videos, run):
    code, out, err = run("plan", videos, "--model", random_checkpoint)
    assert code == 0, err
    for name in ("tokens", "memory", "time", "files", "decoding", "disk"):
        assert f"  {name:14}" in out
    assert "extrapolated" not in out
