"""Imports point downwards, without circles, and each outside dependency has its doors: read from the source alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "avcap"

# From top to bottom. A room imports rooms of lower rows and itself, nothing above it and none beside it.
ROWS = (
    ("__main__",),
    ("cli",),
    ("web", "lmms"),
    ("recipes",),
    ("runs",),
    ("stages",),
    ("bulk",),
    ("evaluation", "preference"),
    ("captioners", "run_folder"),
    ("curriculum",),
    ("train", "infer", "judge", "engines"),
    ("data", "world"),
    ("model",),
    ("media", "llm"),
    ("config", "records"),
    ("v0_1",),
    ("files", "processes"),
    ("texts",),
    ("errors",),
)
assert len({room for row in ROWS for room in row}) == sum(map(len, ROWS)), "a room stands in two rows"
ROW_OF = {room: index for index, row in enumerate(ROWS) for room in row}
# The package itself is what users import: it offers these, and only the command line asks it back, for its version.
FACE, FACE_OFFERS, FACE_USERS = "__init__", {"errors", "infer"}, {"cli"}

# Packages with an awkward side (a C library, a download, an optional extra) -> the files, or rooms, that may load them.
DOORS = {
    "av": {"media/codec.py", "media/encode.py", "world/clip_file.py"},
    "ctypes": {"world/speech.py"},
    "espeakng_loader": {"world/speech.py"},
    "sf2utils": {"world/soundfont.py"},
    "pretty_midi": {"world/soundfont.py"},
    "peft": {"model/lora.py"},
    "ray": {"bulk/ray_data.py"},
    "pyarrow": {"bulk/inputs/parquet.py", "bulk/outputs/parquet.py", "data/qa_files.py"},
    "wandb": {"web/tracking.py"},
    "fastapi": {"web/server/"},
    "starlette": {"web/server/"},
    "uvicorn": {"web/server/run.py"},
    "lmms_eval": {"lmms/manifest.py", "lmms/model.py"},
    "typer": {"cli/"},
    "httpx2": {"llm/chat.py"},
    "huggingface_hub": {"model/checkpoint/hub_client.py"},
    "matplotlib": {"web/plot.py"},
}


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported module, as in `import a.b` or `from a.b import c` (then also a.b.c, which may be a module)."""

    file: str
    line: int
    module: str
    for_types: bool  # under `if TYPE_CHECKING`: never run


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> Iterator[Import]:
    """File -> all its imports, those inside functions and those for type checkers included."""
    name = path.relative_to(PACKAGE).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import; expected `from avcap.room import ...`"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            yield Import(file=name, line=node.lineno, module=module, for_types=id(node) in for_types)


ALL_IMPORTS = [found for path in files() for found in imports_of(path)]


def room_of_file(name: str) -> str:
    """ "media/clip.py" -> "media", "records.py" -> "records"."""
    return name.partition("/")[0].removesuffix(".py")


