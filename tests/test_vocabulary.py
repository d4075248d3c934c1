"""One word, one meaning: what is read here are names, not sentences.

Identifiers, option names, keys in strings, names of files, headings and heads of tables, in the package, its tests,
benches and documents. An old word in one of them fails with its place and the word of today. docs/design.md, "Words",
says what each word means.
"""

import ast
import functools
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# old word -> what is said today
TODAY = {
    **dict.fromkeys(("picture", "pictures", "eyes"), "video (the input), visual (events, tokens), vision (the tower)"),
    **dict.fromkeys(("sound", "sounds", "heard", "ears", "deaf", "speech"), "audio"),
    **dict.fromkeys(("compat", "published"), "official"),
    **dict.fromkeys(("lesson", "lessons"), "example"),
    **dict.fromkeys(("teach", "taught", "practise", "practice"), "finetune, second_phase"),
    **dict.fromkeys(("slot", "slots"), "second"),
    **dict.fromkeys(("prefer",), "dpo"),
    **dict.fromkeys(("gate", "gates"), "selection"),
    **dict.fromkeys(("standing", "standings"), "round_metrics"),
    **dict.fromkeys(("strange",), "rejection_reason"),
    **dict.fromkeys(("anchor", "anchors"), "weight_regularizer"),
    "material": "round_data",
    "foreign": "external",
    "untrusted": "quoting",
    "proxy": "reset_lora",
    **dict.fromkeys(("embedded", "shipped"), "tiny"),
    **dict.fromkeys(("collapse", "collapsed"), "truncated"),
    **dict.fromkeys(("reference", "references"), "reference_caption, ref_ (the policy), target (what a loss reads)"),
    **dict.fromkeys(("track", "tracks"), "feature_track, tracking, progress"),
    **dict.fromkeys(("wanted",), "expected"),
    **dict.fromkeys(("placing",), "placement"),
}
# Behind or before these words the old one is right.
RIGHT_BEFORE = {"reference": {"caption", "captions"}}
RIGHT_AFTER = {"track": {"feature"}, "tracks": {"feature"}}

# (file, name or word, why it stays). A name stays wherever it is used; a word stays in the files named.
EXEMPT = (
    ("src/avcap/v0_1.py", "*", "knows the names of 0.1"),
    ("tests/test_v0_1.py", "*", "tests that the names of 0.1 are read"),
    ("tests/test_vocabulary.py", "*", "this list"),
    ("tests/data/*", "*", "recorded data, and how it was made"),
    ("src/avcap/world/*", "*", "the world's grammar: what sounds, what is spoken, where objects stand"),
    ("tests/world/*", "*", "the same"),
    ("docs/log.md", "*", "history, in the words of its day"),
    ("docs/world.md", "*", "the world's grammar and question kinds"),
    ("*", "gate_proj*", "of transformers"),
    ("src/avcap/llm/*", "*proxy*", "what a URL is reached through"),
    ("tests/llm/*", "*proxy*", "the same"),
    ("tests/conftest.py", "no_proxy", "the same"),
    ("tests/engines/test_proof.py", "speech", "a room of the world"),
    ("*", "*reference_white*", "of tone mapping: the level of diffuse white"),
    ("*", "REFERENCE_WHITE*", "the same"),
    ("*", "heard", "a kind of question"),
    ("*", "REFERENCE_FORMATS", "of FFmpeg: playlists refer to other files"),
    ("*", "speech_*", "weights of the released checkpoints"),
    ("*", "ln_speech*", "weights of the released checkpoints"),
    ("*", "num_speech_query_token", "a field of the released checkpoints"),
    ("src/avcap/models/*/README.md", "sound", "a kind of word of the world"),
    ("*", "reference_logps", "recorded data"),
    ("*", "reference_ids", "recorded data"),
    ("*", "num_sound", "recorded data"),
    ("*", "track", "rich.progress.track; the command `avcap track`"),
    ("*", "*num_tracks", "a field of feature tracks"),
    ("*", "prefer_letter", "a model that likes a letter best"),
    ("src/avcap/train/feature_tracks.py", "track*", "all tracks are feature tracks there"),
    ("src/avcap/curriculum/*", "track*", "the same"),
    ("tests/curriculum/*", "track*", "the same"),
    ("src/avcap/infer/*", "slot*", "places in a key-value cache"),
    ("src/avcap/bulk/*", "slots", "of dataclasses: records of 100,000 rows are kept small"),
    ("src/avcap/llm/*", "slot*", "calls in flight"),
    ("bench/judge_calls.py", "slot*", "calls in flight"),
    ("*", "proxy_headers", "of uvicorn"),
    ("*", "test_*prefer*", "a sentence, with the verb"),
    ("*", "test_*_track_*", "a sentence: a track of a file"),
)

PIECE = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
KEY = re.compile(r"[a-z]+(?:[_.][a-z0-9]+)+")
OPTION = re.compile(r"--[a-z][a-z-]+")


@functools.cache
def files(*suffixes: str) -> list[str]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.splitlines() if name.endswith(suffixes) and (ROOT / name).is_file()]


def world_names() -> set[str]:
    """What world/ offers to others: its classes, functions, constants and fields are its grammar."""
    names = set()
    for path in (ROOT / "src/avcap/world").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        owners = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
        for node in (child for owner in owners for child in owner.body):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(node.name)
                names |= {arg.arg for arg in node.args.kwonlyargs} if isinstance(node, ast.FunctionDef) else set()
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


