"""docs/comparison.md claims nothing that no test of ours stands for."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TEXT = (REPOSITORY / "docs" / "comparison.md").read_text(encoding="utf-8")


def functions_of(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_names_a_test():
    rows = [line for line in TEXT.splitlines() if line.startswith("|") and not line.startswith("|---")]
    rows = [row for row in rows if not row.endswith("| test |")]
    assert len(rows) > 40
    assert [row for row in rows if not re.search(r"`tests/\S+` \|$", row)] == []


def test_every_named_test_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)
    assert len(named) > 40
    missing = [(path, name) for path, name in named if not (REPOSITORY / path).is_file()]
    missing += [
        (path, name) for path, name in named if name and not missing and name not in functions_of(REPOSITORY / path)
    ]
    assert missing == []
