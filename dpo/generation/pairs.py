"""Turns a batch of prompts into pairs: the model answers, unusable answers are refused, the reward model scores."""

__all__ = ["PairMaker"]

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from dpo.data.rendering.encoding import PairEncoder
from dpo.generation.backends import open_backend
from dpo.generation.backends.base import Answer, Backend
from dpo.generation.candidates import Candidate, check_answer, choose_best_worst, choose_rejected
from dpo.generation.chat import ChatEncoder
from dpo.generation.config import GenerationConfig
from dpo.generation.output import BatchRecord
from dpo.generation.prompts import Prompt
from dpo.models.locating import LocatedModel
from dpo.records import Drop, Message, Preference

if TYPE_CHECKING:
    from dpo.generation.reward import RewardModel

Checked = tuple[list[str], list[Drop]]
"""The texts of a prompt's usable answers, and why the others are refused."""
DETAIL_CHARACTERS = 200
"""Most characters of a drop's detail in a record."""


@dataclass(kw_only=True)
class PairMaker:
    """Makes pairs. Loads the models when the first batch needs them."""

    config: GenerationConfig
    located: LocatedModel
    encoder: PairEncoder
    end_ids: Sequence[int]
    """Token ids that end an answer. The template's end-of-turn token is first."""
    seed: int
    reward_chat: ChatEncoder | None = None
    num_tokens: int = field(default=0, init=False)
    """Number of tokens generated so far."""
    seconds: float = field(default=0.0, init=False)
    """Seconds spent on generation so far, without loading and scoring."""

    @cached_property
    def backend(self) -> Backend:
        return open_backend(self.located, self.config, end_ids=self.end_ids)

    @cached_property
    def reward_model(self) -> "RewardModel | None":
        if self.config.reward_model is None or self.reward_chat is None:
            return None
        from dpo.generation.reward import RewardModel  # imported here, because it imports torch

        return RewardModel(
            self.config.reward_model,
            self.reward_chat,
            batch_size=self.config.batch_size,
            dtype=self.config.dtype,
            trust_remote_code=self.config.trust_remote_code,
        )

    def load(self) -> None:
        """Load the models now.

        Raises:
            DPOError: if a model cannot be loaded.
        """
        _ = self.backend, self.reward_model

    def make(self, batch: Sequence[Prompt]) -> tuple[list[Preference], BatchRecord]:
        """Return the pairs of a batch, and a record of what happened to each prompt."""
        answers = self.answer(batch)
        checked = [self.check(candidates) for candidates in answers]
        scored = self.score(batch, checked)
        pairs = []
        dropped = {}
        for place, (prompt, (candidates, refused)) in enumerate(zip(batch, scored, strict=True)):
            try:
                pairs.append(self.pair(prompt, candidates, refused))
            except Drop as drop:
                dropped[place] = (drop.reason, drop.detail[:DETAIL_CHARACTERS])
        return pairs, BatchRecord(
            rows=[prompt.preference.row for prompt in batch],
            dropped=dropped,
            num_tokens=sum(answer.num_tokens for candidates in answers for answer in candidates),
        )

    def answer(self, batch: Sequence[Prompt]) -> list[list[Answer]]:
        """Return the model's answers to each prompt."""
        backend, draws = self.backend, range(self.config.num_candidates)
        start = time.monotonic()
        answers = backend.answer(
            [prompt.ids for prompt in batch for _ in draws],
            [prompt.seed_of(draw, self.seed) for prompt in batch for draw in draws],
        )
        self.seconds += time.monotonic() - start
        self.num_tokens += sum(answer.num_tokens for answer in answers)
        return [answers[place * len(draws) : (place + 1) * len(draws)] for place in range(len(batch))]

    def check(self, answers: Sequence[Answer]) -> Checked:
        """Return the texts of the usable answers, and why the others are refused."""
        texts, refused = [], []
        for answer in answers:
            # Keep control tokens in the text, so that the check finds them and those that the model spelled out.
            text = self.encoder.tokenizer.backend.decode(answer.ids, skip_special_tokens=False).strip()
            drop = check_answer(
                text, ended=answer.ended, literals=self.literals, keep_unfinished=self.config.keep_unfinished
            )
            if drop is None:
                texts.append(text)
            else:
                refused.append(drop)
        return texts, refused

    @cached_property
    def literals(self) -> re.Pattern[str]:
        """Pattern of the texts that no answer may contain: control tokens of the model or of the reward model."""
        if self.reward_chat is None:
            return self.encoder.literals
        return re.compile(f"{self.encoder.literals.pattern}|{self.reward_chat.literals.pattern}")

    def score(self, batch: Sequence[Prompt], checked: Sequence[Checked]) -> list[tuple[list[Candidate], list[Drop]]]:
        """Score the candidates of each prompt. With --include_given, the source's own answer is the first candidate.

        Args:
            batch: The prompts.
            checked: For each prompt, the texts of its usable answers, and why the others are refused.

        Returns:
            For each prompt, its candidates, and why the other answers are refused, including those too long to score.
        """
        if self.reward_model is None:
            return [([Candidate(text=text) for text in texts], refused) for texts, refused in checked]
        if self.config.include_given:
            checked = [
                ([prompt.preference.chosen, *texts], refused)
                for prompt, (texts, refused) in zip(batch, checked, strict=True)
            ]
        conversations = [
            [*prompt.preference.prompt, Message(role="assistant", content=text)]
            for prompt, (texts, _) in zip(batch, checked, strict=True)
            for text in texts
        ]
        scores = iter(self.reward_model.score(conversations))
        scored = []
        for texts, refused in checked:
            found = [(text, next(scores)) for text in texts]
            too_long = [Drop("too_long_to_score", f"{text[:60]!r}...") for text, score in found if score is None]
            candidates = [Candidate(text=text, score=score) for text, score in found if score is not None]
            scored.append((candidates, [*refused, *too_long]))
        return scored

    def pair(self, prompt: Prompt, candidates: Sequence[Candidate], refused: Sequence[Drop]) -> Preference:
        """Make the pair of a prompt.

        Raises:
            Drop: if the prompt's answers give no pair.
        """
        if self.config.pair == "best_worst":
            best, worst = choose_best_worst(candidates, refused)
            return with_answers(prompt, best.text, worst.text, best.score, worst.score)
        chosen = prompt.preference.chosen
        pick, seed = self.config.pick or "random", prompt.seed_of("pick", self.seed)
        rejected = choose_rejected(chosen, candidates, refused, pick=pick, seed=seed)
        return with_answers(prompt, chosen, rejected.text)


def with_answers(
    prompt: Prompt, chosen: str, rejected: str, score_chosen: float | None = None, score_rejected: float | None = None
) -> Preference:
    """Make the pair of a prompt. Scores of the source are removed, because they belong to the source's own answers."""
    scores = {"score_chosen": score_chosen, "score_rejected": score_rejected}
    return prompt.preference.model_copy(update={"chosen": chosen, "rejected": rejected} | scores)
