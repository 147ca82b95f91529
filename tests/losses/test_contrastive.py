"""Contrastive losses: by hand, against the reference, and blind to padding, neighbours and order."""

import math

import pytest
import torch
from torch import Tensor

from sonorant.core.seed import item_seeds
from sonorant.losses.contrastive import (
    contrastive_logits,
    future_bce,
    future_info_nce,
    future_logits,
    future_mask,
    info_nce,
    negatives_across,
    negatives_within,
)

SEEDS = item_seeds(0, 0, ["a", "b", "c", "d"])
COUNTS = torch.tensor([9, 4, 1, 6])


def test_others_of_an_item_are_never_itself_and_all_others_alike() -> None:
    drawn = negatives_within(SEEDS, COUNTS, 9, 4000)
    for item in (0, 1, 3):
        size = int(COUNTS[item])
        for place in range(size):
            counts = torch.bincount(drawn[item, place], minlength=size).float() / 4000
            assert counts[place] == 0
            others = torch.cat([counts[:place], counts[place + 1 :]])
            torch.testing.assert_close(others, torch.full_like(others, 1 / (size - 1)), atol=0.04, rtol=0)
        alone = negatives_within(SEEDS[item : item + 1], COUNTS[item : item + 1], size, 4000)
        assert torch.equal(alone[0], drawn[item, :size])


