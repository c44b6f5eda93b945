"""Encoding of preferences: the token ids of the prompt as at inference, and the token ids of the answers."""

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
    "boundary_shift": "the answer is tokenized separately, because one token would span it and the prompt",
    "double_bos": "the prompt begins with two BOS tokens",
    "literal_in_text": "the text contains the literal of a control token, which --special_tokens_in_text keeps",
}
"""Properties of a kept pair that a user should know about, and that are not a reason to drop it."""


@dataclass(frozen=True, kw_only=True)
class EncodedPair:
    """A preference and its token ids."""

    preference: Preference
    prompt_ids: list[int]
    """The prompt, including the tokens that open the assistant turn."""
    chosen_ids: list[int]
    """The chosen answer. The last id is the end-of-turn token."""
    rejected_ids: list[int]
    """The rejected answer. The last id is the end-of-turn token. Empty if there is no rejected answer."""
    boundary_shift: bool
    """Whether a token would merge the end of the prompt with the start of an answer, in either answer."""
    double_bos: bool = False
    """Whether the prompt begins with two BOS tokens."""
    literal_in_text: bool = False
    """Whether the text contains the literal of a control token and the user chose to keep such pairs."""

    @property
    def lengths(self) -> dict[str, int]:
        """Number of tokens of each part, and of the whole that max_length limits: the prompt plus the longer answer."""
        prompt, chosen, rejected = len(self.prompt_ids), len(self.chosen_ids), len(self.rejected_ids)
        answers = {"chosen": chosen, "rejected": rejected} if rejected else {"chosen": chosen}
        return {"prompt": prompt, **answers, "whole": prompt + max(chosen, rejected)}

    @property
    def flags(self) -> list[str]:
        """The names in FLAGS that apply to the pair."""
        return [name for name in FLAGS if getattr(self, name)]


