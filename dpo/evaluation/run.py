"""Measures models on benchmarks and held-out pairs, one after another, with one model in memory at a time."""

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
    """A model to evaluate: everything that is known without its weights."""

    name: str
    """As the user gave it."""
    located: LocatedModel
    tokenizer: PreTrainedTokenizerBase
    held_out: HeldOut | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of one model."""

    measures: Mapping[str, Measure]
    """Name of a table row -> measure."""
    runtime_s: float
    report: DataReport | None
    """The data report of the pairs' rows."""


@dataclass(kw_only=True)
class Evaluation:
    """What to measure, and its settings."""

    models: Sequence[str]
    """Folders, Hub ids, adapters or `embedded`, as the user gave them."""
    benchmarks: Benchmarks | None = None
    data: DataConfig | None = None
    """The data flags of the pairs; None measures no pairs."""
    reference: str | None = None
    """The reference model of the implicit rewards; None computes no rewards."""
    beta: float = 0.1
    dtype: torch.dtype = torch.float32
    batch_size: int = 8
    limit: int | None = None
    """Number of questions of each task, and of pairs, from the first; None takes all."""
    uses_template: bool = False
    """Whether to ask the benchmarks' questions in the tokenizer's chat template."""
    trust_remote_code: bool = False
    progress: bool = False
    reference_logps: dict[bytes, torch.Tensor] = field(default_factory=dict, init=False)
    """Digest of a pair's token ids -> the reference model's log-probabilities, for the pairs computed so far."""

    def run(self, save: Callable[[str, Outcome], None]) -> None:
        """Measure each model.

        Args:
            save: Called with a model's name and its results, as soon as the model is measured.

        Raises:
            DPOError: if a model cannot be measured. Everything that can be checked without weights is checked before
                any model is loaded.
        """
        reference = None if self.reference is None else locate(self.reference)
        subjects = {name: self.open_subject(name, reference) for name in self.models}
        for name, subject in subjects.items():
            start = time.monotonic()
            measures = self.measure(subject, reference)
            report = None if subject.held_out is None else subject.held_out.report
            save(name, Outcome(measures=measures, runtime_s=time.monotonic() - start, report=report))

    def open_subject(self, name: str, reference: LocatedModel | None) -> Subject:
        """Load a model's tokenizer, and the pairs as its token ids, without the weights.

        Raises:
            TokenizerError: if the questions need a chat template, and the tokenizer has none.
        """
        located = locate(name)
        chat_tokenizer = load_chat_tokenizer(located, trust_remote_code=self.trust_remote_code)
        if self.uses_template and chat_tokenizer.chat_template is None:
            raise TokenizerError(
                f"--apply_chat_template: the tokenizer of {name} has no chat template.\n"
                "  Leave the flag out to ask the questions as plain text."
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
        """Measure one model. The model is freed before the reference model is loaded.

        Raises:
            ModelError: if the device has too little memory for one of the two.
        """
        with self.explaining_out_of_memory(f"model {subject.name}"):
            measures, logps = self.measure_model(subject)
        if subject.held_out is None or logps is None:
            return measures
        pairs = subject.held_out.pairs
        with self.explaining_out_of_memory(f"--reference {self.reference}"):
            ref_logps = None if reference is None else self.reference_logps_of(reference, pairs)
        return measures | pair_measures(pairs, logps, ref_logps, beta=self.beta)

    @contextmanager
    def explaining_out_of_memory(self, model: str) -> Iterator[None]:
        """Turn an out-of-memory error into a ModelError that says what the user can change."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            dtype = str(self.dtype).removeprefix("torch.")
            remedies = ["Lower --batch_size"] if self.batch_size > 1 else []
            remedies += ["Pass --dtype bfloat16"] if self.dtype == torch.float32 else []
            remedies += ["Lower --max_length, which drops longer pairs"] if self.data and self.data.datasets else []
            remedies += ["Use a device with more memory"]
            raise ModelError(
                f"{model}: the device has too little memory for it in {dtype} at --batch_size {self.batch_size}.\n"
                f"  {'. '.join(remedies)}."
            ) from error

    def measure_model(self, subject: Subject) -> tuple[dict[str, Measure], torch.Tensor | None]:
        """Compute everything that needs the model's weights: its benchmarks, and its log-probabilities of the pairs."""
        model = self.load(subject.located)
        measures: dict[str, Measure] = {}
        if self.benchmarks is not None:  # before the pairs, which replace the model's attention by the packed engine's
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
        """The reference model's log-probabilities, float64 (pairs, 2).

        Only pairs that no earlier model was compared on are computed.
        """
        digests = [pair_digest(pair) for pair in pairs]
        missing = [row for row, digest in enumerate(digests) if digest not in self.reference_logps]
        if missing:
            found = self.logps_of(self.load(reference), pairs.select(missing))
            self.reference_logps |= zip((digests[row] for row in missing), found, strict=True)
        return torch.stack([self.reference_logps[digest] for digest in digests])

    def logps_of(self, model: PreTrainedModel, pairs: Dataset) -> torch.Tensor:
        return pair_logps(model, pairs, pairs_at_once=self.batch_size, progress=self.progress)

    def load(self, located: LocatedModel) -> Any:
        """Load a model onto the device, after freeing the memory of the previous one."""
        gc.collect()
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        model = load_causal_lm(located, dtype=self.dtype, trust_remote_code=self.trust_remote_code)
        return model.to(choose_device()).eval()
