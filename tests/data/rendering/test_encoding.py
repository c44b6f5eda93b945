"""Tests of dpo.data.rendering.encoding: pairs as token ids."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from dpo.data.rendering.encoding import EncodedPair, PairEncoder
from dpo.data.rendering.template import Template, load_template
from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer
from dpo.errors import DataError, TemplateError
from dpo.records import Drop, Preference
from tests.builders import CHATML, assistant, instruction, pair, save_tokenizer, system, train_byte_level, user

# Tokenizers, each with a template that it fits without added tokens.
FITTING = [
    ("chatml_folder", "chatml"),
    ("chatml_folder", "hh"),
    ("chatml_folder", "mistral"),
    ("chatml_folder", "neural_chat"),
    ("chatml_folder", "zephyr"),
    ("bos_folder", "model"),
    ("bos_folder", "mistral"),
    ("bos_folder", "zephyr"),
    ("llama3_folder", "llama3"),
    ("llama3_folder", "zephyr"),
    ("sentencepiece_folder", "hh"),
    ("sentencepiece_folder", "mistral"),
    ("sentencepiece_folder", "neural_chat"),
    ("sentencepiece_folder", "zephyr"),
]

PAIRS = [
    pair(),
    Preference(
        prompt=(system("Be brief."), user("Hi!"), assistant("Hello."), user("2 + 2?")), chosen="4", rejected="It is 5."
    ),
    pair("Größe ½ 🙂?", "日本語 🙂", "ß"),
    pair("  spaces  ", " leading", "trailing \n"),
    pair("line\n\n", "\n\nNeon.", "\nOxygen.\n\n\n"),
    pair("a", "b", "B" * 300),
    pair("A:", ":)", "\t"),
]

QUESTION_ANSWER = (
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{{ 'Q: ' + m.content + '\nA:' + GAP }}"
    "{%- else -%}{{ m.content + eos_token + '\n' }}{%- endif -%}{%- endfor -%}"
)


def encoder_for(tokenizer: Tokenizer, name: str = "chatml", **options: Any) -> PairEncoder:
    template = load_template(name, own=tokenizer.chat_template, special_tokens=tokenizer.special_tokens)
    return PairEncoder(template, tokenizer, **options)


def encoder_of(tokenizer: Tokenizer, source: str, *, name: str = "own.jinja", **options: Any) -> PairEncoder:
    template = Template(name=name, source=source, special_tokens=tokenizer.special_tokens)
    return PairEncoder(template, tokenizer, **options)


def encode(encoder: PairEncoder, preference: Preference) -> EncodedPair:
    (result,) = encoder.encode([preference])
    assert isinstance(result, EncodedPair), result
    return result


def drop_of(encoder: PairEncoder, preference: Preference) -> Drop:
    (result,) = encoder.encode([preference])
    assert isinstance(result, Drop), result
    return result


def text_of(encoder: PairEncoder, ids: list[int]) -> str:
    return encoder.tokenizer.backend.decode(ids, skip_special_tokens=False)


@pytest.fixture(params=FITTING, ids="-".join)
def fitting(request: pytest.FixtureRequest) -> PairEncoder:
    """An encoder for each combination in FITTING."""
    folder, name = request.param
    return encoder_for(load_tokenizer(str(request.getfixturevalue(folder))), name)


class TestBoundary:
    def test_chatml_gives_these_ids(self, chatml_tokenizer: Tokenizer) -> None:
        encoder = encoder_for(chatml_tokenizer)
        encoded = encode(encoder, pair("gas?", "Neon.", "A gas."))
        pieces = ["user\ngas?", "\n", "assistant\n", "Neon.", "A gas."]
        question, line_break, opening, chosen, rejected = chatml_tokenizer.encode(pieces)
        start, end = 0, 1
        assert encoded.prompt_ids == [start, *question, end, *line_break, start, *opening]
        assert encoded.chosen_ids == [*chosen, end]
        assert encoded.rejected_ids == [*rejected, end]
        assert encoded.boundary_shift is False

    def test_prompt_and_answer_ids_are_those_of_the_whole_or_the_pair_is_flagged(self, fitting: PairEncoder) -> None:
        num_plain = 0
        for preference in PAIRS:
            encoded = encode(fitting, preference)
            prompt, chosen, rejected = fitting.tokenizer.encode(fitting.render(preference))
            assert encoded.prompt_ids == prompt
            agree = True
            for whole, completion in ((chosen, encoded.chosen_ids), (rejected, encoded.rejected_ids)):
                agree &= whole[: len(prompt)] == prompt
                if whole[: len(prompt)] == prompt:
                    assert whole[len(prompt) : len(prompt) + len(completion)] == completion
            assert encoded.boundary_shift is not agree
            num_plain += agree
        assert num_plain >= 1

    def test_a_prompt_is_encoded_once_for_both_answers(
        self, chatml_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoder = encoder_for(chatml_tokenizer)
        characters: list[int] = []
        real = Tokenizer.encode

        def encode_counted(self: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
            characters.extend(map(len, texts))
            return real(self, texts)

        monkeypatch.setattr(Tokenizer, "encode", encode_counted)
        encode(encoder, pair("x" * 1000, "a", "b"))
        assert sum(characters) < 1300

    @pytest.mark.parametrize("look", [{"lstrip": True}, {"rstrip": True}, {"normalized": True}, {"single_word": True}])
    def test_texts_are_not_cut_at_control_tokens_that_depend_on_neighbours(self, look: dict[str, bool]) -> None:
        backend = train_byte_level(CHATML)
        backend.add_special_tokens([tokenizers.AddedToken("<|im_start|>", special=True, **look)])
        encoder = encoder_for(Tokenizer(backend=backend, special_tokens={"eos_token": "<|im_end|>"}))
        assert encoder.tokenizer.barriers == frozenset()
        for preference in PAIRS:
            assert encode(encoder, preference).prompt_ids == encoder.tokenizer.encode(encoder.render(preference))[0]

    def test_texts_are_not_cut_at_a_control_token_that_is_part_of_a_longer_one(self) -> None:
        backend = train_byte_level([*CHATML, "<a>", "<b>", "<b><a>z"])
        encoder = encoder_of(
            Tokenizer(backend=backend, special_tokens={"eos_token": "<|im_end|>"}),
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}<b><a>{% else %}"
            "{{ m.content + eos_token }}{% endif %}{% endfor %}",
        )
        assert "<b>" in encoder.tokenizer.barriers and "<a>" not in encoder.tokenizer.barriers
        assert encode(encoder, pair("q", "zebra", "ibex")).boundary_shift
        assert not encode(encoder, pair("q", "gnu", "ibex")).boundary_shift

    def test_the_decoded_ids_are_the_template_s_text(self, fitting: PairEncoder) -> None:
        for preference in PAIRS:
            encoded = encode(fitting, preference)
            _, *texts = fitting.render(preference)
            for text, completion in zip(texts, (encoded.chosen_ids, encoded.rejected_ids), strict=True):
                written = text[: text.rindex(fitting.end_of_turn)] + fitting.end_of_turn
                (ids,) = fitting.tokenizer.encode([written])
                assert text_of(fitting, encoded.prompt_ids + completion) == text_of(fitting, ids)

    def test_each_answer_ends_in_its_only_end_of_turn_id(self, fitting: PairEncoder) -> None:
        for preference in PAIRS:
            encoded = encode(fitting, preference)
            for completion in (encoded.chosen_ids, encoded.rejected_ids):
                assert completion[-1] == fitting.end_of_turn_id
                assert completion.count(fitting.end_of_turn_id) == 1

    def test_a_line_break_that_would_merge_with_the_prompt_is_flagged(self, chatml_tokenizer: Tokenizer) -> None:
        encoder = encoder_for(chatml_tokenizer)
        encoded = encode(encoder, pair(chosen="\nNeon.", rejected="Oxygen."))
        (merged,), (single,) = chatml_tokenizer.encode(["\n\n", "\n"])
        assert encoded.boundary_shift is True
        assert encoded.prompt_ids[-1] == single
        assert encoded.prompt_ids == encode(encoder, pair()).prompt_ids
        assert encoded.chosen_ids == [single, *chatml_tokenizer.encode(["Neon."])[0], 1]
        assert merged not in encoded.chosen_ids
        assert encoded.rejected_ids == [*chatml_tokenizer.encode(["Oxygen."])[0], 1]

    @pytest.mark.parametrize("gap", ["", " "])
    def test_a_template_without_a_control_token_before_the_answer_gives_a_shift(
        self, chatml_tokenizer: Tokenizer, gap: str
    ) -> None:
        encoder = encoder_of(chatml_tokenizer, QUESTION_ANSWER.replace("GAP", repr(gap)))
        encoded = encode(encoder, pair("gas?", "Neon", "A"))
        prompt, neon, letter = chatml_tokenizer.encode([f"Q: gas?\nA:{gap}", "Neon", "A"])
        assert encoded.boundary_shift is True
        assert (encoded.prompt_ids, encoded.chosen_ids, encoded.rejected_ids) == (prompt, [*neon, 1], [*letter, 1])

    def test_sentencepiece_adds_no_space_to_an_answer(self, sentencepiece_tokenizer: Tokenizer) -> None:
        source = "{% for m in messages %}{{ m.content + (' A:' if m.role == 'user' else eos_token) }}{% endfor %}"
        encoder = encoder_of(sentencepiece_tokenizer, source)
        encoded = encode(encoder, pair("gas?", "Neon", "Neon gas"))
        assert encoded.boundary_shift is True
        assert text_of(encoder, encoded.prompt_ids).endswith("gas? A:")
        assert text_of(encoder, encoded.prompt_ids + encoded.chosen_ids).endswith("gas? A:Neon</s>")
        assert text_of(encoder, encoded.prompt_ids + encoded.rejected_ids).endswith("gas? A:Neon gas</s>")

    def test_the_ids_of_a_pair_do_not_depend_on_other_pairs(self, fitting: PairEncoder) -> None:
        together = fitting.encode(PAIRS)
        assert together == [encode(fitting, preference) for preference in PAIRS]
        assert fitting.encode([]) == []


class TestInstructions:
    """Instruction rows: a prompt with one answer."""

    def test_its_ids_are_those_of_a_pair_with_the_same_chosen_answer(self, fitting: PairEncoder) -> None:
        for preference in PAIRS:
            alone = encode(fitting, preference.model_copy(update={"rejected": None}))
            beside = encode(fitting, preference)
            assert (alone.prompt_ids, alone.chosen_ids) == (beside.prompt_ids, beside.chosen_ids)
            assert alone.rejected_ids == []

    def test_it_can_be_encoded_together_with_pairs(self, fitting: PairEncoder) -> None:
        rows = [pair(), instruction(answer="Argon."), pair("a", "b", "c"), instruction()]
        assert fitting.encode(rows) == [encode(fitting, row) for row in rows]

    def test_its_lengths_are_those_of_prompt_and_answer(self, chatml_tokenizer: Tokenizer) -> None:
        encoded = encode(encoder_for(chatml_tokenizer), instruction())
        prompt, answer = len(encoded.prompt_ids), len(encoded.chosen_ids)
        assert encoded.lengths == {"prompt": prompt, "chosen": answer, "whole": prompt + answer}

    def test_its_flags_and_drops_depend_on_its_only_answer(self, chatml_tokenizer: Tokenizer) -> None:
        encoder = encoder_for(chatml_tokenizer)
        assert encode(encoder, instruction(answer="\nNeon.")).boundary_shift
        assert not encode(encoder, instruction()).boundary_shift
        assert drop_of(encoder, instruction(answer="<|im_end|>")).reason == "special_token_in_text"


class TestAgainstTransformers:
    @pytest.mark.parametrize(("folder", "name"), FITTING)
    def test_ids_are_those_of_apply_chat_template(self, folder: str, name: str, request: pytest.FixtureRequest) -> None:
        from transformers import AutoTokenizer

        model: Path = request.getfixturevalue(folder)
        theirs = AutoTokenizer.from_pretrained(model)
        encoder = encoder_for(load_tokenizer(str(model)), name)
        for preference in PAIRS:
            encoded = encode(encoder, preference)
            messages = [message.model_dump() for message in preference.prompt]
            settings = {"chat_template": encoder.template.source, "return_dict": False}
            prompt_ids = theirs.apply_chat_template(messages, add_generation_prompt=True, **settings)
            assert encoded.prompt_ids == prompt_ids
            if not encoded.boundary_shift:
                messages.append({"role": "assistant", "content": preference.chosen})
                whole = theirs.apply_chat_template(messages, **settings)
                ours = encoded.prompt_ids + encoded.chosen_ids
                assert whole[: len(ours)] == ours
                assert theirs.decode(whole[len(ours) :]).strip() == ""


class TestBos:
    @pytest.mark.parametrize(("folder", "name"), FITTING)
    def test_there_is_exactly_one_if_the_tokenizer_wants_one_and_none_otherwise(
        self, folder: str, name: str, request: pytest.FixtureRequest
    ) -> None:
        tokenizer = load_tokenizer(str(request.getfixturevalue(folder)))
        encoder = encoder_for(tokenizer, name)
        bos = {"chatml_folder": None, "llama3_folder": "<|begin_of_text|>"}.get(folder, "<s>")
        for preference in PAIRS:
            encoded = encode(encoder, preference)
            if bos is None:
                assert encoded.prompt_ids == tokenizer.encode([encoder.render(preference)[0]])[0]
                continue
            bos_id = tokenizer.token_id(bos)
            assert encoded.prompt_ids[0] == bos_id
            assert encoded.prompt_ids.count(bos_id) == 1
            assert bos_id not in encoded.chosen_ids + encoded.rejected_ids

    def test_the_saved_template_writes_it_too(self, bos_tokenizer: Tokenizer) -> None:
        encoder = encoder_for(bos_tokenizer, "zephyr")
        assert encoder.render(pair())[0].startswith("<s><|user|>\n")
        assert encoder.template.render([user("Hi!")], add_generation_prompt=False) == "<s><|user|>\nHi!</s>\n"

    def test_a_template_that_already_writes_it_is_unchanged(self, bos_tokenizer: Tokenizer) -> None:
        source = "{{ bos_token }}" + load_template("zephyr").source
        encoder = encoder_of(bos_tokenizer, source)
        assert encoder.template.source == source
        assert encoder.render(pair())[0].count("<s>") == 1

    def test_the_template_named_model_is_unchanged(self, bos_tokenizer: Tokenizer) -> None:
        source = load_template("zephyr").source
        encoder = encoder_of(bos_tokenizer, source, name="model")
        assert encoder.template.source == source
        assert bos_tokenizer.token_id("<s>") not in encode(encoder, pair()).prompt_ids


class TestControlTokens:
    def test_a_tokenizer_that_lacks_them_is_an_error_with_advice(
        self, bos_tokenizer: Tokenizer, llama3_tokenizer: Tokenizer
    ) -> None:
        with pytest.raises(TemplateError) as caught:
            encoder_for(bos_tokenizer)
        message = str(caught.value)
        assert "--template chatml needs <|im_start|>, <|im_end|> as one token each" in message
        assert "the tokenizer lacks <|im_start|>, <|im_end|>." in message
        assert "--add_control_tokens" in message
        assert "another --template, such as 'model' for the tokenizer's own." in message
        with pytest.raises(TemplateError) as caught:
            encoder_for(llama3_tokenizer)
        assert "'model'" not in str(caught.value)

    def test_they_are_added_at_the_end_of_the_vocabulary_on_request(self, bos_tokenizer: Tokenizer) -> None:
        size = bos_tokenizer.backend.get_vocab_size()
        encoder = encoder_for(bos_tokenizer, add_control_tokens=True)
        assert list(encoder.added_tokens) == CHATML
        assert (encoder.end_of_turn, encoder.end_of_turn_id) == ("<|im_end|>", size + 1)
        encoded = encode(encoder, pair())
        assert encoded.prompt_ids[:2] == [encoder.tokenizer.token_id("<s>"), size]
        assert [token for token in encoded.prompt_ids if token >= size] == [size, size + 1, size]
        assert encoded.chosen_ids[-1] == size + 1
        assert encoder.tokenizer.backend.get_vocab_size() == size + 2
        assert bos_tokenizer.backend.get_vocab_size() == size, "the original tokenizer is unchanged"

    def test_nothing_is_added_if_nothing_is_missing(self, chatml_tokenizer: Tokenizer) -> None:
        size = chatml_tokenizer.backend.get_vocab_size()
        assert list(encoder_for(chatml_tokenizer, add_control_tokens=True).added_tokens) == []
        assert chatml_tokenizer.backend.get_vocab_size() == size

    def test_an_ordinary_piece_of_the_vocabulary_is_not_a_control_token(self, tmp_path: Path) -> None:
        content = json.loads(train_byte_level(CHATML).to_str())
        content["added_tokens"] = []
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        save_tokenizer(tmp_path, backend, eos_token="<|im_end|>")
        with pytest.raises(TemplateError, match=r"the tokenizer lacks <\|im_start\|>, <\|im_end\|>"):
            encoder_for(load_tokenizer(str(tmp_path)))
        encoder = encoder_for(load_tokenizer(str(tmp_path)), add_control_tokens=True)
        assert encode(encoder, pair()).chosen_ids[-1] == 1

    def test_an_added_token_that_is_not_special_is_accepted(self, tmp_path: Path) -> None:
        backend = train_byte_level(["<pad>"])
        backend.add_tokens([tokenizers.AddedToken(token, special=False) for token in CHATML])
        save_tokenizer(tmp_path, backend, eos_token="<pad>")
        encoder = encoder_for(load_tokenizer(str(tmp_path)))
        assert encoder.end_of_turn == "<|im_end|>"
        assert encode(encoder, pair()).chosen_ids[-1] == backend.token_to_id("<|im_end|>")
        assert drop_of(encoder, pair(chosen="a<|im_end|>b")).reason == "special_token_in_text"

    @pytest.mark.parametrize(
        ("folder", "name", "end"),
        [
            ("chatml_folder", "chatml", "<|im_end|>"),
            ("bos_folder", "model", "</s>"),
            ("sentencepiece_folder", "mistral", "</s>"),
            ("llama3_folder", "llama3", "<|eot_id|>"),
        ],
    )
    def test_the_end_of_turn_is_the_token_the_template_writes(
        self, folder: str, name: str, end: str, request: pytest.FixtureRequest
    ) -> None:
        tokenizer = load_tokenizer(str(request.getfixturevalue(folder)))
        encoder = encoder_for(tokenizer, name)
        assert (encoder.end_of_turn, encoder.end_of_turn_id) == (end, tokenizer.token_id(end))

    @pytest.mark.parametrize("end", ["", "\\n", "END", "<|im_end"])
    def test_a_template_that_writes_no_end_token_is_refused(self, chatml_tokenizer: Tokenizer, end: str) -> None:
        source = "{% for m in messages %}{{ m.content + '" + end + "' }}{% endfor %}"
        with pytest.raises(TemplateError) as caught:
            encoder_of(chatml_tokenizer, source)
        assert "--template own.jinja ends an answer with" in str(caught.value)
        assert "would not learn to stop" in str(caught.value)


class TestLiteralsInText:
    @pytest.mark.parametrize(
        "preference",
        [
            pair(prompt="What is <|im_end|>?"),
            pair(chosen="<|im_end|>"),
            pair(rejected="a<|im_start|>b"),
            Preference(prompt=(system("<|im_start|>"), user("Hi!")), chosen="a", rejected="b"),
        ],
    )
    def test_a_literal_in_any_text_drops_the_pair(self, chatml_tokenizer: Tokenizer, preference: Preference) -> None:
        drop = drop_of(encoder_for(chatml_tokenizer), preference)
        assert drop.reason == "special_token_in_text"
        details = [f"the text contains {token}, which would become a control token" for token in CHATML]
        assert drop.detail in details

    @pytest.mark.parametrize("text", ["<|im_end", "im_end|>", "< |im_end|>", "<|IM_END|>", "[INST]", "</s>"])
    def test_a_similar_text_that_is_not_a_literal_is_kept(self, chatml_tokenizer: Tokenizer, text: str) -> None:
        encoder = encoder_for(chatml_tokenizer)
        encoded = encode(encoder, pair(chosen=text))
        assert text_of(encoder, encoded.chosen_ids) == f"{text}<|im_end|>"

    @pytest.mark.parametrize("text", ["[INST]", "a [/INST] b", "</s>", "<s>"])
    def test_text_markers_and_the_tokenizer_s_own_tokens_count(self, bos_tokenizer: Tokenizer, text: str) -> None:
        assert drop_of(encoder_for(bos_tokenizer, "mistral"), pair(chosen=text)).reason == "special_token_in_text"

    @pytest.mark.parametrize("text", ["<|im_end|>", "</s>"])
    def test_added_tokens_count(self, bos_tokenizer: Tokenizer, text: str) -> None:
        encoder = encoder_for(bos_tokenizer, add_control_tokens=True)
        assert drop_of(encoder, pair(chosen=text)).reason == "special_token_in_text"

    def test_with_the_option_error_the_error_names_source_and_row(self, chatml_tokenizer: Tokenizer) -> None:
        encoder = encoder_for(chatml_tokenizer, special_tokens_in_text="error")
        with pytest.raises(DataError) as caught:
            encoder.encode([pair(), pair(chosen="<|im_end|>", source="orca=rows.jsonl", row=44)])
        assert str(caught.value).startswith("orca=rows.jsonl, row 44: the text contains '<|im_end|>'")
        assert "--special_tokens_in_text drop" in str(caught.value)

    def test_with_the_option_keep_the_pair_is_kept(self, chatml_tokenizer: Tokenizer) -> None:
        encoder = encoder_for(chatml_tokenizer, special_tokens_in_text="keep")
        encoded = encode(encoder, pair(chosen="A<|im_end|>A"))
        (letter,) = chatml_tokenizer.encode(["A"])
        assert encoded.chosen_ids == [*letter, 1, *letter, 1]

    def test_drops_are_in_the_place_of_their_pairs(self, chatml_tokenizer: Tokenizer) -> None:
        encoder = encoder_for(chatml_tokenizer)
        first, second, third = encoder.encode([pair("a"), pair(chosen="<|im_end|>"), pair("b")])
        assert isinstance(first, EncodedPair)
        assert isinstance(second, Drop)
        assert isinstance(third, EncodedPair)
        assert (first.preference.prompt, third.preference.prompt) == ((user("a"),), (user("b"),))


class TestDrops:
    def test_a_conversation_that_the_template_refuses_is_dropped_with_the_message(
        self, bos_tokenizer: Tokenizer
    ) -> None:
        drop = drop_of(
            encoder_for(bos_tokenizer, "mistral"), Preference(prompt=(user("a"), user("b")), chosen="x", rejected="y")
        )
        assert drop.reason == "template_refused"
        assert "must alternate" in drop.detail

    def test_a_prompt_that_is_rendered_differently_with_an_answer_is_dropped(self, chatml_tokenizer: Tokenizer) -> None:
        source = "{{ messages | length }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
        assert drop_of(encoder_of(chatml_tokenizer, source), pair()).reason == "prompt_not_prefix"

    def test_an_answer_without_an_end_token_is_dropped(self, chatml_tokenizer: Tokenizer) -> None:
        end = "{% if m.content != 'Oxygen.' %}{{ eos_token }}{% endif %}"
        source = "{% for m in messages %}{{ m.content }}" + end + "{% endfor %}"
        drop = drop_of(encoder_of(chatml_tokenizer, source), pair())
        assert (drop.reason, drop.detail) == ("no_end_token", "the template does not end the answer in <|im_end|>")

    def test_text_after_the_end_of_turn_token_is_left_out(self, chatml_tokenizer: Tokenizer) -> None:
        source = "{% for m in messages %}{{ m.content + eos_token + ' -- \n' }}{% endfor %}"
        encoder = encoder_of(chatml_tokenizer, source)
        encoded = encode(encoder, pair())
        assert text_of(encoder, encoded.prompt_ids) == "Name a noble gas.<|im_end|> -- \n"
        assert text_of(encoder, encoded.chosen_ids) == "Neon.<|im_end|>"