def test_others_across_items_do_not_depend_on_their_order() -> None:
    drawn = negatives_across(SEEDS, COUNTS, 9, 3000)
    valid = {item * 9 + place for item, count in enumerate(COUNTS.tolist()) for place in range(count)}
    for item, count in enumerate(COUNTS.tolist()):
        for place in range(count):
            found = set(drawn[item, place].tolist())
            assert found == valid - {item * 9 + place}
    order = torch.tensor([2, 0, 3, 1])
    turned = negatives_across(SEEDS[order], COUNTS[order], 9, 3000)
    back = order[turned // 9] * 9 + turned % 9
    for position, item in enumerate(order.tolist()):
        size = int(COUNTS[item])
        assert torch.equal(back[position, :size], drawn[item, :size])
    nothing = negatives_across(SEEDS[:1], torch.tensor([0]), 3, 2)
    assert nothing.shape == (1, 3, 2)


def by_hand(prediction: Tensor, targets: Tensor, place: int, negatives: list[int], temperature: float) -> float:
    def similarity(other: int) -> float:
        cosine = torch.dot(prediction, targets[other]) / (prediction.norm() * targets[other].norm())
        return math.exp(float(cosine) / temperature)

    right = similarity(place)
    return -math.log(right / (right + sum(similarity(other) for other in negatives)))


def test_equals_the_formula_and_ignores_padding() -> None:
    torch.manual_seed(0)
    predictions, targets = torch.randn(4, 9, 5), torch.randn(4, 9, 5)
    negatives = negatives_within(SEEDS, COUNTS, 9, 7)
    loss = info_nce(contrastive_logits(predictions, targets, negatives, temperature=0.2), COUNTS)
    expected = 0.0
    for item in (0, 1, 3):  # item 2 has nothing to choose from
        for place in range(int(COUNTS[item])):
            row = negatives[item, place].tolist()
            expected += by_hand(predictions[item, place], targets[item], place, row, 0.2)
    assert float(loss.total) == pytest.approx(expected, rel=1e-5)
    assert int(loss.count) == 9 + 4 + 6
    dirty = predictions.clone()
    dirty[1, 4:] = math.nan
    dirty[2] = math.nan
    dirty.requires_grad_()
    other = info_nce(contrastive_logits(dirty, targets, negatives, temperature=0.2), COUNTS)
    assert torch.equal(other.total, loss.total)
    other.total.backward()
    assert dirty.grad is not None
    assert dirty.grad[0].isfinite().all()


def test_a_negative_like_the_positive_is_no_wrong_answer() -> None:
    targets = torch.eye(3)[None]
    codes = torch.tensor([[5, 5, 7]])
    negatives = torch.tensor([[[1, 2], [0, 2], [0, 1]]])
    predictions = torch.randn(1, 3, 3)
    logits = contrastive_logits(predictions, targets, negatives, codes=codes)
    assert torch.isinf(logits[0, 0, 1])
    assert torch.isinf(logits[0, 1, 1])
    assert logits[0, 2].isfinite().all()
    # All alike: the choice is made for the model, and the loss is 0 with a gradient of 0.
    predictions.requires_grad_()
    loss = info_nce(
        contrastive_logits(predictions, targets, negatives, codes=torch.zeros_like(codes)), torch.tensor([3])
    )
    loss.total.backward()
    assert float(loss.total.detach()) == 0
    assert predictions.grad is not None
    assert not predictions.grad.any()


def test_negatives_of_the_same_cluster_weigh_less() -> None:
    torch.manual_seed(1)
    predictions, targets = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    negatives = negatives_within(SEEDS[:1], torch.tensor([4]), 4, 5)
    clusters = torch.tensor([[0, 0, 1, 1]])
    plain = contrastive_logits(predictions, targets, negatives)
    scaled = contrastive_logits(predictions, targets, negatives, clusters=clusters, cluster_scale=0.3)
    same = clusters[0][negatives[0]] == clusters[0][:, None]
    torch.testing.assert_close(scaled[0, :, 1:][same], 0.3 * plain[0, :, 1:][same])
    assert torch.equal(scaled[0, :, 1:][~same], plain[0, :, 1:][~same])
    assert torch.equal(scaled[..., 0], plain[..., 0])


def test_chance_is_the_logarithm_of_the_number_of_choices() -> None:
    torch.manual_seed(0)
    negatives = negatives_within(SEEDS[:1], torch.tensor([200]), 200, 15)
    loss = info_nce(
        contrastive_logits(torch.randn(1, 200, 4000), torch.randn(1, 200, 4000), negatives, temperature=1.0),
        torch.tensor([200]),
    )
    assert float(loss.mean) == pytest.approx(math.log(16), abs=0.01)
    assert float(loss.parts["correct"]) / 200 == pytest.approx(1 / 16, abs=0.05)


def test_equals_the_reference_on_its_own_mask_and_negatives() -> None:
    transformers = pytest.importorskip("transformers")
    modeling = pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")
    import numpy as np

    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(16,) * 7,
        codevector_dim=16, proj_codevector_dim=16, num_codevectors_per_group=6, num_negatives=11,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = transformers.Wav2Vec2ForPreTraining(config).eval()
    np.random.seed(0)  # noqa: NPY002  the reference draws from the old global generator
    frames = int(model._get_feat_extract_output_lengths(torch.tensor(16000)))
    mask = modeling._compute_mask_indices((3, frames), 0.3, 4, min_masks=2)
    flat = torch.from_numpy(modeling._sample_negative_indices((3, frames), 11, mask)).long()
    audio = torch.randn(3, 16000)
    mask = torch.from_numpy(mask)
    with torch.no_grad():
        out = model(audio, mask_time_indices=mask, sampled_negative_indices=flat)
    counts = mask.sum(1)
    order = (~mask).int().argsort(dim=1, stable=True)[:, : int(counts.max())]
    rank = torch.zeros_like(mask, dtype=torch.long).scatter(1, order, torch.arange(order.shape[1]).expand_as(order))
    pick = order[..., None].expand(-1, -1, 16)
    local = flat - torch.arange(3)[:, None, None] * frames
    negatives = torch.stack([rank[i][local[i][order[i]]] for i in range(3)])
    quantised = out.projected_quantized_states
    _, codes = torch.unique(quantised.flatten(0, 1), dim=0, return_inverse=True)
    logits = contrastive_logits(
        out.projected_states.gather(1, pick),
        quantised.gather(1, pick),
        negatives,
        temperature=config.contrastive_logits_temperature,
        codes=codes.view(3, frames).gather(1, order),
    )
    assert torch.isinf(logits).any(), "the codebook is small, so that some negatives equal the positive"
    loss = info_nce(logits, counts)
    torch.testing.assert_close(loss.total, out.contrastive_loss, rtol=1e-5, atol=1e-4)
    assert int(loss.count) == int(counts.sum())


# --- steps ahead ----------------------------------------------------------------------------------------------------


def fairseq_predictions(steps: Tensor, targets: Tensor, negatives: Tensor, offset: int) -> Tensor:
    """Wav2VecPredictionsModel's loop, written after its code: (…, choice) rows of all steps, one item."""
    num_steps, num_frames, _ = steps.shape
    choices = torch.cat([targets[None], targets[negatives.t()]])  # (copies, frame, dim)
    rows = []
    for i in range(num_steps):
        shift = i + offset
        rows.append(torch.einsum("td,ntd->tn", steps[i, : num_frames - shift], choices[:, shift:]))
    return torch.cat(rows)


def test_steps_ahead_equal_the_reference_loop() -> None:
    torch.manual_seed(0)
    steps, targets = torch.randn(1, 3, 12, 4), torch.randn(1, 12, 4)
    negatives = negatives_within(SEEDS[:1], torch.tensor([12]), 12, 5)
    for offset in (1, 2):
        logits = future_logits(steps, targets, negatives, offset)
        rows = fairseq_predictions(steps[0], targets[0], negatives[0], offset)
        labels = torch.zeros_like(rows)
        labels[:, 0] = 1
        expected = torch.nn.functional.binary_cross_entropy_with_logits(rows, labels, reduction="sum")
        loss = future_bce(logits, torch.tensor([12]), offset)
        torch.testing.assert_close(loss.total, expected)
        assert int(loss.count) == len(rows) == int(future_mask(torch.tensor([12]), 12, 3, offset).sum())
        nce = future_info_nce(logits, torch.tensor([12]), offset)
        torch.testing.assert_close(nce.total, -rows.log_softmax(-1)[:, 0].sum())


def test_steps_ahead_of_an_item_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([12, 7, 2])
    steps, targets = torch.randn(3, 4, 12, 4), torch.randn(3, 12, 4)
    flat = torch.arange(3)[:, None, None] * 12
    within = negatives_within(SEEDS[:3], lengths, 12, 5)
    for item, length in enumerate(lengths.tolist()):
        steps[item, :, length:] = math.nan
        targets[item, length:] = 3e7
    batch = future_info_nce(future_logits(steps, targets, within + flat), lengths)
    total = sum(
        future_info_nce(
            future_logits(steps[i : i + 1, :, :n], targets[i : i + 1, :n], within[i : i + 1, :n]), lengths[i : i + 1]
        ).total
        for i, n in enumerate(lengths.tolist())
    )
    torch.testing.assert_close(batch.total, total)
    assert int(batch.count) == sum(max(0, n - k) for n in lengths.tolist() for k in range(1, 5))


def test_autocast_sums_in_single_precision() -> None:
    torch.manual_seed(0)
    predictions, targets = torch.randn(2, 9, 8), torch.randn(2, 9, 8)
    negatives = negatives_within(SEEDS[:2], torch.tensor([9, 9]), 9, 5)
    exact = contrastive_logits(predictions, targets, negatives)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = contrastive_logits(predictions, targets, negatives)
    assert torch.equal(exact, mixed)
