"""Turns rows into prompts for a model: reads, converts, checks and encodes. Counts every dropped row. No torch."""

__all__ = ["Prompt", "PromptReader", "plan_batches"]

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from dpo.data.config import DataConfig
from dpo.data.conversion import batched, convert_row
from dpo.data.reading.opening import open_source
from dpo.data.reading.source import Source
from dpo.data.rendering.encoding import PairEncoder
from dpo.data.report import DataReport, SourceReport
from dpo.errors import AdapterError, TemplateError
from dpo.generation.chat import ChatEncoder
from dpo.generation.config import GenerationConfig
from dpo.generation.limits import Limits
from dpo.records import Drop, Message, Preference

ENCODED_AT_ONCE = 500
"""Number of prompts that are encoded at once."""
WINDOW_BATCHES = 32
"""Number of batches whose prompts are sorted by length together, so that batches have little padding."""
ANY_ANSWER = "?"
"""Stands for the answer if the source's own answer is not read."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt to answer, and where it comes from."""

    preference: Preference
    """The prompt with the answers of its row, the source and the row number. Of the answers, only chosen is read."""
    place: int
    """Number of the prompt among those of its row, from 0."""
    ids: list[int]
    """Token ids of the prompt, up to and including the start of the model's turn."""

    def seed_of(self, draw: int | str, seed: int) -> int:
        """Return a seed below 2 ** 63. It depends only on the prompt's source, row and place, and on the arguments.

        Args:
            draw: Number of the candidate, or the name of another random choice.
            seed: The value of --seed.
        """
        name = f"{seed}:{self.preference.source}:{self.preference.row}:{self.place}:{draw}"
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1


@dataclass(frozen=True, kw_only=True)
class PromptReader:
    """Turns raw rows into prompts: the same prompts in the same order each time."""

    data: DataConfig
    config: GenerationConfig
    encoder: PairEncoder
    limits: Limits
    reward_chat: ChatEncoder | None = None
    """Template and tokenizer of the reward model. A prompt that its template refuses cannot be scored."""

    def read(self, sources: Iterable[Source], report: DataReport) -> Iterator[Prompt]:
        """Read the prompts of all sources, in order. A row without a prompt is counted as dropped.

        Args:
            sources: The sources to read.
            report: The data report to count in.

        Raises:
            DPOError: if rows cannot be read, or an adapter breaks its contract.
        """
        for source in sources:
            counts = report.sources.setdefault(source.spec, SourceReport())
            for numbered in batched(self.preferences(source, counts), ENCODED_AT_ONCE):
                preferences = [self.with_one_answer(preference) for _, preference in numbered]
                for (place, preference), pair in zip(numbered, self.encoder.encode(preferences), strict=True):
                    drop = pair if isinstance(pair, Drop) else self.check_length(len(pair.prompt_ids))
                    if drop is not None:
                        counts.drop(drop, preference.row)
                        continue
                    assert not isinstance(pair, Drop)
                    yield Prompt(preference=preference, place=place, ids=pair.prompt_ids)

    def preferences(self, source: Source, counts: SourceReport) -> Iterator[tuple[int, Preference]]:
        """Convert the rows of a source. Yields each usable preference with its number among those of its row."""
        options = self.data.adapter_options()
        for number, row in islice(open_source(source, options.columns, pairs=False), self.config.limit):
            counts.raw_rows += 1
            if not source.is_sampled(number, self.data.seed):
                counts.enter()
                counts.drop(Drop("not_sampled", f"@{source.fraction:g}"), number)
                continue
            try:
                candidates = convert_row(row, source.adapter, options)
            except AdapterError as error:
                raise AdapterError(f"{source.spec}, row {number}: {error}") from error
            counts.enter(len(candidates))
            for place, candidate in enumerate(candidates):
                drop = candidate if isinstance(candidate, Drop) else self.check_text(candidate)
                if drop is not None:
                    counts.drop(drop, number)
                else:
                    assert isinstance(candidate, Preference)
                    yield place, candidate.model_copy(update={"source": source.spec, "row": number})

    def check_text(self, preference: Preference) -> Drop | None:
        """Check the texts of a preference.

        The reasons, in the order of the checks: invalid_text, empty_prompt, empty_chosen and, with a reward model,
        special_token_in_text and template_refused.
        """
        texts = [*(message.content for message in preference.prompt), preference.chosen]
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            return Drop("invalid_text", f"not valid Unicode: {error.reason}")
        if not preference.prompt[-1].content.strip():
            return Drop("empty_prompt")
        if self.config.reads_given and not preference.chosen.strip():
            return Drop("empty_chosen")
        if self.reward_chat is not None:
            if self.data.special_tokens_in_text != "keep":
                read = texts if self.config.reads_given else texts[:-1]
                for text in read:
                    if found := self.reward_chat.literals.search(text):
                        return Drop("special_token_in_text", f"control token of the reward model: {found.group()}")
            try:
                self.reward_chat.render([*preference.prompt, Message(role="assistant", content=ANY_ANSWER)])
            except TemplateError as error:
                return Drop("template_refused", f"reward model: {error}")
        return None

    def with_one_answer(self, preference: Preference) -> Preference:
        """Return the pair for the encoder. Both of its answers are the source's if that is read, else ANY_ANSWER."""
        answer = preference.chosen if self.config.reads_given else ANY_ANSWER
        return preference.model_copy(update={"chosen": answer, "rejected": answer})

    def check_length(self, num_tokens: int) -> Drop | None:
        bound, answer = self.config.max_prompt_length, self.config.max_new_tokens
        if bound is not None and num_tokens > bound:
            return Drop("prompt_too_long", f"{num_tokens} tokens, max_prompt_length {bound}")
        if self.limits.context is not None and num_tokens + answer > self.limits.context:
            return Drop(
                "prompt_too_long",
                f"{num_tokens} tokens + max_new_tokens {answer}, but the model's context is {self.limits.context}",
            )
        return None


def plan_batches(prompts: Iterable[Prompt], batch_size: int) -> Iterator[list[Prompt]]:
    """Form batches of prompts of similar length. They depend only on the prompts and the batch size.

    Within a window of WINDOW_BATCHES batches, the longest prompts come first, so that a lack of memory shows early.
    Lengths 3, 9, 4 and 8 in batches of 2 give 9 and 8, then 4 and 3.

    Args:
        prompts: The prompts, in the order of the sources.
        batch_size: Most prompts per batch.
    """
    for window in batched(prompts, WINDOW_BATCHES * batch_size):
        window.sort(key=lambda prompt: -len(prompt.ids))
        yield from batched(window, batch_size)
