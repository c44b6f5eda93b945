"""The reward model: a sequence classifier that scores answers."""

__all__ = ["RewardModel"]

import math
from collections.abc import Sequence

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification

from dpo.errors import ModelError
from dpo.generation.chat import ChatEncoder
from dpo.models.device import choose_device, resolve_dtype
from dpo.records import Message


class RewardModel:
    """Scores conversations that end in an answer. Renders them with the model's own template.

    Args:
        name: Folder or Hub id.
        chat: The model's template and tokenizer.
        batch_size: Conversations to score at once.
        dtype: "auto", "float32", "bfloat16" or "float16".
        trust_remote_code: Whether to run model code that comes with the weights.

    Raises:
        ModelError: if the model cannot be loaded, or is not a trained classifier with one label.
    """

    def __init__(
        self,
        name: str,
        chat: ChatEncoder,
        *,
        batch_size: int,
        dtype: str,
        trust_remote_code: bool,
    ) -> None:
        self.name = name
        self.chat = chat
        self.device = choose_device()
        try:
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                name,
                dtype=resolve_dtype(dtype, self.device),
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
        except (ImportError, OSError, RuntimeError, SafetensorError, ValueError) as error:
            raise ModelError(f"--reward_model {name} cannot be loaded as a sequence classifier: {error}") from error
        if missing := sorted(loading["missing_keys"]):
            raise ModelError(
                f"--reward_model {name}: the weights lack {', '.join(missing[:3])}, so the scores would be random.\n"
                "  Expected a trained sequence classifier, not a language model."
            )
        if model.config.num_labels != 1:
            raise ModelError(
                f"--reward_model {name} has {model.config.num_labels} labels, expected 1.\n"
                "  Pass a classifier that gives one score."
            )
        self.model = model.to(self.device).eval()
        # The model uses its padding token to find the end of a text. Without one, it can only score one text at a time.
        self.pad_id: int | None = model.config.pad_token_id
        self.batch_size = 1 if self.pad_id is None else batch_size

    @torch.no_grad()
    def score(self, conversations: Sequence[Sequence[Message]]) -> list[float | None]:
        """Score conversations.

        Args:
            conversations: Messages of each conversation. The last message is the answer.

        Returns:
            The score of each conversation, in order; higher is better. None if it is longer than the model's context.

        Raises:
            ModelError: if a score is NaN or infinite.
        """
        ids = self.chat.encode(conversations)
        fits = [i for i in range(len(ids)) if self.chat.context is None or len(ids[i]) <= self.chat.context]
        order = sorted(fits, key=lambda i: -len(ids[i]))
        scores: list[float | None] = [None] * len(ids)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for i, score in zip(batch, self.score_ids([ids[i] for i in batch]), strict=True):
                if not math.isfinite(score):
                    raise ModelError(
                        f"--reward_model {self.name}: the score of an answer is {score}, expected a finite number.\n"
                        "  Try --dtype float32."
                    )
                scores[i] = score
        return scores

    def score_ids(self, ids: Sequence[Sequence[int]]) -> list[float]:
        longest = max(map(len, ids))
        padded = torch.full((len(ids), longest), self.pad_id or 0)
        mask = torch.zeros_like(padded)
        for row, text in enumerate(ids):
            padded[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
        output = self.model(input_ids=padded.to(self.device), attention_mask=mask.to(self.device))
        scores: list[float] = output.logits[:, 0].float().tolist()
        return scores
