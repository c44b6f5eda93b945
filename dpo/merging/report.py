"""The report of a merge: printed, saved as JSON, and summarized in the model's README.md."""

__all__ = ["Merge"]

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from dpo.folders import MERGE_REPORT
from dpo.hub import is_hub_id
from dpo.merging.check import Comparison

CARD = """\
---
{front_matter}---

# {name}

{base} with the adapter `{adapter}` merged into its weights, stored in {dtype}.

`{report}` lists what was merged, and how far the logits are from those of the base with the adapter.

```python
from transformers import pipeline

generate = pipeline("text-generation", model="{place}")
print(generate([{{"role": "user", "content": "What is the capital of Peru?"}}], return_full_text=False))
```
"""


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What was merged, the result, and the time and memory it took."""

    base: str
    """As the user or the adapter names it."""
    adapter: str
    num_layers: int
    """Layers with a LoRA adapter."""
    num_replaced: int
    """Weights that the adapter replaces completely."""
    whole_base_because: str | None
    """Why the whole base was loaded; None if it was merged shard by shard."""
    dtype: str
    num_shards: int
    size_gib: float
    comparison: Comparison | None
    merging_s: float
    peak_memory_gib: float
    """Peak of the process while merging, libraries included."""
    peak_memory_with_check_gib: float

    def describe(self) -> str:
        """Summarize the merge in a few lines for the terminal."""
        replaced = f", {self.num_replaced} weights replaced by the adapter's" if self.num_replaced else ""
        shards = "1 shard" if self.num_shards == 1 else f"{self.num_shards} shards"
        lines = [
            f"{self.num_layers} layers merged{replaced}: adapter {self.adapter} into base {self.base}",
            f"{shards} of {self.dtype}, {self.size_gib:.2f} GiB",
        ]
        if self.whole_base_because:
            lines.append(f"the whole base was loaded, because {self.whole_base_because}")
        memory = f"{self.merging_s:.1f} s, peak memory {self.peak_memory_gib:.2f} GiB"
        if self.comparison is None:
            return "\n".join([*lines, memory, "the logits were not checked: --check_prompts 0"])
        memory += f", {self.peak_memory_with_check_gib:.2f} GiB with the check"
        return "\n".join([*lines, memory, self.comparison.describe(self.dtype)])

    def save(self, folder: Path) -> None:
        """Write the report as JSON."""
        content = asdict(self)
        (folder / MERGE_REPORT).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def save_card(self, folder: Path, place: Path) -> None:
        """Write README.md, with the front matter that the Hub reads.

        Args:
            folder: Folder to write the file to.
            place: Final path of that folder.
        """
        front_matter: dict[str, Any] = {"library_name": "transformers", "tags": ["merged-adapter"]}
        if is_hub_id(self.base):
            front_matter["base_model"] = self.base
        card = CARD.format(
            front_matter=yaml.safe_dump(front_matter),
            name=place.resolve().name,
            base=f"[{self.base}](https://huggingface.co/{self.base})" if is_hub_id(self.base) else f"`{self.base}`",
            adapter=self.adapter,
            dtype=self.dtype,
            report=MERGE_REPORT,
            place=place,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
