"""What may import what, and what must not be loaded before it is needed."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import ROOT, SAMPLES

HEAVY = ("torch", "transformers", "deepspeed", "trl", "accelerate", "lm_eval")
REPORT = f"\nimport sys\nprint('loaded:', [name for name in {HEAVY} if name in sys.modules])"


def run_python(code: str, *, argv: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def as_command(*words: str) -> str:
    """Code that does what `python -m dpo WORDS` does, and then tells what it loaded."""
    return (
        f"import sys, runpy\nsys.argv = {['dpo', *words]}\n"
        "try:\n    runpy.run_module('dpo', run_name='__main__')\nexcept SystemExit as left:\n    assert not left.code\n"
        + REPORT
    )


@pytest.mark.parametrize(
    "code",
    [
        "import dpo, dpo.adapters, dpo.cli, dpo.data.pipeline, dpo.records\ndpo.adapters.find_adapters()" + REPORT,
        as_command("--help"),
        as_command("adapters"),
        as_command("prepare", "--help"),
        as_command("inspect", "--help"),
        as_command("evaluate", "--help"),
        as_command("recipe", "--help"),
        as_command("generate", "--help"),
        as_command("merge", "--help"),
        "import dpo.inspection.page" + REPORT,
        "import dpo.generation.run" + REPORT,
    ],
    ids=[
        *("imports", "help", "adapters", "prepare", "inspect", "evaluate", "recipe", "generate", "merge"),
        *("page", "generation"),
    ],
)
def test_the_data_half_and_its_commands_load_nothing_heavy(code: str) -> None:
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_preparing_data_loads_nothing_heavy(chatml_folder: Path, tmp_path: Path) -> None:
    code = (
        "from dpo.data.config import DataConfig\n"
        "from dpo.data.pipeline import prepare\n"
        "from dpo.data.tokenization import load_tokenizer\n"
        f"config = DataConfig(datasets=('nectar={SAMPLES / 'nectar.jsonl'}',), validation_split=0.2)\n"
        f"prepared = prepare(config, load_tokenizer({str(chatml_folder)!r}), progress=False)\n"
        "print(len(prepared.train) + len(prepared.eval), 'pairs')" + REPORT
    )
    result = run_python(code, DPO_CACHE=str(tmp_path / "cache"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-2:] == ["91 pairs", "loaded: []"]


def imported_modules(file: Path, *, also_in_functions: bool) -> set[str]:
    """Names of the modules that a file imports, `from dpo import adapters` as dpo.adapters."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    statements = ast.walk(tree) if also_in_functions else outside_functions(tree)
    found = set()
    for statement in statements:
        if isinstance(statement, ast.Import):
            found |= {name.name for name in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{file} imports relatively"
            found |= {f"{statement.module}.{name.name}" for name in statement.names}
    return found


def outside_functions(node: ast.AST) -> list[ast.AST]:
    children = [c for c in ast.iter_child_nodes(node) if not isinstance(c, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node, *(inner for child in children for inner in outside_functions(child))]


def imports_below(folder: str, *packages: str, also_in_functions: bool = True) -> dict[str, set[str]]:
    """What the files of a folder import of some packages, by file; files that import none are left out."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert len(files) > 3
    found = {
        file.name: {
            name
            for name in imported_modules(file, also_in_functions=also_in_functions)
            if any(name == package or name.startswith(f"{package}.") for package in packages)
        }
        for file in files
    }
    return {name: modules for name, modules in found.items() if modules}


def test_the_check_sees_imports_of_every_form(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import a.b\nfrom c import d\nif True:\n    import e\ndef f():\n    from g.h import i\n")
    assert imported_modules(file, also_in_functions=False) == {"a.b", "c.d", "e"}
    assert imported_modules(file, also_in_functions=True) == {"a.b", "c.d", "e", "g.h.i"}


def test_adapters_know_neither_the_data_stages_nor_training() -> None:
    assert imports_below("dpo/adapters", "dpo.data", "dpo.training", *HEAVY, "tokenizers", "jinja2") == {}


def test_the_data_stages_never_import_training() -> None:
    assert imports_below("dpo/data", "dpo.training") == {}


def test_the_data_stages_import_nothing_heavy_at_the_top() -> None:
    assert imports_below("dpo/data", *HEAVY, also_in_functions=False) == {}
    assert imports_below("dpo/data", *HEAVY) == {"tokenization.py": {"transformers.AutoTokenizer"}}


def test_the_parts_that_all_share_import_no_stage() -> None:
    for name in ("records.py", "errors.py", "cache.py", "folders.py", "flags.py"):
        stages = {
            module for module in imported_modules(ROOT / "dpo" / name, also_in_functions=True) if "dpo." in module
        }
        assert all(module.startswith(("dpo.errors.", "dpo.folders.")) for module in stages), (name, stages)
