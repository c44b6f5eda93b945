"""Whole conversations as a model's own chat template has them. No torch."""

__all__ = ["ChatEncoder"]

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from dpo.data.rendering.encoding import any_of
from dpo.data.rendering.template import Template, load_template
from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer
from dpo.errors import ModelError
from dpo.generation.limits import read_limits
from dpo.models.locating import LocatedModel
from dpo.records import Message


@dataclass(frozen=True, kw_only=True)
class ChatEncoder:
    """A model's own template and tokenizer: the ids are those of transformers' apply_chat_template."""

    template: Template
    tokenizer: Tokenizer
    context: int | None = None
    """Most tokens that the model reads; None where its configuration names no bound."""

    @classmethod
    def of_reward_model(cls, name: str, *, trust_remote_code: bool = False) -> Self:
        """Those of a folder or Hub id.

        Raises:
            ModelError: its tokenizer has no template.
            TokenizerError: it has no tokenizer.
        """
        tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
        if tokenizer.chat_template is None:
            raise ModelError(
                f"--reward_model {name}: its tokenizer brings no chat template, by which it would see an answer.\n"
                "  Expected one that scores conversations; put chat_template.jinja into its folder if you know it."
            )
        template = load_template("model", own=tokenizer.chat_template, special_tokens=tokenizer.special_tokens)
        context = read_limits(LocatedModel(base=name, tokenizer=name)).context
        return cls(template=template, tokenizer=tokenizer, context=context)

    @cached_property
    def literals(self) -> re.Pattern[str]:
        """Finds control tokens of the model's in a text."""
        return any_of(self.tokenizer.control_literals)

    def render(self, messages: Sequence[Message]) -> str:
        """The text of a conversation.

        Raises:
            TemplateError: the template refuses it.
        """
        return self.template.render(messages, add_generation_prompt=False)

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """The ids of each conversation, in order."""
        return self.tokenizer.encode([self.render(messages) for messages in conversations])
