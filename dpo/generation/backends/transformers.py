"""Runs a model with transformers: batches are left-padded, and each sequence has its own random numbers."""

__all__ = ["SeededSampling", "TransformersBackend"]

import random
from collections.abc import Sequence

import torch
import transformers
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from dpo.errors import ModelError
from dpo.generation.backends.base import Answer, cut_at
from dpo.generation.config import GenerationConfig
from dpo.models.device import choose_device, resolve_dtype
from dpo.models.loading import load_causal_lm
from dpo.models.locating import LocatedModel


class TransformersBackend:
    """A Backend that uses transformers. The model is on the GPU if there is one."""

    def __init__(self, located: LocatedModel, config: GenerationConfig, *, end_ids: Sequence[int]) -> None:
        self.config = config
        self.end_ids = list(end_ids)
        self.device = choose_device()
        model = load_causal_lm(
            located,
            dtype=resolve_dtype(config.dtype, self.device),
            trust_remote_code=config.trust_remote_code,
        )
        self.model = model.to(self.device).eval()
        # Replace the model's own generation settings: their penalties and bounds would apply in addition to the flags.
        self.model.generation_config = transformers.GenerationConfig(
            max_new_tokens=config.max_new_tokens,
            do_sample=False,
            eos_token_id=self.end_ids,
            pad_token_id=self.end_ids[0],
        )

    @torch.no_grad()
    def answer(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Answer]:
        """Generate one answer to each prompt, in order."""
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self.end_ids[0])
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        processors = LogitsProcessorList()
        if self.config.temperature > 0:
            processors.append(SeededSampling(seeds, temperature=self.config.temperature, top_p=self.config.top_p))
        try:
            output = self.model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                generation_config=self.model.generation_config,
                logits_processor=processors,
            )
        except torch.OutOfMemoryError as error:
            if len(prompts) == 1:
                raise ModelError(
                    f"the GPU's memory is too small for {longest} + {self.config.max_new_tokens} tokens, prompt and "
                    "answer.\n  Pass a smaller --max_prompt_length or a smaller --max_new_tokens."
                ) from error
            output = None
        # Retry outside the except block, where the tensors that the error refers to are free. The answers stay the
        # same, because the random numbers of a sequence do not depend on its batch.
        if output is None:
            if self.device.type != "cpu":
                torch.accelerator.empty_cache()
            half = len(prompts) // 2
            return self.answer(prompts[:half], seeds[:half]) + self.answer(prompts[half:], seeds[half:])
        return [cut_at(row, self.end_ids) for row in output[:, longest:].tolist()]


class SeededSampling(LogitsProcessor):
    """Samples the next token of each sequence with the sequence's own random numbers, and excludes all other tokens.

    Greedy generation then takes the sampled token. transformers' own sampling uses one stream of random numbers for a
    whole batch, so the numbers of a sequence depend on the other sequences.

    Args:
        seeds: Seed of each sequence of the batch, (N,).
        temperature: Divisor of the scores, > 0.
        top_p: Sum of the probabilities of the most likely tokens to sample from, in (0, 1].
    """

    def __init__(self, seeds: Sequence[int], *, temperature: float, top_p: float) -> None:
        self.streams = [random.Random(seed) for seed in seeds]
        self.warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
        if top_p < 1:
            self.warpers.append(TopPLogitsWarper(top_p))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Sample the next token of each sequence.

        Args:
            input_ids: Token ids so far, int64 (N, tokens).
            scores: Logits of the next token, (N, vocabulary).

        Returns:
            (N, vocabulary): 0 for the sampled token, and minus infinity for all others.
        """
        exact = torch.float32 if scores.device.type == "mps" else torch.float64  # Apple's GPUs have no double
        cumulated = self.warpers(input_ids, scores).softmax(-1, dtype=exact).cumsum(-1)
        drawn = torch.tensor([[stream.random()] for stream in self.streams], dtype=exact, device=scores.device)
        # Take the first token whose cumulated probability is above the number. A token of probability 0 never is.
        token = torch.searchsorted(cumulated, drawn * cumulated[:, -1:], right=True)
        token = token.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