class PairEncoder:
    """Renders pairs with a template, and splits their token ids into prompt and answers.

    Args:
        template: The template that the user chose.
        tokenizer: The model's tokenizer.
        special_tokens_in_text: "drop", "error" or "keep", for texts that contain the literal of a control token.
        add_control_tokens: Whether to add the template's control tokens to a tokenizer that lacks them.

    Raises:
        TemplateError: if the tokenizer lacks a control token, or if the template does not end an answer in one.
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
                f"--template {template.name} needs {', '.join(template.control_tokens)} as one token each, but the "
                f"tokenizer lacks {', '.join(self.added_tokens)}.\n"
                "  Pass --add_control_tokens to add them and resize the embeddings, or choose another --template"
                + (", such as 'model' for the tokenizer's own." if tokenizer.chat_template else ".")
            )
        self.tokenizer = tokenizer.with_control_tokens(self.added_tokens)
        self.template = self._with_bos_if_wanted(template)
        self.end_of_turn = self._find_end_of_turn()
        self.end_of_turn_id = self.tokenizer.token_id(self.end_of_turn)

    def encode(self, preferences: Sequence[Preference]) -> list[EncodedPair | Drop]:
        """Encode preferences, in order. A preference that cannot be encoded gives a Drop.

        Raises:
            DataError: if a text contains the literal of a control token and special_tokens_in_text is "error".
        """
        rendered = [self._render_or_drop(preference) for preference in preferences]
        pieces = [piece for texts in rendered if not isinstance(texts, Drop) for piece in self._cut(*texts)]
        # Encode each text once: pairs of one row share prompts and answers, and many pieces are equal for all rows.
        different = list(dict.fromkeys(pieces))
        ids_of = dict(zip(different, self.tokenizer.encode(different), strict=True))
        ids = (ids_of[piece] for piece in pieces)
        return [
            texts if isinstance(texts, Drop) else self._split(preference, texts, list(islice(ids, len(texts) + 1)))
            for preference, texts in zip(preferences, rendered, strict=True)
        ]

    def _cut(self, prompt: str, *answered: str) -> list[str]:
        """Cut the texts of a pair at the last control token of the prompt.

        The pieces are the prompt before that token, and then the rest of the prompt, of the prompt with the chosen
        answer and of the prompt with the rejected answer. A tokenizer encodes the texts before and after a control
        token separately, so no id depends on the other side of the cut. The long first piece is encoded only once.
        """
        cut = max((found.start() for found in self._barriers.finditer(prompt)), default=0)
        return [prompt[:cut], *(text[cut:] for text in (prompt, *answered))]

    def render(self, preference: Preference) -> tuple[str, ...]:
        """Render the prompt, the prompt with the chosen answer and, if there is one, with the rejected answer."""
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
                    f"{preference.source}, row {preference.row}: the text contains '{literal}', which would become a "
                    "control token.\n  Correct the row, or pass --special_tokens_in_text drop."
                )
            return Drop("special_token_in_text", f"the text contains {literal}, which would become a control token")
        try:
            texts = self.render(preference)
        except TemplateError as error:
            return Drop("template_refused", str(error))
        if not all(text.startswith(texts[0]) for text in texts[1:]):
            return Drop("prompt_not_prefix", "the template renders the prompt differently if an answer follows")
        return texts

    def _split(self, preference: Preference, texts: tuple[str, ...], ids: list[list[int]]) -> EncodedPair | Drop:
        beginning, rest_of_prompt, *wholes = ids
        shifted = False
        completions = []
        for text, whole in zip(texts[1:], wholes, strict=True):
            if whole[: len(rest_of_prompt)] == rest_of_prompt:
                completion = whole[len(rest_of_prompt) :]
            else:
                # A token would span the boundary. At inference the prompt is tokenized alone, so do the same here.
                shifted = True
                completion = self.tokenizer.encode_continuation(text[len(texts[0]) :])
            end = last_index(completion, self.end_of_turn_id)
            if end is None:
                return Drop("no_end_token", f"the template does not end the answer in {self.end_of_turn}")
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
        """Pattern of the literals that no text may contain: control tokens and text markers."""
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
        """Add a BOS token if the tokenizer wants one and the template writes none. 'model' is never changed."""
        if template.name == "model" or not self.tokenizer.wants_bos:
            return template
        opening = template.render([Message(role="user", content=PROBE)], add_generation_prompt=True)
        return template if opening.startswith(self.tokenizer.special_tokens["bos_token"]) else template.with_bos()

    def render_probe(self) -> str:
        """Render a short question and its answer."""
        conversation = [Message(role="user", content="?"), Message(role="assistant", content=PROBE)]
        return self.template.render(conversation, add_generation_prompt=False)

    def _find_end_of_turn(self) -> str:
        """Return the first control token that the template writes after an answer."""
        tail = self.render_probe().rpartition(PROBE)[2]
        control = self.tokenizer.control_literals | set(self.template.control_tokens)
        for token in self.tokenizer.backend.encode(tail, add_special_tokens=False).tokens:
            if token in control:
                return token
        raise TemplateError(
            f"--template {self.template.name} ends an answer with {tail!r}, which contains no control token of the "
            "tokenizer. A model trained with it would not learn to stop.\n"
            "  Choose another --template, or end the assistant turn with eos_token in the template."
        )


def load_known_template(name: str, tokenizer: Tokenizer, *, whose: str = "the model's tokenizer") -> Template:
    """Load a template for a model that is not trained, so that no tokens can be added to its tokenizer.

    Args:
        name: A file's name in templates/, a path to a .jinja file, or "model".
        tokenizer: The model's tokenizer.
        whose: Name of the tokenizer in error messages.

    Raises:
        TemplateError: if the template is unknown, if the name is "model" and the tokenizer has no template, or if the
            tokenizer lacks the template's control tokens.
    """
    if name == "model" and tokenizer.chat_template is None:
        raise TemplateError(
            f"--template model, the default: {whose} has no chat template.\n"
            "  Pass --template with the template that the model was trained with: "
            f"{', '.join(sorted(list_templates()))}, or a path to a .jinja file."
        )
    template = load_template(name, own=tokenizer.chat_template, special_tokens=tokenizer.special_tokens)
    if lacking := [token for token in template.control_tokens if not tokenizer.is_one_id(token)]:
        advice = "Choose another template" if tokenizer.chat_template is None else "Pass --template model for its own"
        raise TemplateError(
            f"--template {name}: {whose} lacks {', '.join(lacking)}, so the model was not trained with this "
            f"template.\n  {advice}, or pass a path to a .jinja file."
        )
    return template


def last_index(ids: list[int], wanted: int | None) -> int | None:
    return next((i for i in range(len(ids) - 1, -1, -1) if ids[i] == wanted), None)


def any_of(literals: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of the literals, the longest first as in tokenizers. None match nothing."""
    longest_first = sorted(literals, key=lambda literal: (-len(literal), literal))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