WORLD_NAMES = world_names()


@functools.cache
def old_words(name: str) -> list[str]:
    """A name -> the old words in it.

    >>> old_words("SoundReader"), old_words("reference_caption"), old_words("reference_ids"), old_words("soundness")
    (['sound'], [], ['reference'], [])
    """
    parts = [piece.lower() for chunk in re.split(r"[_.\-/ ]", name) for piece in PIECE.findall(chunk)]
    found = []
    for word, before, after in zip(parts, ["", *parts], [*parts[1:], ""], strict=False):
        if word in TODAY and after not in RIGHT_BEFORE.get(word, ()) and before not in RIGHT_AFTER.get(word, ()):
            found.append(word)
    return found


def exempt(file: str, name: str, word: str) -> bool:
    return name in WORLD_NAMES or any(
        fnmatch(file, pattern) and (fnmatch(name, what) or (pattern != "*" and fnmatch(word, what)))
        for pattern, what, _ in EXEMPT
    )


def names_in_python(file: str) -> Iterator[tuple[int, str]]:
    """Identifiers, options, and strings that are keys, with their lines."""
    source = (ROOT / file).read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string
        elif token.type == tokenize.STRING:
            text = token.string.strip("rbfRBF").strip("\"'")
            yield from ((token.start[0], option) for option in OPTION.findall(text))
            if KEY.fullmatch(text):
                yield token.start[0], text


def names_in_markdown(file: str) -> Iterator[tuple[int, str]]:
    """Words of headings and of heads of tables, and options anywhere, with their lines."""
    lines = (ROOT / file).read_text(encoding="utf-8").split("\n")
    is_code = False
    for number, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), start=1):
        yield from ((number, option) for option in OPTION.findall(line))
        is_code ^= line.startswith("```")
        is_head = line.startswith("|") and re.fullmatch(r"\|[\s:|-]+", following)
        if not is_code and (is_head or re.match(r"#+ ", line)):
            yield from ((number, word) for word in re.findall(r"[A-Za-z_]+", line))


@functools.cache
def names_in(file: str) -> list[tuple[int, str]]:
    return list(names_in_markdown(file) if file.endswith(".md") else names_in_python(file))


def complaints(file: str) -> list[str]:
    return [
        f"{file}:{number}: {name}: {word} -> {TODAY[word]}"
        for number, name in names_in(file)
        for word in old_words(name)
        if not exempt(file, name, word)
    ]


@pytest.mark.parametrize("room", sorted({str(Path(name).parent) for name in files(".py", ".md")}))
def test_names_are_those_of_today(room):
    found = [line for file in files(".py", ".md") if str(Path(file).parent) == room for line in complaints(file)]
    assert not found, "\n".join(["old words:", *found])


def test_files_are_called_by_the_words_of_today():
    found = [
        f"{file}: {word} -> {TODAY[word]}"
        for file in files(".py", ".md", ".png", ".html", ".sh")
        for word in old_words(Path(file).stem)
        if not exempt(file, Path(file).stem, word)
    ]
    assert not found, "\n".join(["old words:", *found])


def test_what_counts_from_0_is_an_index():
    """`for number, x in enumerate(xs)`: a number of things is a count, and place is where something stands."""
    found = []
    for file in files(".py"):
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.For | ast.comprehension) and counts_from_0(node.iter):
                first = node.target.elts[0] if isinstance(node.target, ast.Tuple) else node.target
                if isinstance(first, ast.Name) and first.id in ("number", "place"):
                    found.append(f"{file}:{first.lineno}: {first.id} -> index")
    assert not [line for line in found if not exempt(line.partition(":")[0], "", "")], "\n".join(found)


def counts_from_0(iterator: ast.expr) -> bool:
    name = iterator.func.id if isinstance(iterator, ast.Call) and isinstance(iterator.func, ast.Name) else ""
    return name == "enumerate" and len(iterator.args) == 1 and not iterator.keywords


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SoundReader", ["sound"]),
        ("use_picture", ["picture"]),
        ("reference_caption", []),
        ("reference_ids", ["reference"]),
        ("FeatureTracks", []),
        ("load_tracks", ["tracks"]),
        ("COMPATS", []),
        ("Compat", ["compat"]),
        ("--no-sound", ["sound"]),
        ("prefer.lora.rank", ["prefer"]),
        ("preference_loss", []),
        ("propagate", []),
    ],
)
def test_old_words_are_found_in_names(name, words):
    assert old_words(name) == words


def test_every_exemption_is_needed():
    """An exemption that nothing needs any more is a hole."""
    needed = set()
    for file in files(".py", ".md"):
        for name in {name for _, name in names_in(file)}:
            for word in old_words(name):
                needed |= {
                    row
                    for row in EXEMPT
                    if fnmatch(file, row[0]) and (fnmatch(name, row[1]) or (row[0] != "*" and fnmatch(word, row[1])))
                }
    # rooms that are not there yet, or are not there any more
    there = [row for row in EXEMPT if any(fnmatch(file, row[0]) for file in files(".py", ".md"))]
    missing = [row for row in there if row not in needed]
    assert not missing, missing
