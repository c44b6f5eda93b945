"""Renders whole conversations with a model's own chat template. No torch."""

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
    """A model's own template and tokenizer. The token ids equal those of transformers' apply_chat_template."""

    template: Template
    tokenizer: Tokenizer
    context: int | None = None
    """Context length of the model in tokens. None if its configuration does not name one."""

    @classmethod
    def of_reward_model(cls, name: str, *, trust_remote_code: bool = False) -> Self:
        """Load the template and the tokenizer of a reward model.

        Args:
            name: Folder or Hub id.
            trust_remote_code: Whether to run tokenizer code that comes with the model.

        Raises:
            ModelError: if the tokenizer has no chat template.
            TokenizerError: if the model has no tokenizer.
        """
        tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
        if tokenizer.chat_template is None:
            raise ModelError(
                f"--reward_model {name}: the tokenizer has no chat template to render the conversations with.\n"
                "  Pass a model that scores conversations, or add its chat_template.jinja to its folder."
            )
        template = load_template("model", own=tokenizer.chat_template, special_tokens=tokenizer.special_tokens)
        context = read_limits(LocatedModel(base=name, tokenizer=name)).context
        return cls(template=template, tokenizer=tokenizer, context=context)

    @cached_property
    def literals(self) -> re.Pattern[str]:
        """Pattern that matches the model's control tokens in a text."""
        return any_of(self.tokenizer.control_literals)

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation as text.

        Raises:
            TemplateError: if the template refuses the conversation.
        """
        return self.template.render(messages, add_generation_prompt=False)

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Return the token ids of each conversation, in order."""
        return self.tokenizer.encode([self.render(messages) for messages in conversations])
