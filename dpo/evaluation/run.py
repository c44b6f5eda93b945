"""Models, one after the other and one in memory at a time, against benchmarks and held-out pairs."""

__all__ = ["Evaluation", "Outcome"]

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dpo.data.config import DataConfig
from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer
from dpo.data.report import DataReport
from dpo.engine.reference_cache import pair_digest
from dpo.errors import ModelError, TokenizerError
from dpo.evaluation.benchmarks import Benchmarks
from dpo.evaluation.held_out import HeldOut, check_same_tokens, load_held_out
from dpo.evaluation.measures import Measure
from dpo.evaluation.rewards import pair_logps, pair_measures
from dpo.models.device import choose_device
from dpo.models.loading import load_causal_lm, load_chat_tokenizer
from dpo.models.locating import LocatedModel, locate


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model that is to be evaluated, as far as it is known without its weights."""

    name: str
    """As the user gave it."""
    located: LocatedModel
    tokenizer: PreTrainedTokenizerBase
    held_out: HeldOut | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out for one model."""

    measures: Mapping[str, Measure]
    """By the name of their row."""
    runtime_s: float
    report: DataReport | None
    """The account of the pairs' rows."""


@dataclass(kw_only=True)
class Evaluation:
    """What to measure, and how."""

    models: Sequence[str]
    """Folders, Hub ids, adapters or `embedded`, as the user gave them."""
    benchmarks: Benchmarks | None = None
    data: DataConfig | None = None
    """Where the pairs come from; None: no pairs."""
    reference: str | None = None
    """The model whose log-probabilities are taken off; None: rewards are not computed."""
    beta: float = 0.1
    dtype: torch.dtype = torch.float32
    batch_size: int = 8
    limit: int | None = None
    """Questions of each task, and pairs; None takes all."""
    uses_template: bool = False
    trust_remote_code: bool = False
    progress: bool = False
    reference_logps: dict[bytes, torch.Tensor] = field(default_factory=dict, init=False)
    """What the reference made of pairs so far, by their token ids."""

    def run(self, keep: Callable[[str, Outcome], None]) -> None:
        """Measure each model.

        Args:
            keep: Called with a model's name and what came out, as soon as it is there.

        Raises:
            DPOError: what can be seen to be wrong without weights is raised before any model is loaded.
        """
        reference = None if self.reference is None else locate(self.reference)
        subjects = {name: self.look_at(name, reference) for name in self.models}
        for name, subject in subjects.items():
            start = time.monotonic()
            measures = self.measure(subject, reference)
            report = None if subject.held_out is None else subject.held_out.report
            keep(name, Outcome(measures=measures, runtime_s=time.monotonic() - start, report=report))

    def look_at(self, name: str, reference: LocatedModel | None) -> Subject:
        """Read what a model has beside its weights, and the pairs with its tokenizer.

        Raises:
            TokenizerError: questions are to be asked in a chat template, and the tokenizer has none.
        """
        located = locate(name)
        chat_tokenizer = load_chat_tokenizer(located, trust_remote_code=self.trust_remote_code)
        if self.uses_template and chat_tokenizer.chat_template is None:
            raise TokenizerError(
                f"--apply_chat_template: the tokenizer of {name} brings no chat template.\n"
                "  Leave the flag out, and questions are asked as plain text."
            )
        if self.data is None:
            return Subject(name=name, located=located, tokenizer=chat_tokenizer, held_out=None)
        tokenizer = self.tokenizer_of(located)
        held_out = load_held_out(
            self.data, tokenizer, limit=self.limit, progress=self.progress, whose=f"the tokenizer of {name}"
        )
        if reference is not None:
            check_same_tokens(held_out, tokenizer, self.tokenizer_of(reference), (name, str(self.reference)))
        return Subject(name=name, located=located, tokenizer=chat_tokenizer, held_out=held_out)

    def tokenizer_of(self, located: LocatedModel) -> Tokenizer:
        return load_tokenizer(
            located.tokenizer, revision=located.tokenizer_revision, trust_remote_code=self.trust_remote_code
        )

    def measure(self, subject: Subject, reference: LocatedModel | None) -> dict[str, Measure]:
        """A model's measures. It is let go before the reference is loaded.

        Raises:
            ModelError: the device's memory is too small for one of the two.
        """
        with self.memory_for(f"model {subject.name}"):
            measures, logps = self.with_model(subject)
        if subject.held_out is None or logps is None:
            return measures
        pairs = subject.held_out.pairs
        with self.memory_for(f"--reference {self.reference}"):
            ref_logps = None if reference is None else self.reference_logps_of(reference, pairs)
        return measures | pair_measures(pairs, logps, ref_logps, beta=self.beta)

    @contextmanager
    def memory_for(self, whom: str) -> Iterator[None]:
        """Around what a model's weights are needed for: that they do not fit is the user's to mend."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            dtype = str(self.dtype).removeprefix("torch.")
            ways = ["Lower --batch_size"] if self.batch_size > 1 else []
            ways += ["Pass --dtype bfloat16"] if self.dtype == torch.float32 else []
            ways += ["Lower --max_length, above which pairs are left out"] if self.data and self.data.datasets else []
            ways += ["Take a device with more memory"]
            raise ModelError(
                f"{whom}: the device's memory is too small for it in {dtype} at --batch_size {self.batch_size}.\n"
                f"  {'. '.join(ways)}."
            ) from error

    def with_model(self, subject: Subject) -> tuple[dict[str, Measure], torch.Tensor | None]:
        """All that takes the model's weights: its benchmarks, and its log-probabilities of the pairs."""
        model = self.load(subject.located)
        measures: dict[str, Measure] = {}
        if self.benchmarks is not None:  # first, since pairs leave the model with the packed engine's attention
            measures = self.benchmarks.run(
                model,
                subject.tokenizer,
                batch_size=self.batch_size,
                limit=self.limit,
                uses_template=self.uses_template,
            )
        if subject.held_out is None:
            return measures, None
        return measures, self.logps_of(model, subject.held_out.pairs)

    def reference_logps_of(self, reference: LocatedModel, pairs: Dataset) -> torch.Tensor:
        """The reference's log-probabilities, computed for what no earlier model was compared on, float64 (pairs, 2)."""
        digests = [pair_digest(pair) for pair in pairs]
        missing = [row for row, digest in enumerate(digests) if digest not in self.reference_logps]
        if missing:
            found = self.logps_of(self.load(reference), pairs.select(missing))
            self.reference_logps |= zip((digests[row] for row in missing), found, strict=True)
        return torch.stack([self.reference_logps[digest] for digest in digests])

    def logps_of(self, model: PreTrainedModel, pairs: Dataset) -> torch.Tensor:
        return pair_logps(model, pairs, pairs_at_once=self.batch_size, progress=self.progress)

    def load(self, located: LocatedModel) -> Any:
        """A model on the device, after what went before it is let go."""
        gc.collect()
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        model = load_causal_lm(located, dtype=self.dtype, trust_remote_code=self.trust_remote_code)
        return model.to(choose_device()).eval()
