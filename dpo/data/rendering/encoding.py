"""A preference to token ids: what the model sees at inference, and what it is to answer."""

__all__ = ["EncodedPair", "PairEncoder", "any_of", "load_known_template"]

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from dpo.data.rendering.template import Template, list_templates, load_template
from dpo.data.rendering.tokenization import Tokenizer
from dpo.errors import DataError, TemplateError
from dpo.records import Drop, Message, Preference

PROBE = "PROBE"
FLAGS = {
    "boundary_shift": "whose prompt would have merged with their answer",
    "double_bos": "whose prompt begins with two BOS tokens",
    "literal_in_text": "whose text holds the literal of a control token",
}
"""What is worth knowing of a kept pair and no reason to drop it."""


@dataclass(frozen=True, kw_only=True)
class EncodedPair:
    """A preference and its token ids."""

    preference: Preference
    prompt_ids: list[int]
    """Up to and including what opens the assistant's turn."""
    chosen_ids: list[int]
    """The answer, ending in the end-of-turn token."""
    rejected_ids: list[int]
    """Likewise; empty where there is no rejected answer."""
    boundary_shift: bool
    """Whether a token would have merged across the end of the prompt, in either answer."""
    double_bos: bool = False
    """Whether the prompt begins with two BOS tokens."""
    literal_in_text: bool = False
    """Whether the text holds the literal of a control token, which the user chose to keep."""

    @property
    def lengths(self) -> dict[str, int]:
        """Tokens of each part there is, and of the whole that max_length bounds: the prompt and its longer answer."""
        prompt, chosen, rejected = len(self.prompt_ids), len(self.chosen_ids), len(self.rejected_ids)
        answers = {"chosen": chosen, "rejected": rejected} if rejected else {"chosen": chosen}
        return {"prompt": prompt, **answers, "whole": prompt + max(chosen, rejected)}

    @property
    def flags(self) -> list[str]:
        """The names in FLAGS that are true of the pair."""
        return [name for name in FLAGS if getattr(self, name)]


