"""Tests of dpo.data.rendering.tokenization: tokenizers loaded without transformers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer
from dpo.errors import TokenizerError
from tests.builders import CHATML, ROOT, put_first, save_tokenizer, train_byte_level

TEXTS = ["Name a noble gas.", "", " \n\n x\t", "Größe ½ 🙂", "<|im_start|>user\nHi!<|im_end|>\n", "A:Neon", "<s>x</s>"]
FOLDERS = ["chatml_folder", "bos_folder", "llama3_folder", "sentencepiece_folder"]


class TestLoading:
    def test_named_tokens_may_be_text_or_objects_and_unset_ones_are_left_out(self, bos_tokenizer: Tokenizer) -> None:
        assert bos_tokenizer.special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}

    def test_a_null_token_is_not_set(self, tmp_path: Path) -> None:
        save_tokenizer(tmp_path, train_byte_level(CHATML), bos_token=None, eos_token="<|im_end|>")
        assert load_tokenizer(str(tmp_path)).special_tokens == {"eos_token": "<|im_end|>"}

    def test_named_tokens_may_be_in_special_tokens_map(self, tmp_path: Path) -> None:
        save_tokenizer(tmp_path, train_byte_level(CHATML), eos_token="<|im_end|>")
        named = {"eos_token": "<|im_start|>", "pad_token": {"content": "<|im_start|>"}}
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(named))
        assert load_tokenizer(str(tmp_path)).special_tokens == {
            "eos_token": "<|im_end|>",
            "pad_token": "<|im_start|>",
        }

    @pytest.mark.parametrize(
        ("in_config", "in_file", "expected"),
        [
            (None, None, None),
            ("config", None, "config"),
            ("config", "file", "file"),
            (None, "file", "file"),
            ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], None, "d"),
            ([{"name": "tool_use", "template": "t"}], None, None),
        ],
    )
    def test_the_chat_template_is_a_file_or_the_default_of_the_configuration(
        self, tmp_path: Path, in_config: Any, in_file: str | None, expected: str | None
    ) -> None:
        save_tokenizer(tmp_path, train_byte_level(CHATML), eos_token="<|im_end|>", chat_template=in_config)
        if in_file is not None:
            (tmp_path / "chat_template.jinja").write_text(in_file)
        assert load_tokenizer(str(tmp_path)).chat_template == expected

    def test_padding_and_truncation_are_switched_off(self, tmp_path: Path) -> None:
        backend = train_byte_level(CHATML)
        backend.enable_padding(length=64)
        backend.enable_truncation(max_length=2)
        save_tokenizer(tmp_path, backend, eos_token="<|im_end|>")
        (ids,) = load_tokenizer(str(tmp_path)).encode(["Name a noble gas."])
        assert 2 < len(ids) < 64
        assert load_tokenizer(str(tmp_path)).backend.decode(ids) == "Name a noble gas."

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("tokenizer.json", "{}", "tokenizer.json: not a valid tokenizer: "),
            ("tokenizer.json", "oops", "tokenizer.json: not a valid tokenizer: "),
            ("tokenizer_config.json", "{oops", "tokenizer_config.json: not valid JSON: "),
            ("tokenizer_config.json", "[]", "tokenizer_config.json: expected a JSON object, found list"),
            ("special_tokens_map.json", "3", "special_tokens_map.json: expected a JSON object, found int"),
        ],
    )
    def test_a_broken_file_is_an_error_that_names_it(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        save_tokenizer(tmp_path, train_byte_level(CHATML), eos_token="<|im_end|>")
        (tmp_path / name).write_text(text)
        with pytest.raises(TokenizerError, match=message):
            load_tokenizer(str(tmp_path))

    @pytest.mark.parametrize("model", ["/no/such/folder", "./none", "../none", "~/none", "a/b/c"])
    def test_a_missing_folder_is_an_error_without_asking_the_hub(self, model: str) -> None:
        with pytest.raises(TokenizerError) as caught:
            load_tokenizer(model)
        assert str(caught.value) == (
            f"model {model}: there is no such folder.\n  Expected a model folder or a Hub id, such as org/name."
        )

    def test_a_misspelled_folder_and_a_file_are_errors_with_advice(self, tmp_path: Path) -> None:
        (tmp_path / "smollm2").mkdir()
        with pytest.raises(TokenizerError, match=rf"no such folder. Did you mean {tmp_path}/smollm2\?"):
            load_tokenizer(f"{tmp_path}/smollm")
        (tmp_path / "model.gguf").touch()
        with pytest.raises(TokenizerError, match=r"model.gguf is a file.\n  Expected a model folder or a Hub id"):
            load_tokenizer(f"{tmp_path}/model.gguf")

    @pytest.mark.parametrize("model", ["no-such-org/no-such-model", "no-such-model"])
    def test_an_unreachable_model_is_an_error_with_advice(self, model: str) -> None:
        with pytest.raises(TokenizerError) as caught:
            load_tokenizer(model)
        assert str(caught.value).startswith(f"model {model}: there is no such folder, and the Hub did not provide")
        assert "Check the spelling and the network, or pass the path of a model folder." in str(caught.value)

    def test_a_folder_without_a_tokenizer_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(TokenizerError, match=r"no usable tokenizer\.json, and transformers cannot load"):
            load_tokenizer(str(tmp_path))

    def test_a_model_in_the_hub_s_cache_is_read_offline_without_optional_files(self, tmp_path: Path) -> None:
        repository = tmp_path / "hub" / "models--org--name"
        save_tokenizer(repository / "snapshots" / ("0" * 40), train_byte_level(CHATML), eos_token="<|im_end|>")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
        code = (
            "from dpo.data.rendering.tokenization import load_tokenizer\n"
            "print(load_tokenizer('org/name').special_tokens)"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PATH": "/usr/bin", "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.stdout == "{'eos_token': '<|im_end|>'}\n", result.stderr


class TestBos:
    def test_a_tokenizer_wants_bos_if_it_adds_one_before_a_text(
        self,
        chatml_tokenizer: Tokenizer,
        bos_tokenizer: Tokenizer,
        llama3_tokenizer: Tokenizer,
        sentencepiece_tokenizer: Tokenizer,
    ) -> None:
        tokenizers = (chatml_tokenizer, bos_tokenizer, llama3_tokenizer, sentencepiece_tokenizer)
        assert [tokenizer.wants_bos for tokenizer in tokenizers] == [False, True, True, True]

    def test_a_bos_token_that_is_named_but_not_added_is_not_wanted(self, tmp_path: Path) -> None:
        save_tokenizer(tmp_path, train_byte_level(["<s>", "</s>"]), bos_token="<s>", eos_token="</s>")
        assert load_tokenizer(str(tmp_path)).wants_bos is False

    def test_a_first_token_that_is_not_the_bos_token_is_not_bos(self, tmp_path: Path) -> None:
        backend = train_byte_level(["<s>", "</s>"])
        put_first(backend, "<s>")
        save_tokenizer(tmp_path, backend, eos_token="</s>")
        assert load_tokenizer(str(tmp_path)).wants_bos is False

    @pytest.mark.parametrize("settings", [{}, {"add_bos_token": True}, {"add_bos_token": False}])
    @pytest.mark.parametrize("written", [True, False])
    def test_transformers_agrees(self, tmp_path: Path, settings: dict[str, bool], written: bool) -> None:
        from transformers import AutoTokenizer

        backend = train_byte_level(["<s>", "</s>"])
        if written:
            put_first(backend, "<s>")
        save_tokenizer(tmp_path, backend, bos_token="<s>", eos_token="</s>", **settings)
        their_ids = AutoTokenizer.from_pretrained(tmp_path)("a")["input_ids"]
        assert load_tokenizer(str(tmp_path)).wants_bos is (their_ids[0] == backend.token_to_id("<s>"))


class TestIds:
    def test_no_tokens_are_added_to_a_text(self, bos_tokenizer: Tokenizer) -> None:
        bos, eos = bos_tokenizer.token_id("<s>"), bos_tokenizer.token_id("</s>")
        assert bos_tokenizer.encode(["", "<s></s>"]) == [[], [bos, eos]]

    def test_control_tokens_are_one_id_each_within_a_text(self, chatml_tokenizer: Tokenizer) -> None:
        assert chatml_tokenizer.token_id("<|im_start|>") == 0
        assert chatml_tokenizer.token_id("<|im_end|>") == 1
        (ids,) = chatml_tokenizer.encode(["a<|im_start|>b<|im_end|>"])
        assert [token for token in ids if token < 2] == [0, 1]

    def test_a_text_that_is_not_a_token_has_no_id(self, chatml_tokenizer: Tokenizer) -> None:
        assert chatml_tokenizer.token_id("<|eot_id|>") is None
        assert chatml_tokenizer.token_id("Name a noble gas.") is None

    @pytest.mark.parametrize("folder", FOLDERS)
    def test_ids_are_those_of_transformers(self, folder: str, request: pytest.FixtureRequest) -> None:
        from transformers import AutoTokenizer

        model: Path = request.getfixturevalue(folder)
        theirs = AutoTokenizer.from_pretrained(model)
        mine = load_tokenizer(str(model))
        assert mine.encode(TEXTS) == [theirs.encode(text, add_special_tokens=False) for text in TEXTS]
        assert mine.special_tokens == dict(theirs.special_tokens_map)

    def test_extra_named_tokens_are_those_of_transformers(self, tmp_path: Path) -> None:
        from transformers import AutoTokenizer

        backend = train_byte_level(["<image>", *CHATML])
        save_tokenizer(tmp_path, backend, eos_token="<|im_end|>", extra_special_tokens={"image_token": "<image>"})
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        assert load_tokenizer(str(tmp_path)).special_tokens == dict(theirs.special_tokens_map)


class TestControlTokens:
    def test_literals_are_those_of_the_special_tokens(self, bos_tokenizer: Tokenizer) -> None:
        assert bos_tokenizer.control_literals == {"<s>", "</s>"}

    def test_new_tokens_get_one_id_each_at_the_end(self, bos_tokenizer: Tokenizer) -> None:
        size = bos_tokenizer.backend.get_vocab_size()
        before = bos_tokenizer.encode(TEXTS[:4])
        grown = bos_tokenizer.with_control_tokens(CHATML)
        assert [grown.token_id(token) for token in CHATML] == [size, size + 1]
        assert grown.encode(["<|im_end|><|im_start|>"]) == [[size + 1, size]]
        assert grown.control_literals == {"<s>", "</s>", "<|im_start|>", "<|im_end|>"}
        assert grown.encode(TEXTS[:4]) == before

    def test_an_existing_token_keeps_its_id(self, chatml_tokenizer: Tokenizer) -> None:
        size = chatml_tokenizer.backend.get_vocab_size()
        grown = chatml_tokenizer.with_control_tokens(CHATML)
        assert grown.backend.get_vocab_size() == size
        assert grown.token_id("<|im_end|>") == 1


class TestFingerprint:
    def test_it_is_the_same_for_the_same_files(self, chatml_folder: Path) -> None:
        first, second = (load_tokenizer(str(chatml_folder)).fingerprint() for _ in range(2))
        assert first == second

    def test_it_changes_with_vocabulary_template_and_named_tokens(self, tmp_path: Path) -> None:
        backend = train_byte_level(CHATML)
        found = set()
        for settings in ({}, {"chat_template": "x"}, {"pad_token": "<|im_start|>"}):
            save_tokenizer(tmp_path, backend, **{"eos_token": "<|im_end|>"} | settings)
            found.add(load_tokenizer(str(tmp_path)).fingerprint())
        grown = load_tokenizer(str(tmp_path)).with_control_tokens(["<new>"])
        assert len(found | {grown.fingerprint()}) == 4
