"""How the blocks of a page are executed."""

from pathlib import Path

import pytest

from tests.builders import ROOT
from tests.docs import running
from tests.docs.running import PageRun

PAGE = """\
```sh
dpo adapters --check dpo/adapters/triplets.py > checked.txt
make test   # not executed
echo '{}' > samples/new.jsonl
```

```python
from pathlib import Path

import dpo

assert Path(dpo.__file__).parent == Path("dpo").resolve(), "the copy is imported"
assert "triplets" in Path("checked.txt").read_text()
```

```sh
# needs a GPU
false
```
"""


def test_blocks_share_a_copy_of_the_checkout_that_they_may_change(
    page_run: PageRun, capsys: pytest.CaptureFixture[str]
) -> None:
    page_run.run("page.md", PAGE)
    times = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert times == ["page.md:1:", "page.md:7:", "page.md:16:"]
    assert (page_run.folder / "samples" / "new.jsonl").exists()
    assert not (ROOT / "samples" / "new.jsonl").exists()


@pytest.mark.parametrize(
    ("language", "block", "said"),
    [
        ("sh", "dpo adaptrs", "'adaptrs'"),
        ("sh", "ls missing | head\necho go on", "exit code 2"),
        ("python", "raise ValueError('of the page')", "of the page"),
        ("sh", "# needs a GPU\ndpo merge --adapterr a", "--adapterr"),
    ],
)
def test_a_block_that_fails_is_named_with_its_line_and_its_output(
    language: str, block: str, said: str, page_run: PageRun
) -> None:
    text = f"```sh\ntrue\n```\n\n```{language}\n{block}\n```\n"
    with pytest.raises(AssertionError) as failed:
        page_run.run("page.md", text)
    assert str(failed.value).startswith("page.md:5: this block fails") and said in str(failed.value)


def test_a_block_that_does_not_end_is_killed_with_what_it_started(
    page_run: PageRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "TIMEOUT_S", 1)
    with pytest.raises(AssertionError, match="exit code none after 1 s"):
        page_run.run("page.md", "```sh\ntail -f /dev/null & echo $! > pid\nwait\n```\n")
    process = Path("/proc", (page_run.folder / "pid").read_text().strip(), "stat")
    assert not process.exists() or ") Z " in process.read_text()
