"""Rows to prompts for a model: read, convert, check, encode; every way out is counted. No torch."""

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
"""Prompts."""
WINDOW_BATCHES = 32
"""Batches among whose prompts the lengths are sorted, so that little is padded."""
ANY_ANSWER = "?"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt to answer, and where it comes from."""

    preference: Preference
    """With source and row; of the answers, chosen alone is looked at."""
    place: int
    """Which of its row's, from 0."""
    ids: list[int]
    """What the model sees, up to and including what opens its turn."""

    def seed_of(self, draw: int | str, seed: int) -> int:
        """A seed below 2 ** 63 that depends on the prompt's source and row, on what is drawn, and on nothing else.

        Args:
            draw: The candidate's number, or what else is drawn.
            seed: The user's.
        """
        name = f"{seed}:{self.preference.source}:{self.preference.row}:{self.place}:{draw}"
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1


@dataclass(frozen=True, kw_only=True)
class PromptReader:
    """Turns raw rows into prompts, the same ones in the same order each time."""

    data: DataConfig
    config: GenerationConfig
    encoder: PairEncoder
    limits: Limits
    reward_chat: ChatEncoder | None = None
    """The reward model's. What its template refuses cannot be scored."""

    def read(self, sources: Iterable[Source], report: DataReport) -> Iterator[Prompt]:
        """The prompts of all sources, in order. What gives none is counted as dropped.

        Raises:
            DPOError: rows cannot be read, or an adapter breaks its contract.
        """
        for source in sources:
            account = report.sources.setdefault(source.spec, SourceReport())
            for numbered in batched(self.preferences(source, account), ENCODED_AT_ONCE):
                preferences = [self.with_one_answer(preference) for _, preference in numbered]
                for (place, preference), pair in zip(numbered, self.encoder.encode(preferences), strict=True):
                    drop = pair if isinstance(pair, Drop) else self.check_length(len(pair.prompt_ids))
                    if drop is not None:
                        account.drop(drop, preference.row)
                        continue
                    assert not isinstance(pair, Drop)
                    yield Prompt(preference=preference, place=place, ids=pair.prompt_ids)

    def preferences(self, source: Source, account: SourceReport) -> Iterator[tuple[int, Preference]]:
        """What an adapter makes of each row, numbered within it, as far as its texts can be used."""
        options = self.data.adapter_options()
        for number, row in islice(open_source(source, options.columns, pairs=False), self.config.limit):
            account.raw_rows += 1
            if not source.is_sampled(number, self.data.seed):
                account.enter()
                account.drop(Drop("not_sampled", f"@{source.fraction:g}"), number)
                continue
            try:
                candidates = convert_row(row, source.adapter, options)
            except AdapterError as error:
                raise AdapterError(f"{source.spec}, row {number}: {error}") from error
            account.enter(len(candidates))
            for place, candidate in enumerate(candidates):
                drop = candidate if isinstance(candidate, Drop) else self.check_text(candidate)
                if drop is not None:
                    account.drop(drop, number)
                else:
                    assert isinstance(candidate, Preference)
                    yield place, candidate.model_copy(update={"source": source.spec, "row": number})

    def check_text(self, preference: Preference) -> Drop | None:
        """Reasons, in the order they are looked for: invalid_text, empty_prompt, empty_chosen, and of a reward
        model special_token_in_text, template_refused.
        """
        texts = [*(message.content for message in preference.prompt), preference.chosen]
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            return Drop("invalid_text", f"no valid Unicode: {error.reason}")
        if not preference.prompt[-1].content.strip():
            return Drop("empty_prompt")
        if self.config.reads_given and not preference.chosen.strip():
            return Drop("empty_chosen")
        if self.reward_chat is not None:
            if self.data.special_tokens_in_text != "keep":
                read = texts if self.config.reads_given else texts[:-1]
                for text in read:
                    if found := self.reward_chat.literals.search(text):
                        return Drop("special_token_in_text", f"the reward model's {found.group()}")
            try:
                self.reward_chat.render([*preference.prompt, Message(role="assistant", content=ANY_ANSWER)])
            except TemplateError as error:
                return Drop("template_refused", f"the reward model's {error}")
        return None

    def with_one_answer(self, preference: Preference) -> Preference:
        """The pair as the encoder takes it, with the one answer that is read, if any is."""
        answer = preference.chosen if self.config.reads_given else ANY_ANSWER
        return preference.model_copy(update={"chosen": answer, "rejected": answer})

    def check_length(self, num_tokens: int) -> Drop | None:
        bound, answer = self.config.max_prompt_length, self.config.max_new_tokens
        if bound is not None and num_tokens > bound:
            return Drop("prompt_too_long", f"{num_tokens} tokens, max_prompt_length {bound}")
        if self.limits.context is not None and num_tokens + answer > self.limits.context:
            return Drop(
                "prompt_too_long",
                f"{num_tokens} tokens + max_new_tokens {answer}, the model reads {self.limits.context}",
            )
        return None


def plan_batches(prompts: Iterable[Prompt], batch_size: int) -> Iterator[list[Prompt]]:
    """Batches of prompts of about one length. They depend on the prompts and the size alone.

    Within a window of WINDOW_BATCHES batches the longest prompts come first, so that what memory is too small for
    shows early. Lengths 3 9 4 8 in batches of 2: 9 8, then 4 3.
    """
    for window in batched(prompts, WINDOW_BATCHES * batch_size):
        window.sort(key=lambda prompt: -len(prompt.ids))
        yield from batched(window, batch_size)
