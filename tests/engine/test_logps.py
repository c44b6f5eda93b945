"""The head in chunks, compared with all logits at once."""

import pytest
import torch
from torch.nn import functional
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

from dpo.engine import logps as module
from dpo.engine.logps import Completions, LogitTransform, Scored, completion_loss, groups_of_pairs, score_completions

VOCABULARY, WIDTH = 50, 8
LENGTHS = [3, 2, 4, 1, 6, 5, 1, 1]
TRANSFORMS = [LogitTransform(), LogitTransform(scale=0.4), LogitTransform(softcap=1.5), LogitTransform(0.4, 1.5)]


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "hidden": torch.randn(sum(LENGTHS), WIDTH, requires_grad=True),
        "weight": torch.randn(VOCABULARY, WIDTH, requires_grad=True),
        "bias": torch.randn(VOCABULARY, requires_grad=True),
        "targets": torch.randint(VOCABULARY, (sum(LENGTHS),)),
    }


def all_logps(hidden, weight, bias, transform) -> torch.Tensor:
    logits = functional.linear(hidden, weight, bias) * transform.scale
    if transform.softcap is not None:
        logits = transform.softcap * torch.tanh(logits / transform.softcap)
    return logits.log_softmax(dim=1)


def all_at_once(hidden, weight, bias, targets, transform) -> torch.Tensor:
    per_token = all_logps(hidden, weight, bias, transform).gather(1, targets[:, None])[:, 0]
    return torch.stack([part.sum() for part in torch.split(per_token, LENGTHS)])


def completions_of(tensors, **more) -> Completions:
    return Completions(targets=tensors["targets"], lengths=LENGTHS, **more)


def pair_loss(scored: Scored, pairs: slice) -> torch.Tensor:
    """Give each pair another weight, so that swapped pairs change the sum."""
    chosen, rejected = scored.logps.view(-1, 2).unbind(dim=1)
    return (torch.arange(1.0, 5.0)[pairs] * -functional.logsigmoid(0.1 * (chosen - 0.7 * rejected))).sum()


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
@pytest.mark.parametrize("chunk_tokens", [1, 4, 8, 100])
def test_loss_and_gradients_are_those_of_all_logits_at_once(tensors, transform, chunk_tokens, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk_tokens * VOCABULARY)
    inputs = [tensors[name] for name in ("hidden", "weight", "bias")]
    loss, scored = completion_loss(*inputs, completions_of(tensors), transform, pair_loss)
    found = torch.autograd.grad(3 * loss, inputs)
    plain = all_at_once(*inputs, tensors["targets"], transform)
    expected_loss = pair_loss(Scored(plain), slice(0, 4))
    expected = torch.autograd.grad(3 * expected_loss, inputs)
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(scored.logps, plain)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(score_completions(*inputs, completions_of(tensors), transform).logps, plain)


@pytest.mark.parametrize("chunk_tokens", [4, 8, 100])
def test_a_loss_that_compares_pairs_is_given_them_all(tensors, chunk_tokens, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk_tokens * VOCABULARY)

    def first_against_last(scored: Scored, pairs: slice) -> torch.Tensor:
        assert pairs == slice(0, 4)
        return torch.sigmoid(0.1 * scored.logps[0] * scored.logps[-1])

    inputs = [tensors[name] for name in ("hidden", "weight", "bias")]
    loss, _ = completion_loss(
        *inputs, completions_of(tensors), LogitTransform(), first_against_last, compares_pairs=True
    )
    expected = first_against_last(Scored(all_at_once(*inputs, tensors["targets"], LogitTransform())), slice(0, 4))
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
@pytest.mark.parametrize("chunk_tokens", [4, 100])
def test_weights_and_confidences_are_those_of_all_logits_at_once(tensors, transform, chunk_tokens, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk_tokens * VOCABULARY)
    hidden, weight, bias, targets = (tensors[name] for name in ("hidden", "weight", "bias", "targets"))
    weights = torch.rand(len(targets))
    logps = all_logps(hidden, weight, bias, transform)
    of_targets = logps.gather(1, targets[:, None])[:, 0]
    sums = torch.stack([part.sum() for part in (weights * of_targets).split(LENGTHS)])
    aligned = of_targets - logps.exp().square().sum(dim=1).log()
    confidences = torch.stack([part.mean().exp() for part in aligned.split(LENGTHS)])

    def weighted_loss(scored: Scored, pairs: slice) -> torch.Tensor:
        return (scored.confidences.detach() * scored.logps).sum()

    completions = completions_of(tensors, token_weights=weights, wants_confidences=True)
    loss, scored = completion_loss(hidden, weight, bias, completions, transform, weighted_loss)
    expected = (confidences.detach() * sums).sum()
    torch.testing.assert_close(loss, expected)
    for found in (scored, score_completions(hidden, weight, bias, completions, transform)):
        torch.testing.assert_close(found.logps, sums)
        torch.testing.assert_close(found.confidences, confidences)
    inputs = (hidden, weight, bias)
    for mine, other in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_a_frozen_head_without_bias_gets_no_gradient(tensors):
    hidden, weight = tensors["hidden"], tensors["weight"].detach()
    loss, _ = completion_loss(hidden, weight, None, completions_of(tensors), LogitTransform(), pair_loss)
    loss.backward()
    assert hidden.grad is not None and weight.grad is None


def test_no_logits_outlive_their_chunk(tensors, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_LOGITS", 4 * VOCABULARY)
    sizes = []
    original = module.Head.score

    def score(self, hidden, targets):
        sizes.append(len(targets))
        return original(self, hidden, targets)

    monkeypatch.setattr(module.Head, "score", score)
    inputs = [tensors[name] for name in ("hidden", "weight", "bias")]
    loss, _ = completion_loss(*inputs, completions_of(tensors), LogitTransform(), pair_loss)
    assert max(sizes) == 4, "the pair of 11 tokens is split into 4, 4 and 3"
    saved = [value for value in vars(loss.grad_fn.gradients).values() if isinstance(value, torch.Tensor)]
    assert {tuple(tensor.shape) for tensor in saved} == {(sum(LENGTHS), WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,)}


def test_under_autocast_the_products_are_bfloat16_and_the_sums_float32(tensors):
    inputs = [tensors[name] for name in ("hidden", "weight", "bias")]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, (logps, _) = completion_loss(*inputs, completions_of(tensors), LogitTransform(), pair_loss)
        expected = all_at_once(*inputs, tensors["targets"], LogitTransform())
    assert logps.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(logps, expected.float(), rtol=2e-2, atol=2e-2)
    loss.backward()
    assert tensors["weight"].grad.dtype == torch.float32


def test_pairs_are_grouped_up_to_a_chunk():
    lengths = [3, 2, 4, 1, 9, 9]
    assert list(groups_of_pairs(lengths, 10)) == [(slice(0, 2), slice(0, 10)), (slice(2, 3), slice(10, 28))]
    assert list(groups_of_pairs([1, 1], 100)) == [(slice(0, 1), slice(0, 2))]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(), LogitTransform()),
        (Gemma2Config(final_logit_softcapping=30.0), LogitTransform(softcap=30.0)),
        (CohereConfig(logit_scale=0.0625), LogitTransform(scale=0.0625)),
        (GraniteConfig(logits_scaling=8.0), LogitTransform(scale=0.125)),
    ],
    ids=["llama", "gemma2", "cohere", "granite"],
)
def test_what_follows_the_head_is_read_from_the_configuration(config, expected):
    assert LogitTransform.of(config) == expected
