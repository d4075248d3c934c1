"""Every number of the table in docs/official.md is what bench/official.py measures on tests/assets."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_is_what_the_script_measures():
    spec = importlib.util.spec_from_file_location("bench_official", ROOT / "bench" / "official.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    measured = [row.line for row in module.measure(ROOT / "tests" / "assets")]
    text = (ROOT / "docs" / "official.md").read_text(encoding="utf-8")
    assert len(measured) == 18
    assert [line for line in measured if line not in text] == []
