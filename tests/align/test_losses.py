"""Losses against slow references: packed rows, chunks, masks, preferences; and TRL's own code where it is installed."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.align.losses import dpo_loss, pack_pairs, summed_log_probabilities
from highrise.align.records import Pair
from highrise.core.shape import DecoderShape
from highrise.train import cross_entropy
from highrise.train.cross_entropy import IGNORED, answer_log_probabilities, summed_cross_entropy
from highrise.train.model import Decoder
from highrise.train.step import accumulate, best_fit, fill_rows, pack_samples
from tests.reference.losses import answer_log_probability, dpo_sigmoid

VOCABULARY = 31


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(0)
    shape = DecoderShape(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        head_dim=8,
    )
    made = Decoder(shape)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def _samples(number: int, seed: int) -> list[tuple[list[int], list[bool]]]:
    draw = random.Random(seed)
    found = []
    for _ in range(number):
        length = draw.randint(3, 20)
        answer = draw.randint(1, length - 1)
        found.append(
            ([draw.randrange(VOCABULARY) for _ in range(length)], [i >= length - answer for i in range(length)])
        )
    return found


def test_packed_loss_is_the_sum_over_samples_alone(decoder: Decoder) -> None:
    samples = _samples(9, 1)
    expected = sum(answer_log_probability(decoder(torch.tensor([ids]))[0], ids, mask) for ids, mask in samples)
    total, num_targets = accumulate(
        decoder, pack_samples(samples, 24), device="cpu", precision="float32", backward=False
    )
    assert num_targets == sum(sum(mask) for _, mask in samples)
    assert total == pytest.approx(-expected, rel=1e-4)


def test_accumulation_does_not_change_the_gradient(decoder: Decoder) -> None:
    samples = _samples(8, 2)
    gradients = []
    for length in (20, 160):
        decoder.zero_grad()
        accumulate(decoder, pack_samples(samples, length), device="cpu", precision="float32")
        gradients.append([parameter.grad.clone() for parameter in decoder.parameters() if parameter.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("trained_head", [False, True])
def test_chunks_change_neither_loss_nor_gradient(trained_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    hidden = torch.randn(2, 9, 6, requires_grad=True)
    head = torch.randn(VOCABULARY, 6, requires_grad=trained_head)
    targets = torch.randint(0, VOCABULARY, (2, 9))
    targets[0, :4] = IGNORED
    expected = torch.nn.functional.cross_entropy(
        (hidden @ head.T).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    wanted = torch.autograd.grad(expected, [hidden, head] if trained_head else [hidden])
    for limit in (1, VOCABULARY * 4, 1 << 20):
        monkeypatch.setattr(cross_entropy, "_MAX_LOGITS", limit)
        loss = summed_cross_entropy(hidden, head, targets)
        torch.testing.assert_close(loss, expected)
        found = torch.autograd.grad(loss, [hidden, head] if trained_head else [hidden])
        torch.testing.assert_close(found, wanted)
    assert answer_log_probabilities(hidden, head, targets).shape == (14,)


def test_dpo_equals_the_reference(decoder: Decoder) -> None:
    sides = _samples(8, 4)
    pairs = [Pair(sides[i], sides[i + 1]) for i in range(0, 8, 2)]
    frozen = [p + 0.05 for p in range(8)]
    batches = pack_pairs(pairs, 64)
    assert sum(batch.num_pairs for batch in batches) == 4
    for batch in batches:
        policy = summed_log_probabilities(decoder, batch, device="cpu", precision="float32")
        segments = batch.batch.segments
        assert segments is not None
        for row in range(batch.num_pairs):
            expected = []
            for side in (0, 1):
                ids = batch.batch.ids[0][segments[0] == 2 * row + side].tolist()
                mask = next(mask for sample, mask in sides if sample == ids)
                expected.append(answer_log_probability(decoder(torch.tensor([ids]))[0], ids, mask))
            assert policy[row].tolist() == pytest.approx(expected, rel=1e-4)
            reference = torch.tensor([frozen[row], frozen[row + 1]])
            loss = dpo_loss(policy[row : row + 1], reference[None], beta=0.1).detach()
            assert float(loss) == pytest.approx(dpo_sigmoid(*expected, *reference.tolist(), beta=0.1), rel=1e-4)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 32), max_size=40))
def test_best_fit_loses_nothing_and_never_overflows(sizes: list[int]) -> None:
    rows = best_fit(sizes, 32)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in row) <= 32 for row in rows)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 32), max_size=120))
def test_filled_rows_lose_nothing_and_leave_little_room(sizes: list[int]) -> None:
    rows = list(fill_rows(iter(enumerate(sizes)), 32, size=lambda sample: sample[1]))
    assert sorted(index for row in rows for index, _ in row) == list(range(len(sizes)))
    assert all(sum(size for _, size in row) <= 32 for row in rows)
    if rows:  # the one that waited longest leads its row, so nobody waits for ever
        leaders = [row[0][0] for row in rows]
        assert leaders == sorted(leaders)
        assert len(rows) <= 2 * -(-sum(sizes) // 32) + 1
