"""Tests that the adapter in CONTRIBUTING.md works as printed."""

import re
import types
from pathlib import Path

from dpo.adapters.base import Adapter, AdapterOptions
from dpo.records import Drop

ROOT = Path(__file__).resolve().parents[1]


def test_the_adapter_in_contributing_gives_what_its_examples_say():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    module = types.ModuleType("my_votes")
    exec(code, module.__dict__)
    adapter = module.ADAPTER
    assert isinstance(adapter, Adapter)
    assert len(adapter.examples) == 2
    for row, expected in adapter.examples:
        try:
            found = list(adapter.convert(row, AdapterOptions()))
        except Drop as drop:
            found = [drop]
        assert [getattr(f, "reason", f) for f in found] == [getattr(e, "reason", e) for e in expected]
