"""A folder of a task as lmms-eval reads it, without lmms-eval."""

import importlib.util
from pathlib import Path

import yaml


class Loader(yaml.SafeLoader):
    """Reads `!function file.name` as lmms-eval does: the function of that name in the file beside the YAML file."""


def load_task(path: Path) -> dict:
    def function(loader, node):
        file, name = loader.construct_scalar(node).rsplit(".", 1)
        spec = importlib.util.spec_from_file_location(file, path.parent / f"{file}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)

    Loader.add_constructor("!function", function)
    return yaml.load(path.read_text(encoding="utf-8"), Loader)
