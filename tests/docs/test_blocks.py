"""Which blocks of a page are executed, and what is checked of the others."""

import pytest

from tests.docs.blocks import OTHER_NAMES, Block, executed_text, find_pages, page_text, read_blocks, read_fences
from tests.docs.checking import problem_of
from tests.docs.shell import simple_commands, split_commands

PAGE = """\
# A page

```sh
dpo --help
```

- In a list:

    ```python
    if True:
        print("indented")
    ```

````text
```sh
not a block
```
````

```sh
# needs a GPU
deepspeed --num_gpus 8 main.py --datasets nectar --model_name_or_path M --output_dir out --deepspeed \\
  ds_configs/zero3.json
WANDB_PROJECT=p python main.py --datasets nectar --no-reference_cache > log.txt && echo 'it''s done'
```

```console
some output
```
"""


def shell(text: str) -> Block:
    return Block(line=1, language="sh", text=text)


def marked(command: str) -> Block:
    return shell(f"# needs a GPU\n{command}\n")


def test_blocks_are_read_in_order_with_their_lines_and_without_their_indentation() -> None:
    first, second, third = read_blocks(PAGE)
    assert (first.line, first.language, first.text) == (3, "sh", "dpo --help\n")
    assert (second.line, second.language, second.text) == (9, "python", 'if True:\n    print("indented")\n')
    assert [block.is_executed for block in (first, second, third)] == [True, True, False]
    assert third.is_marked and problem_of(third) is None


def test_the_documentation_has_blocks_of_every_kind() -> None:
    blocks = [block for page in find_pages() for block in read_blocks(page_text(page))]
    executed = [block for block in blocks if block.is_executed]
    assert len([block for block in executed if block.language == "sh"]) > 10
    assert len([block for block in executed if block.language == "python"]) > 3
    assert len([block for block in blocks if block.is_marked]) > 3
    assert any("main.py" in block.text for block in executed)


def test_no_page_writes_a_language_under_a_name_that_is_overlooked() -> None:
    fences = [(page, block) for page in find_pages() for block in read_fences(page_text(page))]
    found = [f"{page}:{block.line}" for page, block in fences if block.language in OTHER_NAMES]
    assert found == [], "write ```sh or ```python for what is executed, ```text or ```console for what is not"


def test_continued_lines_quotes_and_here_documents_belong_to_their_command() -> None:
    text = "cat > f <<'EOF'\nit's \\\nEOF\necho a \\\n  b\n# it's a comment\npython -c '\n1'\n"
    assert list(split_commands(text)) == [
        "cat > f <<'EOF'\nit's \\\nEOF",
        "echo a \\\n  b",
        "# it's a comment",
        "python -c '\n1'",
    ]


def test_a_command_is_read_without_variables_redirections_and_comments() -> None:
    command = "A=1 dpo x 'tie>5%' --b=c < in > out | head && cat <<EOF\n  --text\nEOF"
    assert simple_commands(command) == [["dpo", "x", "tie>5%", "--b=c"], ["head"], ["cat"]]
    assert simple_commands("# nothing") == []


def test_commands_that_need_a_network_or_take_long_are_left_out() -> None:
    install = "python3 -m venv .venv && source .venv/bin/activate\npip install -r requirements.txt   # 2 GB\n"
    assert executed_text(shell(install + "dpo --help\n")) == "dpo --help\n"
    assert not shell(install).is_executed and not shell("make demo\n# a comment\n").is_executed
    with pytest.raises(ValueError, match="needs a line of its own"):
        executed_text(shell("make demo && dpo --help\n"))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("python main.py --datasets nectar --max_lenght 6", "--max_lenght"),
        ("deepspeed main.py --datasets nectar --engine packd", "packd"),
        ("accelerate launch main.py --datasets nectar --truncation_mode keep_end", "--truncation_mode is refused"),
        ("dpo train --datasets nectar --betta 1", "--betta"),
        ("torchrun --nproc_per_node 8 -m dpo train --datasets nectar --betta 1", "--betta"),
        ("dpo merge --adapter a --output b --chek_prompts 0", "--chek_prompts"),
        ("python -m dpo merge --adapter a --output b stray", "stray"),
        ("dpo merge --output b", "--adapter"),
        ("dpo mrege --adapter a", "mrege"),
        ("echo done && deepspeed main.py --deepspeed ds_configs/zero4.json", "ds_configs/zero4.json does not exist"),
    ],
)
def test_what_does_not_exist_fails_in_a_block_that_is_not_executed(command: str, said: str) -> None:
    problem = problem_of(marked(command))
    assert problem is not None and said in problem


def test_python_that_is_not_executed_is_still_python() -> None:
    assert problem_of(Block(line=1, language="python", text="# needs the Hub\nimport dpo\n")) is None
    problem = problem_of(Block(line=1, language="python", text="# needs the Hub\nimport dpo dpo\n"))
    assert problem is not None and "SyntaxError" in problem
