"""What is overridden of trl.DPOTrainer is reached, and gives TRL's own numbers."""

import pytest
import torch
import trl.trainer.dpo_trainer as trl_dpo
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from dpo.data.config import DataConfig
from dpo.data.pipeline import prepare
from dpo.data.rendering.tokenization import load_tokenizer
from dpo.training.policy.model import load_tokenizer_for
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.padded import PreferenceTrainer
from tests.builders import located


@pytest.fixture
def prepared(tiny_model, rows):
    return prepare(DataConfig(datasets=(f"triplets={rows}",)), load_tokenizer(str(tiny_model)), progress=False)


@pytest.fixture
def trainer(tiny_model, prepared, tmp_path, monkeypatch) -> PreferenceTrainer:
    monkeypatch.setattr(trl_dpo, "_tokenize", lambda *a, **k: pytest.fail("TRL tokenizes again"))
    config = TrainingConfig(
        model_name_or_path=str(tiny_model),
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=2,
        global_batch_size=4,
    )
    return PreferenceTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model),
        ref_model=AutoModelForCausalLM.from_pretrained(tiny_model),
        args=config,
        train_dataset=prepared.train,
        processing_class=load_tokenizer_for(located(tiny_model), config, prepared),
    )


def test_the_trainer_gets_our_ids_untouched(trainer, prepared):
    assert len(trainer.train_dataset) == 24
    for ours, theirs in zip(prepared.train, trainer.train_dataset, strict=True):
        assert {name: ours[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} == theirs


def test_a_batch_holds_every_token_of_its_pairs(trainer, prepared):
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(batch["input_ids"]) == 4, "two pairs, chosen and rejected"
    found = {
        tuple(ids[mask.bool()].tolist()) for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    }
    whole = {tuple(p["prompt_ids"] + p[side]) for p in prepared.train for side in ("chosen_ids", "rejected_ids")}
    assert found <= whole


def test_losses_equal_those_of_trl_on_the_same_text(trainer, tiny_model, rows, tmp_path, monkeypatch):
    monkeypatch.undo()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = trainer.processing_class.chat_template
    import json

    conversational = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in map(json.loads, rows.read_text().splitlines())
    ]
    policy = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(0)
    for parameter in policy.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    plain = DPOTrainer(
        model=policy,
        ref_model=AutoModelForCausalLM.from_pretrained(tiny_model),
        args=DPOConfig(output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to="none"),
        train_dataset=Dataset.from_list(conversational),
        processing_class=tokenizer,
    )
    trainer.model.load_state_dict(policy.state_dict())
    newline = tokenizer.encode("\n")
    for i in range(3):
        theirs = plain.train_dataset[i]
        ours = trainer.train_dataset[i]
        assert theirs["prompt_ids"] == ours["prompt_ids"]
        assert theirs["chosen_ids"] == ours["chosen_ids"] + newline, "TRL trains on the line break behind the turn"
        batch = trainer.data_collator([ours])
        with torch.no_grad():
            loss = trainer.compute_loss(trainer.model, batch)
            expected = plain.compute_loss(plain.model, plain.data_collator([ours]))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert loss.item() != pytest.approx(0.6931, abs=1e-3), "the policy was moved away from its reference"
