"""Tests of dpo.data.rendering.template: golden bytes, and the same bytes as transformers."""

from pathlib import Path

import pytest

from dpo.data.rendering.template import Template, load_template
from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer
from dpo.errors import TemplateError
from dpo.records import Message
from tests.builders import assistant, system, user

CONVERSATION = [system("Be brief."), user("Hi!"), assistant("Hello."), user("2 + 2?")]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

GOLDEN = {
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi!<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\n2 + 2?<|im_end|>\n",
        "<|im_start|>assistant\n",
    ),
    "hh": ("\n\nBe brief.\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: 2 + 2?", "\n\nAssistant:"),
    "llama3": (
        "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n2 + 2?<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "mistral": ("[INST] Be brief.\n\nHi! [/INST] Hello.</s>[INST] 2 + 2? [/INST]", ""),
    "neural_chat": (
        "### System:\nBe brief.\n### User:\nHi!\n### Assistant:\nHello.</s>\n### User:\n2 + 2?\n",
        "### Assistant:\n",
    ),
    "zephyr": (
        "<|system|>\nBe brief.</s>\n<|user|>\nHi!</s>\n<|assistant|>\nHello.</s>\n<|user|>\n2 + 2?</s>\n",
        "<|assistant|>\n",
    ),
}

CONVERSATIONS = [
    CONVERSATION,
    [user("Hi!")],
    [user("Hi!"), assistant("Hello.")],
    [system(""), user("")],
    [user("  leading and trailing  \n"), assistant("\n\n x \t")],
    [user("one\ntwo\r\nthree\n\n"), assistant("{{ no }} {% jinja %} {# here #}")],
    [user("Größe ½ — 日本語 🙂👩‍👩‍👧 \u00a0\u200b"), assistant("<b>&amp;\"quotes\" 'single'</b>\\n")],
    [system("Be\n\nbrief. "), user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
]


def render(source: str, messages: list[Message], *, add_generation_prompt: bool = False) -> str:
    return Template(name="test", source=source, special_tokens=TOKENS).render(
        messages, add_generation_prompt=add_generation_prompt
    )


def refusal(source: str) -> str:
    """Return the error of a template that fails on a user turn of "Hi!"."""
    with pytest.raises(TemplateError) as caught:
        render(source, [user("Hi!")])
    return str(caught.value)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_template_renders_its_golden_bytes(name: str) -> None:
    text, opening = GOLDEN[name]
    template = load_template(name, special_tokens=TOKENS)
    assert template.render(CONVERSATION, add_generation_prompt=False) == text
    assert template.render(CONVERSATION, add_generation_prompt=True) == text + opening


def test_every_template_has_golden_bytes() -> None:
    with pytest.raises(TemplateError) as caught:
        load_template("chatlm")
    assert str(caught.value) == (
        "unknown template 'chatlm'. Did you mean chatml?\n"
        "  Available: chatml, hh, llama3, mistral, model, neural_chat, zephyr, or a path to a .jinja file"
    )
    assert sorted(GOLDEN) == ["chatml", "hh", "llama3", "mistral", "neural_chat", "zephyr"]


@pytest.mark.parametrize("name", ["chatml", "hh", "mistral", "neural_chat", "zephyr"])
def test_white_space_in_a_turn_is_kept(name: str) -> None:
    text = load_template(name, special_tokens=TOKENS).render(
        [user(" \n x \n"), assistant("\n y ")], add_generation_prompt=False
    )
    assert " \n x \n" in text
    assert "\n y " in text


def test_llama3_trims_turns() -> None:
    text = load_template("llama3").render([user(" \n x \n")], add_generation_prompt=False)
    assert text == "<|start_header_id|>user<|end_header_id|>\n\nx<|eot_id|>"


@pytest.mark.parametrize(
    "messages",
    [[user("a"), user("b")], [assistant("a")], [system("a"), system("b"), user("c")], [user("a"), system("b")]],
)
def test_mistral_refuses_turns_that_do_not_alternate(messages: list[Message]) -> None:
    with pytest.raises(TemplateError, match="template 'mistral': user and assistant turns must alternate"):
        load_template("mistral", special_tokens=TOKENS).render(messages, add_generation_prompt=False)


def test_declarations_are_read_from_comments() -> None:
    assert load_template("chatml").control_tokens == ("<|im_start|>", "<|im_end|>")
    assert load_template("chatml").text_markers == ()
    assert load_template("llama3").control_tokens == ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    assert load_template("mistral").text_markers == ("[INST]", "[/INST]")
    assert load_template("zephyr").text_markers == ("<|system|>", "<|user|>", "<|assistant|>")
    assert load_template("hh").text_markers == ("\n\nHuman:", "\n\nAssistant:")
    assert load_template("neural_chat").text_markers == ("### System:\n", "### User:\n", "### Assistant:\n")
    assert Template(name="own", source="{# control_tokens: <a>\n <b> #}{#- text_markers: X -#}x").control_tokens == (
        "<a>",
        "<b>",
    )


def test_hh_ends_only_the_last_answer_as_the_paper_s_code_does() -> None:
    template = load_template("hh", special_tokens=TOKENS)
    turns = [user("Hi!"), assistant("Hello."), user("2 + 2?"), assistant("4")]
    assert template.render(turns, add_generation_prompt=False) == (
        "\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: 2 + 2?\n\nAssistant: 4</s>"
    )


def test_with_bos_adds_the_token_in_front_and_changes_nothing_else() -> None:
    template = load_template("chatml", special_tokens=TOKENS)
    with_bos = template.with_bos()
    plain = template.render(CONVERSATION, add_generation_prompt=True)
    assert with_bos.render(CONVERSATION, add_generation_prompt=True) == "<s>" + plain
    assert with_bos.name == "chatml"
    assert with_bos.control_tokens == ("<|im_start|>", "<|im_end|>")


class TestLoading:
    def test_a_path_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "own.jinja").write_text("{{ messages[0].content }} ½", encoding="utf-8")
        template = load_template(str(tmp_path / "own.jinja"))
        assert template.render([user("Hi!")], add_generation_prompt=False) == "Hi! ½"

    def test_model_is_the_tokenizer_s_own_template(self) -> None:
        template = load_template("model", own="{{ bos_token }}{{ messages[0].content }}", special_tokens=TOKENS)
        assert template.render([user("Hi!")], add_generation_prompt=False) == "<s>Hi!"

    def test_model_without_a_template_in_the_tokenizer_lists_the_others(self) -> None:
        with pytest.raises(TemplateError) as caught:
            load_template("model")
        assert "--template model: the tokenizer has no chat template" in str(caught.value)
        assert "chatml, hh, llama3, mistral, neural_chat, zephyr, or pass a path" in str(caught.value)

    def test_a_missing_path_is_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(TemplateError, match=r"unknown template '.*none\.jinja'"):
            load_template(str(tmp_path / "none.jinja"))

    @pytest.mark.parametrize(
        ("source", "line"),
        [
            ("{{ messages", 1),
            ("x\n{% for m in messages %}\ny", 3),
            ("a\nb\n{% oops %}", 3),
            ("a\n{{ x | nofilter }}", 2),
        ],
    )
    def test_a_syntax_error_is_raised_at_loading_with_its_line(self, tmp_path: Path, source: str, line: int) -> None:
        (tmp_path / "own.jinja").write_text(source)
        with pytest.raises(TemplateError, match=rf"own\.jinja', line {line}: "):
            load_template(str(tmp_path / "own.jinja"))

    def test_a_template_that_is_not_utf_8_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "own.jinja").write_bytes(b"\xff\xfe")
        with pytest.raises(TemplateError, match=r"own\.jinja"):
            load_template(str(tmp_path / "own.jinja"))