class PairEncoder:
    """Renders pairs with a template and splits their ids into prompt and answers.

    Args:
        template: The template as the user chose it.
        tokenizer: The model's tokenizer.
        special_tokens_in_text: "drop", "error" or "keep" for texts that hold a control token's literal.
        add_control_tokens: Whether to add the template's control tokens to a tokenizer that lacks them.

    Raises:
        TemplateError: the tokenizer lacks a control token, or answers do not end in one.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: Tokenizer,
        *,
        special_tokens_in_text: str = "drop",
        add_control_tokens: bool = False,
    ) -> None:
        self.special_tokens_in_text = special_tokens_in_text
        self.added_tokens = [token for token in template.control_tokens if not tokenizer.is_one_id(token)]
        if self.added_tokens and not add_control_tokens:
            raise TemplateError(
                f"template '{template.name}' needs {', '.join(template.control_tokens)} as one token each; "
                f"the tokenizer lacks {', '.join(self.added_tokens)}.\n"
                "  Pass --add_control_tokens to add them and resize the embeddings, or choose another --template"
                + (" such as 'model', the tokenizer's own." if tokenizer.chat_template else ".")
            )
        self.tokenizer = tokenizer.with_control_tokens(self.added_tokens)
        self.template = self._with_bos_if_wanted(template)
        self.end_of_turn = self._find_end_of_turn()
        self.end_of_turn_id = self.tokenizer.token_id(self.end_of_turn)

    def encode(self, preferences: Sequence[Preference]) -> list[EncodedPair | Drop]:
        """Ids of each preference, or why it has none, in order.

        Raises:
            DataError: a text holds a control token's literal and the user asked for an error.
        """
        rendered = [self._render_or_drop(preference) for preference in preferences]
        pieces = [piece for texts in rendered if not isinstance(texts, Drop) for piece in self._cut(*texts)]
        # Each text once: what opens the answer is always the same, and pairs of one row share prompts and answers.
        different = list(dict.fromkeys(pieces))
        ids_of = dict(zip(different, self.tokenizer.encode(different), strict=True))
        ids = (ids_of[piece] for piece in pieces)
        return [
            texts if isinstance(texts, Drop) else self._split(preference, texts, list(islice(ids, len(texts) + 1)))
            for preference, texts in zip(preferences, rendered, strict=True)
        ]

    def _cut(self, prompt: str, *answered: str) -> list[str]:
        """What is encoded of a pair: the prompt up to its last control token, and from there prompt, chosen, rejected.

        A tokenizer encodes what stands before and behind a control token by itself, so that no id depends on the text
        beyond it: the long beginning is encoded once for all of them.
        """
        cut = max((found.start() for found in self._barriers.finditer(prompt)), default=0)
        return [prompt[:cut], *(text[cut:] for text in (prompt, *answered))]

    def render(self, preference: Preference) -> tuple[str, ...]:
        """Texts of the prompt, the prompt with the chosen and, where there is one, with the rejected answer."""
        answered = (
            self.template.render(
                [*preference.prompt, Message(role="assistant", content=answer)], add_generation_prompt=False
            )
            for answer in preference.answers
        )
        return self.template.render(preference.prompt, add_generation_prompt=True), *answered

    def _render_or_drop(self, preference: Preference) -> tuple[str, ...] | Drop:
        if self.special_tokens_in_text != "keep" and (literal := self._find_literal(preference)):
            if self.special_tokens_in_text == "error":
                raise DataError(
                    f"{preference.source}, row {preference.row}: the text holds '{literal}', which would become a "
                    "control token.\n  Mend the row, or pass --special_tokens_in_text drop."
                )
            return Drop("special_token_in_text", f"the text holds {literal}")
        try:
            texts = self.render(preference)
        except TemplateError as error:
            return Drop("template_refused", str(error))
        if not all(text.startswith(texts[0]) for text in texts[1:]):
            return Drop("prompt_not_prefix", "the template renders the prompt differently once an answer follows")
        return texts

    def _split(self, preference: Preference, texts: tuple[str, ...], ids: list[list[int]]) -> EncodedPair | Drop:
        beginning, rest_of_prompt, *wholes = ids
        shifted = False
        completions = []
        for text, whole in zip(texts[1:], wholes, strict=True):
            if whole[: len(rest_of_prompt)] == rest_of_prompt:
                completion = whole[len(rest_of_prompt) :]
            else:
                # A merge across the boundary: at inference the prompt's own ids come first, so they do here.
                shifted = True
                completion = self.tokenizer.encode_continuation(text[len(texts[0]) :])
            end = last_index(completion, self.end_of_turn_id)
            if end is None:
                return Drop("no_end_token", f"the answer does not end in {self.end_of_turn}")
            completions.append(completion[: end + 1])
        prompt_ids = beginning + rest_of_prompt
        return EncodedPair(
            preference=preference,
            prompt_ids=prompt_ids,
            chosen_ids=completions[0],
            rejected_ids=[] if preference.rejected is None else completions[1],
            boundary_shift=shifted,
            double_bos=prompt_ids[:2] == [self._bos_id] * 2,
            literal_in_text=self.special_tokens_in_text == "keep" and self._find_literal(preference) is not None,
        )

    @cached_property
    def _bos_id(self) -> int | None:
        bos = self.tokenizer.special_tokens.get("bos_token")
        return None if bos is None else self.tokenizer.token_id(bos)

    @cached_property
    def literals(self) -> re.Pattern[str]:
        """Finds what no text may hold: control tokens, and what separates turns as plain text."""
        markers = self.template.control_tokens + self.template.text_markers
        return any_of(self.tokenizer.control_literals | set(markers))

    @cached_property
    def _barriers(self) -> re.Pattern[str]:
        return any_of(self.tokenizer.barriers)

    def _find_literal(self, preference: Preference) -> str | None:
        for text in (*(message.content for message in preference.prompt), *preference.answers):
            if found := self.literals.search(text):
                return found.group()
        return None

    def _with_bos_if_wanted(self, template: Template) -> Template:
        """Exactly one BOS where the tokenizer wants one. 'model' is the model author's word and stays."""
        if template.name == "model" or not self.tokenizer.wants_bos:
            return template
        opening = template.render([Message(role="user", content=PROBE)], add_generation_prompt=True)
        return template if opening.startswith(self.tokenizer.special_tokens["bos_token"]) else template.with_bos()

    def render_probe(self) -> str:
        """A question and its answer, as the template has them."""
        conversation = [Message(role="user", content="?"), Message(role="assistant", content=PROBE)]
        return self.template.render(conversation, add_generation_prompt=False)

    def _find_end_of_turn(self) -> str:
        """The first control token that the template writes behind an answer."""
        tail = self.render_probe().rpartition(PROBE)[2]
        control = self.tokenizer.control_literals | set(self.template.control_tokens)
        for token in self.tokenizer.backend.encode(tail, add_special_tokens=False).tokens:
            if token in control:
                return token
        raise TemplateError(
            f"template '{self.template.name}' ends an answer with {tail!r}, in which the tokenizer has no control "
            "token: a model trained on it would not learn to stop.\n"
            "  Choose another --template, or end the assistant's turn with eos_token."
        )


def load_known_template(name: str, tokenizer: Tokenizer, *, whose: str = "the model's tokenizer") -> Template:
    """A template for a model that is used as it is, and is given no tokens.

    Args:
        name: A file's name in templates/, a path to a .jinja file, or "model".
        tokenizer: The model's tokenizer.
        whose: What an error calls the tokenizer.

    Raises:
        TemplateError: the template is unknown, or the tokenizer has none of its own, or lacks its control tokens.
    """
    if name == "model" and tokenizer.chat_template is None:
        raise TemplateError(
            f"--template model, the default: {whose} brings no chat template.\n"
            "  Pass --template with the one that the model was trained in: "
            f"{', '.join(sorted(list_templates()))}, or a path to a .jinja file."
        )
    template = load_template(name, own=tokenizer.chat_template, special_tokens=tokenizer.special_tokens)
    if lacking := [token for token in template.control_tokens if not tokenizer.is_one_id(token)]:
        advice = "Choose another" if tokenizer.chat_template is None else "Pass --template model for its own"
        raise TemplateError(
            f"--template {name}: {whose} lacks {', '.join(lacking)}, so that the model never saw a prompt in that "
            f"form.\n  {advice}, or pass a path to a .jinja file."
        )
    return template


def last_index(ids: list[int], wanted: int | None) -> int | None:
    return next((i for i in range(len(ids) - 1, -1, -1) if ids[i] == wanted), None)


def any_of(literals: Iterable[str]) -> re.Pattern[str]:
    """Finds any of the literals, the longest first as tokenizers look for them; nothing where there are none."""
    longest_first = sorted(literals, key=lambda literal: (-len(literal), literal))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