def room_of_module(module: str) -> str:
    """ "avcap.media.clip" -> "media"; "avcap" and what stands in its __init__ -> "__init__"."""
    room = [*module.split("."), "__init__"][1]
    return room if (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file() else FACE


def file_of_module(module: str) -> str:
    """ "avcap.media.clip" or "avcap.media.clip.Clip" -> "media/clip.py", "avcap.media" -> "media/__init__.py"."""
    parts = module.split(".")[1:]
    for length in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py").relative_to(PACKAGE).as_posix()
        if (path / "__init__.py").is_file():
            return (path / "__init__.py").relative_to(PACKAGE).as_posix()
    return "__init__.py"


def neighbours(importer: str, imported: str) -> tuple[str, str, str]:
    """Two files -> the smallest room that holds both, and which of its files or sub-rooms each of them is or is in."""
    first, second = importer.split("/"), imported.split("/")
    depth = next(depth for depth, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return "/".join(first[:depth]), first[depth], second[depth]


def circles(imports: dict[str, dict[str, set[str]]]) -> list[str]:
    """Room -> its file or sub-room -> those that it imports; -> one circle of each room that has any."""
    found = []
    for room, graph in imports.items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            found.append(f"{room or 'avcap'}: {' <- '.join(error.args[1])}")
    return found


def forbidden(importer: str, imported: str) -> str | None:
    """Two rooms -> why the first may not import the second, or None."""
    if importer == imported:
        return None
    if importer == FACE:
        return None if imported in FACE_OFFERS else f"the package's face offers {sorted(FACE_OFFERS)} alone"
    if imported == FACE:
        return None if importer in FACE_USERS else "rooms import rooms, not the package's face"
    if ROW_OF[imported] > ROW_OF[importer]:
        return None
    return "sideways" if ROW_OF[imported] == ROW_OF[importer] else "upwards"


def test_every_room_has_a_row():
    rooms = {room_of_file(path.relative_to(PACKAGE).as_posix()) for path in files()}
    assert rooms - set(ROW_OF) == {FACE}


def test_no_import_points_upwards_or_sideways():
    bad = [
        f"{found.file}:{found.line} imports {found.module}: {reason}"
        for found in ALL_IMPORTS
        if found.module.split(".")[0] == "avcap"
        and (reason := forbidden(room_of_file(found.file), room_of_module(found.module)))
    ]
    assert not bad, "\n".join(bad)


def test_files_and_rooms_inside_a_room_import_without_circles():
    """A sub-room counts as one file there, and is a room of its own; imports for types and within functions count."""
    imports: dict[str, dict[str, set[str]]] = {}
    for found in ALL_IMPORTS:
        imported = file_of_module(found.module)
        if found.module.split(".")[0] == "avcap" and imported != found.file:
            room, importer, other = neighbours(found.file, imported)
            imports.setdefault(room, {}).setdefault(importer, set()).add(other)
    assert {"", "media", "judge", "judge/metrics", "model/checkpoint", "stages"} <= set(imports)
    assert not circles(imports)


def test_families_of_models_do_not_know_each_other():
    families = {"model/salmonn2", "model/salmonn2_plus"}
    pairs = [(found.file, file_of_module(found.module)) for found in ALL_IMPORTS]
    assert families <= {file.rpartition("/")[0] for file, _ in pairs}
    assert not [pair for pair in pairs if {file.rpartition("/")[0] for file in pair} == families]


def test_circles_are_found_between_files_and_through_sub_rooms():
    assert neighbours("media/clip.py", "media/pool.py") == ("media", "clip.py", "pool.py")
    assert neighbours("judge/metrics/words.py", "judge/calibration/agreement.py") == ("judge", "metrics", "calibration")
    assert neighbours("judge/metrics/words.py", "judge/types.py") == ("judge", "metrics", "types.py")
    assert neighbours("media/pool.py", "errors.py") == ("", "media", "errors.py")
    assert file_of_module("avcap.judge.metrics.words.count_words") == "judge/metrics/words.py"
    assert file_of_module("avcap.judge.metrics") == "judge/metrics/__init__.py"
    assert file_of_module("avcap.Captioner") == "__init__.py"
    assert circles({"media": {"clip.py": {"pool.py"}, "pool.py": {"worker.py"}}}) == []
    assert len(circles({"media": {"clip.py": {"pool.py"}, "pool.py": {"worker.py"}, "worker.py": {"clip.py"}}})) == 1


def test_the_rule_finds_what_it_forbids():
    assert forbidden("media", "infer") == "upwards"
    assert forbidden("media", "llm") == forbidden("data", "world") == forbidden("train", "infer") == "sideways"
    assert forbidden("train", "curriculum") == forbidden("judge", "preference") == "upwards"
    assert forbidden("stages", "infer") is None and forbidden("infer", "world") is None
    assert room_of_module("avcap.world.make") == room_of_module("avcap.world") == "world"
    assert room_of_module("avcap.Captioner") == FACE


@pytest.mark.parametrize("package", sorted(DOORS))
def test_a_dependency_comes_in_by_its_doors(package):
    loaded = {f.file for f in ALL_IMPORTS if f.module.split(".")[0] == package and not f.for_types}
    rooms = tuple(door for door in DOORS[package] if door.endswith("/"))
    assert {file for file in loaded if not file.startswith(rooms)} <= DOORS[package]


def test_files_that_say_so_use_the_standard_library_alone():
    """Their docstrings promise it: truth and grammar can be read, and checked, without anything installed."""
    promised = [path for path in files() if _promises(path, "standard library only")]
    assert len(promised) >= 6  # records, and scene, grammar, describe, oracle, questions, domains of the world
    names = {path.relative_to(PACKAGE).as_posix() for path in promised}
    outside = {
        f"{found.file}: {found.module}"
        for found in ALL_IMPORTS
        if found.file in names and found.module.split(".")[0] not in {*sys.stdlib_module_names, "avcap"}
    }
    assert not outside


def test_what_promises_no_torch_loads_none():
    """Judges, chats, and all that a command line needs before its arguments are known to be good."""
    free = ("judge", "preference", "llm", "engines")
    promised = [path for path in files() if _promises(path, "no torch") or room_of_file(_name(path)) in free]
    modules = [_module(path) for path in promised] + ["avcap", "avcap.config", "avcap.records", "avcap.media"]
    code = f"import sys\nfor name in {modules!r}: __import__(name); assert 'torch' not in sys.modules, name"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _promises(path: Path, words: str) -> bool:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return words in docstring.lower()


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _module(path: Path) -> str:
    return ".".join(("avcap", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