class TestSandbox:
    def test_raise_exception_is_a_template_error_with_its_message(self) -> None:
        assert refusal("{{ raise_exception('no system message, please') }}") == (
            "template 'test': no system message, please"
        )

    @pytest.mark.parametrize(
        "source",
        [
            "{{ unk_token + 'x' }}",
            "{{ messages[0].content + 1 }}",
            "{{ messages[7].content }}",
            "{{ 1 // 0 }}",
            "{{ messages[0].content.index('z') }}",
            "{{ messages[0].content.split('') }}",
            "{{ range(10**9) | list }}",
            "{% set _ = messages.append(1) %}",
            "{{ ''.__class__.__mro__ }}{{ ''.__class__.__base__.__subclasses__() }}",
        ],
    )
    def test_a_template_that_fails_on_a_conversation_is_a_template_error(self, source: str) -> None:
        assert refusal(source).startswith("template 'test': ")

    def test_tojson_keeps_html_and_unicode_and_takes_options(self) -> None:
        assert render("{{ messages[0] | tojson }}", [user("<b>½ 'x'</b>")]) == (
            '{"role": "user", "content": "<b>½ \'x\'</b>"}'
        )
        assert render("{{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=true) }}", []) == (
            '{\n "a": [\n  2\n ],\n "b": 1\n}'
        )

    def test_loop_controls_work(self) -> None:
        source = (
            "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
            "{% if m.content == '2 + 2?' %}{% break %}{% endif %}[{{ m.content }}]{% endfor %}"
        )
        assert render(source, CONVERSATION) == "[Hi!][Hello.]"

    def test_generation_blocks_change_no_text(self) -> None:
        source = "{% for m in messages %}{% generation %}{{ m.content }};{% endgeneration %}{% endfor %}"
        assert render(source, CONVERSATION) == "Be brief.;Hi!;Hello.;2 + 2?;"

    def test_blocks_take_their_line_break_and_indentation_with_them(self) -> None:
        assert render("{% if true %}\n    {% set x = 1 %}\na\n{% endif %}\nb\n", []) == "a\nb"

    def test_strftime_now_gives_the_year(self) -> None:
        assert 2024 <= int(render("{{ strftime_now('%Y') }}", [])) < 2200

    def test_tools_and_documents_are_none(self) -> None:
        assert render("{{ tools is none }} {{ documents is none }}", []) == "True True"


