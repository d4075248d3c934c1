"""Numerical parity with released models, checked against recorded tensors: `python tests/parity.py DIR`.

DIR is searched for case folders (case.json, inputs.safetensors, outputs.safetensors, perhaps dpo.safetensors) of the
families "v1" (video-SALMONN 2) and "plus" (2+); each names the weights that it was recorded with. A row compares one
stage of the model with what the released code computed there. Tables of the 2+ interleaving (tables.safetensors) are
checked, too. Exit status 1 on any miss, and when there is no case.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support import parity_plus, parity_v1
from support.parity_checks import Check

FAMILIES = {"v1": parity_v1, "plus": parity_plus}


def find_cases(folder: Path) -> tuple[list[tuple[Path, dict[str, Any]]], list[Path]]:
    """Folder -> case folders of our families with their case.json, and those of other families."""
    ours, others = [], []
    for path in sorted(folder.rglob("case.json")):
        facts = json.loads(path.read_text())
        if facts.get("family") in FAMILIES:
            ours.append((path.parent, facts))
        else:
            others.append(path.parent)
    return ours, others


def load_case(folder: Path, facts: dict[str, Any]) -> Any:
    """Case folder and its case.json -> the case with its model, run exactly as published."""
    return FAMILIES[facts["family"]].load_case(folder, facts)


def check_case(case: Any) -> list[Check]:
    """Every row for which the case has recorded tensors."""
    return FAMILIES[case.facts["family"]].check_case(case)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="searched for case folders")
    folder = parser.parse_args(arguments).folder
    ours, others = find_cases(folder)
    tables = sorted(folder.rglob("tables.safetensors"))
    print(f"{'case':<24}{'row':<5}{'what':<36}{'difference':>12}{'tolerance':>11}")
    checks = []
    for case_folder, facts in ours:
        checks += report(check_case(load_case(case_folder, facts)))
    for path in tables:
        checks += report(parity_plus.check_tables(path))
    misses = sum(not check.ok for check in checks)
    print(f"{len(ours)} cases, {len(checks)} checks, {misses} misses; {len(others)} others skipped")
    if not ours and not tables:
        print(f"no case of the families {', '.join(FAMILIES)} below {folder}")
    return 1 if misses or not checks else 0


def report(checks: list[Check]) -> list[Check]:
    """Prints the rows and hands them on."""
    for check in checks:
        print(
            f"{check.case:<24}{check.row:<5}{check.what:<36}{check.difference:>12.2e}{check.tolerance:>11.0e}"
            f"  {'ok' if check.ok else 'MISS'}"
        )
    return checks


if __name__ == "__main__":
    sys.exit(main())
