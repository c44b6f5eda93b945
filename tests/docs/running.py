"""Executes the blocks of a page as a reader would: in order, in one copy of the checkout."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.builders import ROOT
from tests.docs.blocks import Block, executed_text, read_blocks
from tests.docs.checking import problem_of

CHECKOUT = ("dpo", "main.py", "templates", "ds_configs", "samples", "runs")
"""What is copied. Links would let a block write into the real checkout."""

TIMEOUT_S = 300
"""For one block. A page's blocks take below 60 s each on a machine that does nothing else."""


class PageRun:
    """A scratch folder with a copy of the checkout, where the blocks of one page are executed."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder / "checkout"
        self.scripts = folder / "scripts"
        copy_checkout(self.folder)
        programs = folder / "bin"
        programs.mkdir()
        self.scripts.mkdir()
        command = programs / "dpo"  # the console script of an installed package
        command.write_text('#!/bin/sh\nexec python -m dpo "$@"\n')
        command.chmod(0o755)
        path = [str(programs), str(Path(sys.executable).parent), environment["PATH"]]
        self.environment = {**environment, "PATH": os.pathsep.join(path), "PYTHONPATH": str(self.folder)}

    def run(self, page: str, text: str) -> None:
        """Execute or check every block of a page, and print the time that each took.

        Raises:
            AssertionError: if a block fails; with its line and the end of its output.
        """
        for block in read_blocks(text):
            start = time.perf_counter()
            problem = problem_of(block) if block.is_marked else self.execute(block)
            print(f"{page}:{block.line}: {time.perf_counter() - start:.1f} s")
            if problem is not None:
                raise AssertionError(f"{page}:{block.line}: this block fails:\n\n{block.text}\n{problem}")

    def execute(self, block: Block) -> str | None:
        """Run one block; give the end of its output if it fails."""
        script = self.scripts / f"line_{block.line}"
        script.write_text(executed_text(block), encoding="utf-8")
        program = ["bash", "-euo", "pipefail"] if block.language == "sh" else ["python"]
        output = script.with_suffix(".log")
        with output.open("w") as log:
            # Output goes to a file and not to a pipe, which a process that outlives the block would keep open.
            process = subprocess.Popen(
                [*program, str(script)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | str = process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = f"none after {TIMEOUT_S} s"
        if code == 0:
            return None
        return f"exit code {code}, and at its end:\n{output.read_text(encoding='utf-8', errors='replace')[-3000:]}"


def copy_checkout(folder: Path) -> None:
    folder.mkdir()
    for name in CHECKOUT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy2(ROOT / name, folder / name)
