"""Sample answers to a few prompts, before and after training."""

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
    """A model's answer to a prompt."""

    text: str
    num_tokens: int
    """Length of the answer, including the end-of-turn token."""
    ended: bool
    """Whether the model ended the answer within max_new_tokens."""

    def __str__(self) -> str:
        more = "" if self.ended else "+"
        return f"({self.num_tokens}{more} tokens) {one_line(self.text)}{' ...' if more else ''}"


class SampleAnswers(TrainerCallback):
    """Answers prompts with greedy decoding when training begins and when it ends.

    It is a callback because ZeRO-3 can gather weights only after DeepSpeed's engine has taken them over. With ZeRO-3,
    every rank takes part.

    Args:
        pairs: Pairs with the columns prompt (messages) and prompt_ids.
        tokenizer: Tokenizer that decodes the answers.
        end_of_turn_id: Token id that ends an answer.
        max_new_tokens: Longest answer, in tokens.
        attention: Returns a context manager in which the model generates.
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
