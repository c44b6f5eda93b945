"""Answers to a few held-out prompts before and after training, for a look."""

__all__ = ["SampleAnswers"]

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said to a prompt."""

    text: str
    num_tokens: int
    """Its length, the end-of-turn token included."""
    ended: bool
    """Whether it came to its end within the tokens it was allowed."""

    def __str__(self) -> str:
        more = "" if self.ended else "+"
        return f"({self.num_tokens}{more} tokens) {one_line(self.text)}{' ...' if more else ''}"


class SampleAnswers(TrainerCallback):
    """Answers prompts greedily when training begins and when it ends.

    A callback, since at ZeRO-3 weights can be gathered only once the engine holds them; there every rank takes part.

    Args:
        pairs: Held-out pairs with prompt (messages) and prompt_ids.
        tokenizer: Turns ids into text.
        end_of_turn_id: Where an answer ends.
        max_new_tokens: Longest answer, in tokens.
        attention: Makes a context in which the model generates.
    """

    def __init__(
        self,
        pairs: list[dict[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        end_of_turn_id: int,
        max_new_tokens: int,
        attention: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.pairs = pairs
        self.tokenizer = tokenizer
        self.end_of_turn_id = end_of_turn_id
        self.max_new_tokens = max_new_tokens
        self.attention = attention
        self.before: list[Answer] = []
        self.after: list[Answer] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before = self.answer(kwargs["model"], args.device)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.after = self.answer(kwargs["model"], args.device)

    def answer(self, model: PreTrainedModel, device: torch.device) -> list[Answer]:
        was_training = model.training
        model.eval()
        answers = []
        for pair in self.pairs:
            prompt_ids = torch.tensor([pair["prompt_ids"]], device=device)
            with torch.no_grad(), self.attention():
                ids = model.generate(
                    prompt_ids,
                    attention_mask=torch.ones_like(prompt_ids),
                    max_new_tokens=self.max_new_tokens,
                    do_sample=False,
                    use_cache=True,
                    eos_token_id=self.end_of_turn_id,
                    pad_token_id=self.end_of_turn_id,
                )
            new_ids = ids[0, len(pair["prompt_ids"]) :].tolist()
            ended = self.end_of_turn_id in new_ids
            text = self.tokenizer.decode(new_ids, skip_special_tokens=True).strip()
            answers.append(Answer(text=text, num_tokens=len(new_ids), ended=ended))
        model.train(was_training)
        return answers

    def save(self, file: Path) -> None:
        samples = [
            {"prompt": pair["prompt"], "before": asdict(before), "after": asdict(after)}
            for pair, before, after in zip(self.pairs, self.before, self.after, strict=True)
        ]
        file.write_text(json.dumps(samples, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def table(self) -> str:
        lines = []
        for pair, before, after in zip(self.pairs, self.before, self.after, strict=True):
            lines += [f"{message['role'] + ':':<9}{one_line(message['content'])}" for message in pair["prompt"]]
            lines += [f"  before: {before}", f"  after:  {after}"]
        return "\n".join(lines)


def one_line(text: str) -> str:
    return " ".join(text.split())
