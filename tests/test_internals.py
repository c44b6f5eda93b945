"""docs/internals.md lists every private name of a library that the code uses."""

import ast
import re
from pathlib import Path

from tests.builders import ROOT

PUBLIC = {"_exit", "_replace"}
"""Documented in spite of their underscore: os._exit, and _replace of named tuples."""


def private_names(file: Path) -> set[str]:
    """Names with an underscore in front that a file uses and does not define."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {name.name for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}
    overridden = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own = {target.attr for node in nodes for target in targets(node) if isinstance(target, ast.Attribute)}
    calls_super = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
    }
    private = {name for name in used if re.match(r"_[a-z]", name) or name == "__compatible_ops__"}
    return (private - overridden - own - PUBLIC) | {name for name in calls_super if re.match(r"_[a-z]", name)}


def targets(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


def test_the_table_names_every_private_name_in_the_code() -> None:
    table = (ROOT / "docs" / "internals.md").read_text(encoding="utf-8").split("Not private")[0]
    files = sorted((ROOT / "dpo").rglob("*.py"))
    found = {name: file.relative_to(ROOT / "dpo") for file in files for name in private_names(file)}
    assert len(found) > 5, "the search finds what is there"
    missing = {name: str(file) for name, file in found.items() if name not in table}
    assert missing == {}


def test_the_table_names_nothing_that_is_gone() -> None:
    text = (ROOT / "docs" / "internals.md").read_text(encoding="utf-8").split("Not private")[0]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 5
    for names, place in rows:
        code = (ROOT / "dpo" / place.strip(" `")).read_text(encoding="utf-8")
        for name in re.findall(r"_[a-z_]+", names):
            assert name in code, (name, place)
