"""What every module that turns waveforms into frames promises. Third parties call `check_features(TheirModule())`.

A features module is called as `module(waveform (batch, time), lengths) -> Features`, and says `sample_rate`, `dim`,
`frame_rate`, `geometry` and `output_lengths(lengths)`.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from sonorant.core.types import Features


def check_features(module: Any, *, seconds: float = 0.3, atol: float = 0.0, gradient: bool = True) -> None:
    """Runs the whole battery.

    Args:
        module: what is checked, in float32.
        seconds: length of the longest signal used.
        atol: by how much an item in a batch may differ from the item alone; bit for bit where 0.
        gradient: whether it claims to be differentiable.
    """
    module = module.eval()
    longest = round(seconds * module.sample_rate)
    check_declarations(module, longest)
    check_lengths(module, longest)
    check_batch_equals_single(module, longest, atol)
    check_silence(module, longest)
    check_shift(module, longest)
    if gradient:
        check_gradient(module, longest)


def signals(batch: int, time: int, seed: int = 0) -> Tensor:
    """Noise that grows and fades, at another level for each item."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, time, generator=generator)
    swell = 0.6 + 0.4 * torch.sin(torch.linspace(0, 9, time))
    return noise * swell * 0.1 / torch.arange(1, batch + 1)[:, None]


def check_declarations(module: Any, longest: int) -> None:
    """Width, rate and lengths are what was said, and what comes in is left alone."""
    waveform = signals(2, longest)
    kept = waveform.clone()
    lengths = torch.tensor([longest, longest // 2])
    out = module(waveform, lengths)
    assert isinstance(out, Features)
    assert out.values.shape[0] == 2
    assert out.values.shape[2] == module.dim
    assert out.values.dtype == torch.float32
    assert out.lengths.tolist() == module.output_lengths(lengths).tolist()
    assert out.values.shape[1] == int(out.lengths.max())
    assert out.frame_rate == module.frame_rate == module.geometry.frame_rate(module.sample_rate)
    assert torch.equal(waveform, kept), "the waveform was written to"
    whole = module(waveform)
    assert torch.equal(whole.values, module(waveform, torch.tensor([longest, longest])).values)
    assert torch.equal(copy.deepcopy(module).train()(waveform, lengths).values, out.values), "train() changed features"


def check_lengths(module: Any, longest: int) -> None:
    """Every length from nothing on gives exactly the frames it was said to give."""
    field, stride = module.geometry.receptive_field, module.geometry.stride
    edges = {0, 1, 2, stride - 1, stride, stride + 1, field // 2, field - 1, field, field + 1, field + stride - 1}
    for length in sorted(edges | {field + stride, longest - 1, longest}):
        out = module(signals(1, length, seed=length), torch.tensor([length]))
        said = int(module.output_lengths(torch.tensor([length])))
        assert out.values.shape == (1, said, module.dim), (
            f"{length} samples gave {out.values.shape[1]} frames, not {said}"
        )
        assert int(out.lengths) == said
        assert bool(torch.isfinite(out.values).all()), f"not finite at {length} samples"


def check_batch_equals_single(module: Any, longest: int, atol: float = 0.0) -> None:
    """An item alone = in any batch, at any place, whatever stands in the padding; padded frames are zero."""
    fields = module.geometry.receptive_field
    choices = [longest, longest // 2 + 7, fields + 1, fields, fields - 1, 1, 0, longest - 1]
    waveform = signals(len(choices), longest, seed=1)
    lengths = torch.tensor(choices)
    alone = [module(waveform[i : i + 1, :length], lengths[i : i + 1]).values[0] for i, length in enumerate(choices)]
    beyond = torch.arange(longest)[None, :] >= lengths[:, None]
    paddings = {
        "zeros": waveform.masked_fill(beyond, 0.0),
        "noise": torch.where(beyond, 30 * signals(len(choices), longest, seed=2), waveform),
        "not a number": waveform.masked_fill(beyond, float("nan")),
        "wide": torch.nn.functional.pad(waveform.masked_fill(beyond, 0.0), (0, 12345)),
    }
    for name, padded in paddings.items():
        for order in (list(range(len(choices))), list(reversed(range(len(choices))))):
            out = module(padded[order], lengths[order])
            for row, item in enumerate(order):
                count = int(out.lengths[row])
                assert count == len(alone[item])
                difference = float((out.values[row, :count] - alone[item]).abs().max()) if count else 0.0
                assert difference <= atol, f"item of {choices[item]} samples, padding {name}: differs by {difference:g}"
                assert not out.values[row, count:].any(), "frames beyond an item's end must be zero"
    same = module(waveform[:1].expand(3, -1).contiguous()).values
    assert float((same - alone[0]).abs().max()) <= atol, "three copies of an item differ from the item"


def check_silence(module: Any, longest: int) -> None:
    """Digital silence and a single click give finite features."""
    click = torch.zeros(2, longest)
    click[1, longest // 2] = 1.0
    out = module(click, torch.tensor([longest, longest])).values
    assert bool(torch.isfinite(out).all())


def check_shift(module: Any, longest: int, atol: float = 1e-3) -> None:
    """A signal that comes one hop later gives the same frames one later, away from the ends."""
    stride = module.geometry.stride
    margin = -(-module.geometry.receptive_field // stride) + 1
    waveform = signals(1, longest + stride, seed=3)
    early, late = module(waveform[:, stride:]).values[0], module(waveform[:, : longest + stride]).values[0]
    middle = slice(margin, len(early) - margin)
    assert middle.stop > middle.start, "seconds is too short for this module"
    moved = late[1 : 1 + len(early)][middle]
    assert torch.allclose(early[middle], moved, atol=atol, rtol=1e-4)


def check_gradient(module: Any, longest: int) -> None:
    """Gradients are right (against differences), finite on silence, and zero in the padding."""
    waveform = signals(2, longest, seed=4).requires_grad_()
    lengths = torch.tensor([longest, longest // 2])
    beyond = torch.arange(longest)[None, :] >= lengths[:, None]
    module(waveform.masked_fill(beyond, float("nan")), lengths).values.square().sum().backward()
    assert waveform.grad is not None
    assert bool(torch.isfinite(waveform.grad).all())
    assert bool(waveform.grad[0].any()), "no gradient reaches the waveform"
    assert not waveform.grad[1, longest // 2 :].any(), "padding must have no gradient"
    silent = torch.zeros(1, longest, requires_grad=True)
    module(silent).values.sum().backward()
    assert silent.grad is not None
    assert bool(torch.isfinite(silent.grad).all()), "the gradient on silence must be finite"

    double = copy.deepcopy(module).double()
    time = module.geometry.input_length(2) + 3
    short = signals(1, time, seed=5).double()
    direction = signals(1, time, seed=6).double()
    # Along two directions only: a frame has hundreds of samples, and each costs two forward passes.
    step = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    directions = torch.cat([direction, signals(1, time, seed=7).double()])

    def along(amounts: Tensor) -> Tensor:
        return double(short + amounts[None] @ directions, torch.tensor([time])).values

    assert torch.autograd.gradcheck(along, (step,), eps=1e-5, atol=1e-4, rtol=1e-3)
