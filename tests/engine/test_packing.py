"""What a pack contains, and that its pairs can be recovered from it."""

import pytest
import torch

from dpo.engine.packing import Pack, pack_pairs

PAIRS = [
    {"prompt_ids": [11, 12, 13], "chosen_ids": [21, 22], "rejected_ids": [31, 32, 33]},
    {"prompt_ids": [41], "chosen_ids": [51], "rejected_ids": [61]},
]


@pytest.fixture
def pack() -> Pack:
    return pack_pairs(PAIRS, [7, 3])


def test_a_pack_contains_each_prompt_once(pack):
    assert pack.rows == (7, 3)
    assert pack.input_ids.tolist() == [[11, 12, 13, 21, 22, 31, 32, 33, 41, 51, 61]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 1]]
    assert pack.num_tokens == 11
    assert pack.num_tokens_unshared == 15


def test_both_completions_are_predicted_from_the_end_of_the_prompt(pack):
    #                                  c0 c1 r0 r1 r2 | c0 r0
    assert pack.logit_index.tolist() == [2, 3, 2, 5, 6, 8, 8]
    assert pack.targets.tolist() == [21, 22, 31, 32, 33, 51, 61]
    assert pack.completion_lengths == [2, 3, 1, 1]


def test_the_pairs_of_a_pack_can_be_recovered(pack):
    tokens = pack.input_ids[0].tolist()
    found, start = [], 0
    for lengths in pack.layout.lengths:
        parts = []
        for length in lengths:
            parts.append(tokens[start : start + length])
            start += length
        found.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), parts, strict=True)))
    assert found == PAIRS
    assert start == pack.num_tokens


def test_the_varlen_layout_has_two_sequences_per_pair(pack):
    varlen = pack.layout.varlen
    assert varlen.cu_seqlens_q.tolist() == [0, 5, 8, 10, 11]
    assert varlen.cu_seqlens_k.tolist() == [0, 5, 11, 13, 15]
    assert varlen.key_index.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 5, 6, 7, 8, 9, 8, 10]
    assert (varlen.max_seqlen_q, varlen.max_seqlen_k) == (5, 6)
    assert varlen.cu_seqlens_q.dtype == torch.int32


def test_a_missing_rejected_answer_takes_no_tokens():
    answers = pack_pairs([{"prompt_ids": [11, 12], "chosen_ids": [21, 22], "rejected_ids": []}, PAIRS[1]], [0, 1])
    assert answers.input_ids.tolist() == [[11, 12, 21, 22, 41, 51, 61]]
    assert answers.logit_index.tolist() == [1, 2, 4, 4]
    assert answers.targets.tolist() == [21, 22, 51, 61]
    assert answers.completion_lengths == [2, 0, 1, 1]
    assert answers.layout.segments == [4, 2, 1]
    assert answers.layout.varlen.cu_seqlens_q.tolist() == [0, 4, 6, 7]
    assert answers.layout.varlen.cu_seqlens_k.tolist() == [0, 4, 6, 8]
    assert answers.layout.varlen.key_index.tolist() == [0, 1, 2, 3, 4, 5, 4, 6]


def test_each_token_knows_its_pair_part_and_position(pack):
    pair, part, position = pack.layout.token_parts
    assert pair.tolist() == [0] * 8 + [1] * 3
    assert part.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 0, 1, 2]
    assert position.tolist() == pack.position_ids[0].tolist()


def test_a_pack_moves_with_its_layout_and_its_reference():
    pack = pack_pairs(PAIRS, [0, 1], reference_logps=torch.arange(4.0)).to(torch.device("meta"))
    for tensor in (pack.input_ids, pack.logit_index, pack.reference_logps, pack.layout.varlen.key_index):
        assert tensor.device.type == "meta"
