"""Writes the README.md of a trained model: base model, training, data, and how to use it."""

__all__ = ["model_card"]

from pathlib import Path
from typing import Any

import yaml

from dpo.data.pipeline import PreparedData
from dpo.hub import is_hub_id
from dpo.training.reports.summary import describe_loss, evaluations, measures_table
from dpo.training.settings.resolving import TrainingConfig

CARD = """\
---
{front_matter}---

# {name}

This is {base}, {method}.

| | |
| --- | --- |
| loss | {loss} |
| learning rate | {learning_rate:g} |
| {rows} per step | {global_batch_size} |
| steps | {steps} |
| template | {template} |
| maximum length | {max_length} tokens |
{held_out}
## Data

```
{table}
```

- `data_report.json` counts the rows that were kept and dropped, and gives examples for each reason.
- `manifest.json` records how the data was prepared.
- `resolved_config.yaml` contains every flag of the run.

## Use

```python
from transformers import pipeline

generate = pipeline("text-generation", model="{place}")
print(generate([{{"role": "user", "content": "What is the capital of Peru?"}}], return_full_text=False))
```
"""


def model_card(
    config: TrainingConfig, base: str, prepared: PreparedData, log_history: list[dict[str, Any]], steps: int
) -> str:
    """Build the model card as Markdown, with the front matter that the Hub reads.

    Args:
        config: The run's flags.
        base: The base model, as the user named it.
        prepared: The data that the model was trained on.
        log_history: The trainer's log so far.
        steps: Number of optimizer steps taken.
    """
    tags = ["sft"] if config.stage == "sft" else ["dpo", "preference-tuning"]
    front_matter: dict[str, Any] = {"library_name": "peft" if config.trains_adapter else "transformers", "tags": tags}
    if is_hub_id(base):
        front_matter["base_model"] = base
    output_dir = Path(str(config.output_dir))
    return CARD.format(
        front_matter=yaml.safe_dump(front_matter),
        name=output_dir.resolve().name,
        base=f"[{base}](https://huggingface.co/{base})" if is_hub_id(base) else f"`{base}`",
        method=method(config),
        rows="answers" if config.stage == "sft" else "pairs",
        loss=describe_loss(config),
        learning_rate=config.learning_rate,
        global_batch_size=config.global_batch_size,
        steps=steps,
        template=prepared.config["template"],
        max_length=prepared.config["max_length"],
        held_out=held_out_table(config, log_history),
        table=prepared.report.table(),
        place=config.hub_model_id or output_dir,
    )


def method(config: TrainingConfig) -> str:
    """A phrase that says how the base model was trained."""
    adapter = ", as a LoRA adapter" * config.trains_adapter
    if config.stage == "sft":
        return f"fine-tuned on answers (SFT){adapter}"
    dpo = " with DPO ([Rafailov et al. 2023](https://arxiv.org/abs/2305.18290))" * (config.loss_type == ["sigmoid"])
    return f"trained on preference pairs{dpo}{adapter}"


def held_out_table(config: TrainingConfig, log_history: list[dict[str, Any]]) -> str:
    evaluated = evaluations(log_history)
    if not evaluated:
        return ""
    header, *rows = measures_table(config, evaluated)
    lines = [header, ["---"] * len(header), *rows]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
