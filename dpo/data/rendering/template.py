"""Chat templates: from messages to the text that a model sees."""

__all__ = ["TEMPLATES", "Template", "list_templates", "load_template"]

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

from dpo import shipped
from dpo.errors import TemplateError, unknown_name
from dpo.records import Message

TEMPLATES = shipped.ROOT / "templates"
DECLARATION = re.compile(r"\{#-?\s*(control_tokens|text_markers):(.*?)-?#\}", re.DOTALL)
DECLARED = re.compile(r'"[^"]+"|\S+')
"""A literal in a declaration: a word, or text in quotes with \\n for a line break."""
BOS = "{{- bos_token }}"


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chat template for one tokenizer."""

    name: str
    source: str
    """The Jinja text. It is saved with the model, so that inference uses the same template as training."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """The tokens that the template can use by name: bos_token, eos_token and the tokenizer's other named tokens."""

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """The literals in the template's control_tokens comment. Each must be one token id."""
        return self._declared("control_tokens")

    @property
    def text_markers(self) -> tuple[str, ...]:
        """The literals in the template's text_markers comment. They separate turns as plain text."""
        return self._declared("text_markers")

    def _declared(self, kind: str) -> tuple[str, ...]:
        declared = [words for found, words in DECLARATION.findall(self.source) if found == kind]
        return tuple(unquoted(word) for words in declared for word in DECLARED.findall(words))

    @cached_property
    def _compiled(self) -> jinja2.Template:
        try:
            return environment().from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"template '{self.name}', line {error.lineno}: {error.message}") from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """Render a conversation. The text equals that of transformers' apply_chat_template, byte for byte.

        Args:
            messages: The conversation, oldest turn first.
            add_generation_prompt: Whether to open the next assistant turn.

        Raises:
            TemplateError: if the template refuses the conversation or fails.
        """
        try:
            return self._compiled.render(
                messages=[{"role": message.role, "content": message.content} for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self.special_tokens,
            )
        except Exception as error:  # a template may be the user's own code and can fail in any way
            raise TemplateError(f"template '{self.name}': {error}") from error

    def with_bos(self) -> "Template":
        """Return the same template with the BOS token in front."""
        return replace(self, source=BOS + self.source)


def unquoted(word: str) -> str:
    is_quoted = len(word) > 2 and word[0] == word[-1] == '"'
    return word[1:-1].replace("\\n", "\n") if is_quoted else word


def environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """Create a sandbox with the functions and settings that transformers uses for chat templates."""

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's own filter escapes HTML, which would change the text.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[AssistantTracker, jinja2.ext.loopcontrols]
    )
    sandbox.filters["tojson"] = tojson
    sandbox.globals["raise_exception"] = raise_exception
    sandbox.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return sandbox


class AssistantTracker(jinja2.ext.Extension):
    """Accepts the {% generation %} blocks of transformers, which do not change the text."""

    tags = {"generation"}  # noqa: RUF012 - jinja declares it as an instance variable

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)  # variables set inside are local, as in transformers


def load_template(
    name: str, *, own: str | None = None, special_tokens: Mapping[str, str] = MappingProxyType({})
) -> Template:
    """Load a template by name or path.

    Args:
        name: A file's name in templates/, a path to a .jinja file, or "model".
        own: The tokenizer's own template, which the name "model" selects.
        special_tokens: The tokenizer's named tokens, {"bos_token": "<s>", ...}.

    Raises:
        TemplateError: if the name is unknown, or if it is "model" and the tokenizer has no template.
    """
    if name == "model":
        if own is None:
            raise TemplateError(
                "--template model: the tokenizer has no chat template.\n"
                f"  Choose one of {', '.join(sorted(list_templates()))}, or pass a path to a .jinja file."
            )
        source = own
    elif name in list_templates():
        source = read_template(list_templates()[name])
    elif (file := shipped.find_file(Path(name))).is_file():
        source = read_template(file)
    else:
        raise TemplateError(
            unknown_name("template", name, [*list_templates(), "model"]) + ", or a path to a .jinja file"
        )
    template = Template(name=name, source=source, special_tokens=special_tokens)
    template._compiled  # noqa: B018 - compile it now, so that a syntax error is raised before any row is read
    return template


def read_template(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"template {file}: cannot be read: {error}") from error


def list_templates() -> dict[str, Path]:
    return {file.stem: file for file in TEMPLATES.glob("*.jinja")}
