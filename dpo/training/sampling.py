"""Answers to a few held-out prompts before and after training, for a look."""

__all__ = ["SampleAnswers"]

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback


class SampleAnswers(TrainerCallback):
    """Answers prompts greedily when training begins and when it ends.

    A callback, since at ZeRO-3 weights can be gathered only once the engine holds them; there every rank takes part.

    Args:
        pairs: Held-out pairs with prompt (messages) and prompt_ids.
        tokenizer: Turns ids into text.
        end_of_turn_id: Where an answer ends.
        max_new_tokens: Longest answer, in tokens.
    """

    def __init__(
        self,
        pairs: list[dict[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        end_of_turn_id: int,
        max_new_tokens: int,
    ) -> None:
        self.pairs = pairs
        self.tokenizer = tokenizer
        self.end_of_turn_id = end_of_turn_id
        self.max_new_tokens = max_new_tokens
        self.before: list[str] = []
        self.after: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before = self.answer(kwargs["model"], args.device)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.after = self.answer(kwargs["model"], args.device)

    def answer(self, model: PreTrainedModel, device: torch.device) -> list[str]:
        was_training = model.training
        model.eval()
        answers = []
        for pair in self.pairs:
            prompt_ids = torch.tensor([pair["prompt_ids"]], device=device)
            with torch.no_grad():
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
            cut = "" if self.end_of_turn_id in new_ids else " ..."
            answers.append(self.tokenizer.decode(new_ids, skip_special_tokens=True).strip() + cut)
        model.train(was_training)
        return answers

    def save(self, file: Path) -> None:
        samples = [
            {"prompt": pair["prompt"], "before": before, "after": after}
            for pair, before, after in zip(self.pairs, self.before, self.after, strict=True)
        ]
        file.write_text(json.dumps(samples, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def table(self) -> str:
        lines = []
        for pair, before, after in zip(self.pairs, self.before, self.after, strict=True):
            lines += [f"prompt:  {one_line(pair['prompt'][-1]['content'])}"]
            lines += [f"  before: {one_line(before)}", f"  after:  {one_line(after)}"]
        return "\n".join(lines)


def one_line(text: str) -> str:
    return " ".join(text.split())