OWN_TEMPLATES = {
    "white space": "{%- for m in messages %}\n    {{ m.role }}\n{{- m.content | trim }}\n    {% endfor %}\n\nend\n\n",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content }}\n{% endif %}{% endfor %}",
    "scope of generation": "{% set x = 'out' %}{% generation %}{% set x = 'in' %}{{ x }}{% endgeneration %}{{ x }}",
    "json": "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ tools | tojson }}{{ messages | length }}",
    "loops": "{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}{{ loop.index0 }}{% endfor %}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "named tokens": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token is defined }}|{{ undefined_name }}",
    "methods": "{{ messages[0].content.strip().split('\n')[-1].upper() }}{{ messages[-1]['content'][:3] }}",
    "tests": "{{ messages[0].tool_calls is defined }}{{ messages[0].get('name', 'none') }}{{ messages is iterable }}",
    "dictionary": "{{ dict(a=1) }}{{ messages[0].items() | list }}{{ messages[0].keys() | join(',') }}",
}


class TestAgainstTransformers:
    """The text equals that of apply_chat_template for the same tokenizer, byte for byte."""

    @staticmethod
    def check(folder: Path, mine: Template, source: str, conversations: list[list[Message]]) -> None:
        from transformers import AutoTokenizer

        theirs = AutoTokenizer.from_pretrained(folder)
        for messages in conversations:
            for opening in (False, True):
                expected = theirs.apply_chat_template(
                    [message.model_dump() for message in messages],
                    chat_template=source,
                    tokenize=False,
                    add_generation_prompt=opening,
                )
                assert mine.render(messages, add_generation_prompt=opening) == expected

    @pytest.mark.parametrize("name", GOLDEN)
    @pytest.mark.parametrize("folder", ["chatml_folder", "bos_folder", "llama3_folder", "sentencepiece_folder"])
    def test_every_template_gives_the_same(self, name: str, folder: str, request: pytest.FixtureRequest) -> None:
        model: Path = request.getfixturevalue(folder)
        template = load_template(name, special_tokens=load_tokenizer(str(model)).special_tokens)
        alternating = [c for c in CONVERSATIONS if c[0].role != "system" or c[1].role == "user"]
        self.check(model, template, template.source, alternating)
        if "bos_token" in template.special_tokens:
            self.check(model, template.with_bos(), template.with_bos().source, alternating)

    @pytest.mark.parametrize("source", OWN_TEMPLATES.values(), ids=OWN_TEMPLATES)
    def test_every_feature_that_a_template_may_use_gives_the_same(
        self, source: str, bos_folder: Path, bos_tokenizer: Tokenizer
    ) -> None:
        template = load_template("model", own=source, special_tokens=bos_tokenizer.special_tokens)
        self.check(bos_folder, template, source, CONVERSATIONS)

    def test_the_tokenizer_s_own_template_gives_the_same(self, bos_folder: Path, bos_tokenizer: Tokenizer) -> None:
        own = bos_tokenizer.chat_template
        assert own is not None
        template = load_template("model", own=own, special_tokens=bos_tokenizer.special_tokens)
        self.check(bos_folder, template, own, CONVERSATIONS)
