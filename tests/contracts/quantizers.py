"""The contract battery of quantisers: what every entry of the catalogue must keep.

A third party runs it on its own: `check_quantizer(lambda: Quantizer(MyCodebook(...)))`.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sonorant.core.types import Codes, Features
from sonorant.nn.quantize.quantizer import Quantizer

__all__ = ["check_quantizer"]

Build = Callable[[], Quantizer]
LENGTHS = (23, 37, 5, 0, 30)


def _batch(dim: int, lengths: Sequence[int], extra: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.zeros(len(lengths), max(lengths) + extra, dim)
    for item, length in enumerate(lengths):
        values[item, :length] = torch.randn(length, dim, generator=generator)
    return values, torch.tensor(lengths)


def _with_garbage(values: Tensor, lengths: Tensor) -> Tensor:
    values = values.clone()
    for item, length in enumerate(lengths.tolist()):
        values[item, length:] = torch.tensor([float("nan"), float("inf"), -1e30, 7.0])[item % 4]
    return values


def _made(build: Build, train: bool = False) -> Quantizer:
    """The same one each time, after one batch of training, so that what starts with the data has started."""
    torch.manual_seed(0)
    quantizer = build().train()
    values, lengths = _batch(quantizer.dim, (60, 70), seed=9)
    quantizer(values, lengths, torch.tensor([3, 4]))
    return quantizer.train(train)


def _check_shapes(build: Build) -> None:
    for train in (False, True):
        quantizer = _made(build, train)
        values, lengths = _batch(quantizer.dim, LENGTHS, extra=3)
        found = quantizer(values, lengths)
        batch, frames = values.shape[:2]
        sizes = quantizer.codebook_sizes
        assert found.values.shape == (batch, frames, quantizer.output_dim)
        assert found.ids.shape == (batch, len(sizes), frames)
        assert found.ids.dtype == torch.int64
        assert found.penalty.shape == ()
        assert found.penalty.isfinite()
        assert found.usage.shape == (len(sizes),)
        for book, size in enumerate(sizes):
            assert found.ids[:, book].max() < size
            assert found.ids[:, book].min() >= (-1 if train else 0)
            assert 0.999 <= found.usage[book] <= size + 1e-3
        for item, length in enumerate(lengths.tolist()):
            assert not found.values[item, length:].any(), "values in the padding must be zero"
            assert not found.ids[item, :, length:].any(), "indices in the padding must be zero"


def _check_empty(build: Build) -> None:
    for train in (False, True):
        quantizer = _made(build, train)
        before = copy.deepcopy(quantizer.state_dict())
        found = quantizer(torch.full((2, 4, quantizer.dim), float("nan")), torch.tensor([0, 0]))
        assert float(found.penalty.detach()) == 0
        assert not found.values.any()
        for name, value in quantizer.state_dict().items():
            assert value.isfinite().all(), f"a batch without frames spoils {name}"
            if before[name].dtype == torch.bool:
                assert torch.equal(before[name], value)


def _check_batch_invariance(build: Build) -> None:
    quantizer = _made(build)
    values, lengths = _batch(quantizer.dim, LENGTHS, extra=4)
    whole = quantizer(values, lengths)
    for item, length in enumerate(LENGTHS):
        alone = quantizer(values[item : item + 1, :length], lengths[item : item + 1])
        assert torch.equal(alone.ids[0], whole.ids[item, :, :length]), f"indices of item {item} depend on its batch"
        torch.testing.assert_close(alone.values[0], whole.values[item, :length], atol=1e-5, rtol=0)


def _check_padding(build: Build) -> None:
    """What stands in the padding, and how much of it there is, moves nothing: values, penalty, usage, statistics."""
    seeds = torch.arange(len(LENGTHS))
    for train in (False, True):
        results, states = [], []
        for extra, dirty in ((0, False), (6, True)):
            quantizer = _made(build, train)
            values, lengths = _batch(quantizer.dim, LENGTHS, extra)
            values = (_with_garbage(values, lengths) if dirty else values).requires_grad_()
            found = quantizer(values, lengths, seeds)
            if (found.values.sum() + found.penalty).requires_grad:
                (found.values.sum() + found.penalty).backward()
                assert values.grad is not None
                assert values.grad.isfinite().all(), "padding reaches the gradient"
            results.append(found)
            states.append(quantizer.state_dict())
        clean, padded = results
        assert torch.equal(clean.values, padded.values[:, : max(LENGTHS)])
        assert torch.equal(clean.ids, padded.ids[:, :, : max(LENGTHS)])
        assert torch.equal(clean.penalty, padded.penalty)
        assert torch.equal(clean.usage, padded.usage)
        for name, value in states[0].items():
            assert torch.equal(value, states[1][name]), f"padding reaches {name}"


def _check_seeds(build: Build) -> None:
    """An item draws the same wherever it stands."""
    quantizer = _made(build, train=True)
    state = copy.deepcopy(quantizer.state_dict())
    values, lengths = _batch(quantizer.dim, (20, 31))
    seeds = torch.tensor([5, 6])
    first = quantizer(values, lengths, seeds)
    quantizer.load_state_dict(state)
    turned = quantizer(values.flip(0), lengths.flip(0), seeds.flip(0))
    assert torch.equal(first.ids, turned.ids.flip(0))


def _check_gradients(build: Build, straight: bool) -> None:
    quantizer = _made(build, train=True)
    values, lengths = _batch(quantizer.dim, LENGTHS)
    values.requires_grad_()
    found = quantizer(values, lengths, torch.arange(len(LENGTHS)))
    weights = torch.randn(found.values.shape, generator=torch.Generator().manual_seed(1))
    trained = dict(quantizer.named_parameters())
    if not found.values.requires_grad:
        assert not trained, "a quantiser with parameters must have a gradient"
        return
    (found.values * weights).sum().backward(retain_graph=True)
    assert values.grad is not None
    if straight:
        mask = found.values.detach().new_zeros(values.shape[:2])
        for item, length in enumerate(LENGTHS):
            mask[item, :length] = 1
        expected = weights * mask[..., None]
        torch.testing.assert_close(values.grad, expected, msg="gradients must pass straight through")
    assert values.grad.abs().sum() > 0
    (found.penalty + 0 * found.values.sum()).backward()
    for name, parameter in trained.items():
        assert parameter.grad is not None, f"no gradient reaches {name}"
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0, f"the gradient of {name} is zero"


def _features(quantizer: Quantizer, extra: int = 0) -> Features:
    return Features(*_batch(quantizer.dim, LENGTHS, extra), 50.0)


def _check_codes(build: Build, idempotent: bool) -> None:
    quantizer = _made(build)
    features = _features(quantizer, extra=2)
    codes = quantizer.encode(features)
    found = quantizer(features.values, features.lengths)
    assert isinstance(codes, Codes)
    assert codes.frame_rate == features.frame_rate
    assert codes.codebook_sizes == quantizer.codebook_sizes
    assert torch.equal(codes.ids, found.ids), "encode and forward must agree"
    decoded = quantizer.decode(codes)
    torch.testing.assert_close(decoded.values, found.values, atol=1e-5, rtol=1e-5)
    quantizer.train()
    assert torch.equal(quantizer.encode(features).ids, codes.ids), "encode must not draw or update"
    if idempotent:
        assert torch.equal(quantizer.encode(decoded).ids, codes.ids), "encode(decode(codes)) must be codes"


def _check_state_dict(build: Build) -> None:
    first = _made(build)
    torch.manual_seed(5)
    second = build().eval()
    second.load_state_dict(first.state_dict())
    features = _features(first)
    assert torch.equal(first.encode(features).ids, second.encode(features).ids)
    found, again = (q(features.values, features.lengths) for q in (first, second))
    assert torch.equal(found.values, again.values)


def _check_low_precision(build: Build) -> None:
    for train in (False, True):
        quantizer = _made(build, train)
        values, lengths = _batch(quantizer.dim, LENGTHS)
        found = quantizer(values.to(torch.bfloat16), lengths, torch.arange(len(LENGTHS)))
        assert found.values.dtype == torch.bfloat16
        assert found.penalty.dtype == torch.float32
        exact = _made(build, train)(values.to(torch.bfloat16).float(), lengths, torch.arange(len(LENGTHS)))
        assert torch.equal(found.ids, exact.ids), "products must be taken in float32"
        with torch.autocast("cpu", torch.bfloat16):
            mixed = _made(build, train)(values.to(torch.bfloat16), lengths, torch.arange(len(LENGTHS)))
        assert torch.equal(mixed.ids, exact.ids), "autocast must not reach the search"


def check_quantizer(build: Build, *, straight: bool = True, idempotent: bool = True) -> None:
    """Everything that the toolkit promises of a quantiser.

    Args:
        build: makes it, with random weights.
        straight: whether the gradient of the values is that of the frames, unchanged.
        idempotent: whether what was decoded is encoded to the same codes again.
    """
    _check_shapes(build)
    _check_empty(build)
    _check_batch_invariance(build)
    _check_padding(build)
    _check_seeds(build)
    _check_gradients(build, straight)
    _check_codes(build, idempotent)
    _check_state_dict(build)
    _check_low_precision(build)
