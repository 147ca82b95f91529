"""Against the reference implementations, built tiny and random, with the same weights and the same draws."""

import pytest
import torch
from torch import Tensor, nn

from sonorant.core.types import Features
from sonorant.nn.quantize.finite_scalar import FiniteScalar
from sonorant.nn.quantize.gumbel import GumbelCodebook
from sonorant.nn.quantize.lookup_free import LookupFree
from sonorant.nn.quantize.quantizer import FrameSeeds, Quantizer
from sonorant.nn.quantize.random_projection import RandomProjection
from sonorant.nn.quantize.residual import Residual
from sonorant.nn.quantize.vq import VectorCodebook

DIM, LENGTHS = 6, torch.tensor([40, 25, 31])


def batch(seed: int, dim: int = DIM) -> Tensor:
    return torch.randn(3, 40, dim, generator=torch.Generator().manual_seed(seed))


def reference_vq(**options: object) -> nn.Module:
    package = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    return package.VectorQuantize(
        dim=DIM, codebook_size=20, decay=0.9, rotation_trick=False, threshold_ema_dead_code=0, **options
    )


def with_weights_of(reference: nn.Module, **options: object) -> VectorCodebook:
    codebook = VectorCodebook(DIM, 20, decay=0.9, **options)  # type: ignore[arg-type]
    inner = reference._codebook
    codebook.weight.copy_(inner.embed[0])  # type: ignore[index, union-attr]
    codebook.sums.copy_(inner.embed_avg[0])  # type: ignore[index, union-attr]
    return codebook.train()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_moving_averages_of_vq_over_many_steps(metric: str) -> None:
    reference = reference_vq(use_cosine_sim=metric == "cosine", commitment_weight=0.7).train()
    ours = Quantizer(with_weights_of(reference, metric=metric, commitment=0.7))
    for step in range(6):
        values = batch(step).requires_grad_()
        theirs_in = values.detach().clone().requires_grad_()
        found = ours(values, LENGTHS)
        # Their loss over a masked batch compares with frames before the normalisation, so cosine goes without padding.
        quantised, ids, loss = reference(theirs_in, lens=LENGTHS)
        for item, length in enumerate(LENGTHS.tolist()):
            assert torch.equal(found.ids[item, 0, :length], ids[item, :length])
            torch.testing.assert_close(found.values[item, :length], quantised[item, :length], atol=1e-5, rtol=1e-5)
        if metric == "euclidean":
            torch.testing.assert_close(found.penalty, loss.squeeze(), atol=1e-6, rtol=1e-5)
            weights = torch.zeros_like(found.values)
            for item, length in enumerate(LENGTHS.tolist()):
                weights[item, :length] = batch(50 + step)[item, :length]
            ((found.values * weights).sum() + found.penalty).backward()
            ((quantised * weights).sum() + loss.squeeze()).backward()
            torch.testing.assert_close(values.grad, theirs_in.grad, atol=1e-6, rtol=1e-5)
        codebook, inner = ours.codebook, reference._codebook
        torch.testing.assert_close(codebook.counts, inner.cluster_size[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(codebook.weight, inner.embed[0], atol=1e-5, rtol=1e-5)


def test_cosine_penalty_without_padding() -> None:
    reference = reference_vq(use_cosine_sim=True).train()
    ours = Quantizer(with_weights_of(reference, metric="cosine"))
    loss = reference(batch(3).requires_grad_())[2]
    torch.testing.assert_close(ours(batch(3), torch.tensor([40] * 3)).penalty, loss.squeeze(), atol=1e-6, rtol=1e-5)


def test_residual_levels() -> None:
    package = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(1)
    reference = package.ResidualVQ(
        dim=DIM, num_quantizers=3, codebook_size=20, decay=0.9, rotation_trick=False, threshold_ema_dead_code=0
    ).train()
    ours = Quantizer(Residual([with_weights_of(layer) for layer in reference.layers])).train()
    whole = torch.tensor([40] * 3)
    for step in range(4):
        found = ours(batch(step), whole)
        quantised, ids, losses = reference(batch(step).requires_grad_())
        assert torch.equal(found.ids, ids.transpose(1, 2))
        torch.testing.assert_close(found.values, quantised, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.penalty, losses.mean(), atol=1e-6, rtol=1e-5)
    decoded = ours.eval().decode(ours.encode(Features(batch(9), whole, 50.0)))
    reference.eval()
    _, ids, _ = reference(batch(9))
    torch.testing.assert_close(decoded.values, reference.get_output_from_indices(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (7, 5, 5, 5, 5), (4, 3)])
def test_finite_scalars(levels: tuple[int, ...]) -> None:
    package = pytest.importorskip("vector_quantize_pytorch")
    reference, ours = package.FSQ(list(levels)), Quantizer(FiniteScalar(levels))
    values = (2 * batch(0, len(levels))).requires_grad_()
    theirs_in = values.detach().clone().requires_grad_()
    found = ours(values, torch.tensor([40] * 3))
    quantised, ids = reference(theirs_in)
    assert torch.equal(found.ids[:, 0], ids.long())
    torch.testing.assert_close(found.values, quantised)
    weights = batch(1, len(levels))
    (found.values * weights).sum().backward()
    (quantised * weights).sum().backward()
    torch.testing.assert_close(values.grad, theirs_in.grad)
    every = torch.arange(reference.codebook_size)
    torch.testing.assert_close(ours.part.vectors(every[:, None]), reference.indices_to_codes(every))


def test_lookup_free() -> None:
    package = pytest.importorskip("vector_quantize_pytorch")
    options = {"entropy_loss_weight": 0.3, "commitment_loss_weight": 0.5, "diversity_gamma": 1.7}
    reference = package.LFQ(dim=DIM, codebook_size=2**DIM, **options).train()
    codebook = LookupFree(DIM, entropy_weight=0.3, commitment=0.5, diversity=1.7, inverse_temperature=3.0)
    values = (0.5 * batch(2)).requires_grad_()
    theirs_in = values.detach().clone().requires_grad_()
    found = Quantizer(codebook).train()(values, torch.tensor([40] * 3))
    quantised, ids, loss = reference(theirs_in, inv_temperature=3.0)
    assert torch.equal(found.ids[:, 0], ids.long())
    torch.testing.assert_close(found.values, quantised)
    # Their logarithm is cut off at 1e-5, which shifts the entropies by less than that times the number of codes.
    torch.testing.assert_close(found.penalty, loss, atol=1e-3, rtol=1e-3)
    found.penalty.backward()
    loss.backward()
    torch.testing.assert_close(values.grad, theirs_in.grad, atol=1e-4, rtol=2e-2)


def test_random_projection() -> None:
    package = pytest.importorskip("vector_quantize_pytorch")
    reference = package.RandomProjectionQuantizer(
        dim=12, codebook_dim=4, codebook_size=32, norm=False, rotation_trick=False
    )
    ours = RandomProjection(12, 32, 4)
    ours.projections.copy_(reference.rand_projs.transpose(1, 2))
    ours.codes.copy_(reference.vq._codebook.embed)
    values = batch(4, 12)
    assert torch.equal(ours.ids(values.flatten(0, 1)), reference(values).flatten()[:, None])


@pytest.mark.parametrize("training", [False, True])
def test_gumbel_equals_transformers(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from transformers import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

    config = Wav2Vec2Config(
        conv_dim=(DIM,), conv_stride=(2,), conv_kernel=(2,), num_codevectors_per_group=7, num_codevector_groups=2,
        codevector_dim=8,
    )  # fmt: skip
    torch.manual_seed(2)
    reference = Wav2Vec2GumbelVectorQuantizer(config).train(training)
    nn.init.normal_(reference.codevectors)
    reference.temperature = 1.3
    ours = GumbelCodebook(DIM, 7, 2, code_dim=8, diversity=1.0).train(training)
    ours.temperature = 1.3
    ours.entries.data.copy_(reference.codevectors.data.view(2, 7, 4))
    ours.logits[0].load_state_dict(reference.weight_proj.state_dict())
    frames = batch(5)[:1].clone()
    noise = -torch.empty(40, 2, 7).exponential_(generator=torch.Generator().manual_seed(8)).log()
    # Their noise is drawn by torch's gumbel_softmax; the same draws go in on both sides.
    monkeypatch.setattr(
        torch.Tensor, "exponential_", lambda self, generator=None: self.copy_((-noise).exp().view(-1, 7))
    )
    mine, theirs = frames.clone().requires_grad_(), frames.clone().requires_grad_()
    if training:
        found = ours.choose(ours._logits(mine[0]), noise)
    else:
        found = ours(mine[0], FrameSeeds(*torch.zeros(2, 40, dtype=torch.long)))
    quantised, total_perplexity = reference(theirs)
    torch.testing.assert_close(found.values, quantised[0])
    if training:
        torch.testing.assert_close(found.penalty, 1 - total_perplexity / 14)
        weights = torch.randn(40, 8, generator=torch.Generator().manual_seed(9))
        ((found.values * weights).sum() - found.penalty).backward()
        ((quantised[0] * weights).sum() - (1 - total_perplexity / 14)).backward()
        torch.testing.assert_close(mine.grad, theirs.grad)
        torch.testing.assert_close(ours.entries.grad, reference.codevectors.grad.view(2, 7, 4))
        torch.testing.assert_close(ours.logits[0].weight.grad, reference.weight_proj.weight.grad)
    else:
        usage = Quantizer(ours)(frames, torch.tensor([40])).usage.sum()
        torch.testing.assert_close(usage, total_perplexity)
