"""The contract battery of encoders and of building blocks: what every entry of the catalogue must keep.

A third party runs it on its own encoder: `check_encoder(lambda: MyEncoder(...), input_dim=80)`. An `input_dim` of 0 means
that the encoder takes waveforms.
"""

import copy
import warnings
from collections.abc import Callable, Sequence

import jaxtyping
import torch
from torch import Tensor, nn

from sonorant.core.types import Features

__all__ = ["check_block", "check_encoder"]

TOLERANCE = 1e-5


def _batch(input_dim: int, lengths: Sequence[int], extra: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    width = (input_dim,) if input_dim else ()
    values = torch.zeros(len(lengths), max(lengths) + extra, *width)
    for item, length in enumerate(lengths):
        values[item, :length] = torch.randn(length, *width, generator=generator)
    return values, torch.tensor(lengths)


def _with_garbage(values: Tensor, lengths: Tensor) -> Tensor:
    values = values.clone()
    for item, length in enumerate(lengths.tolist()):
        values[item, length:] = torch.tensor([float("nan"), float("inf"), -1e30, 7.0])[item % 4]
    return values


Run = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(module, values, lengths) → (frames, their lengths)."""


def _check_batch_invariance(module: nn.Module, run: Run, input_dim: int, lengths: Sequence[int]) -> None:
    for extra in (0, 13):
        values, sizes = _batch(input_dim, lengths, extra)
        frames, out = run(module, values, sizes)
        for item, length in enumerate(lengths):
            alone, alone_out = run(module, values[item : item + 1, :length], sizes[item : item + 1])
            assert int(alone_out[0]) == int(out[item]), "an item's frames depend on its padding"
            size = int(out[item])
            worst = (alone[0, :size] - frames[item, :size]).abs().max().item() if size else 0.0
            assert worst <= TOLERANCE, f"item {item} differs by {worst:.2e} between alone and in a batch"


def _check_garbage(module: nn.Module, run: Run, input_dim: int, lengths: Sequence[int]) -> None:
    values, sizes = _batch(input_dim, lengths, extra=5)
    clean, out = run(module, values, sizes)
    dirty, _ = run(module, _with_garbage(values, sizes), sizes)
    for item, size in enumerate(out.tolist()):
        assert torch.equal(clean[item, :size], dirty[item, :size]), f"padding reaches the frames of item {item}"
    module.zero_grad()
    sum(dirty[item, :size].sum() for item, size in enumerate(out.tolist())).backward()  # type: ignore[union-attr]
    for name, parameter in module.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), f"padding reaches the gradient of {name}"


def _check_gradients(module: nn.Module, run: Run, input_dim: int, lengths: Sequence[int]) -> None:
    module.zero_grad()
    frames, out = run(module, *_batch(input_dim, lengths))
    torch.manual_seed(0)
    weights = torch.randn_like(frames)
    sum((frames[i, :n] * weights[i, :n]).sum() for i, n in enumerate(out.tolist())).backward()  # type: ignore[union-attr]
    # What an encoder holds at rest by itself, such as the maker of its codes, has none.
    for name, parameter in ((n, p) for n, p in module.named_parameters() if p.requires_grad):
        assert parameter.grad is not None, f"no gradient reaches {name}"
        assert parameter.grad.abs().max() > 0, f"the gradient of {name} is zero"
    module.zero_grad()


def _check_state_dict(build: Callable[[], nn.Module], run: Run, input_dim: int, lengths: Sequence[int]) -> None:
    torch.manual_seed(1)
    first = build().eval()
    torch.manual_seed(2)
    second = build().eval()
    values, sizes = _batch(input_dim, lengths)
    second.load_state_dict(first.state_dict())
    assert torch.equal(run(first, values, sizes)[0], run(second, values, sizes)[0])


def _check_low_precision(module: nn.Module, run: Run, input_dim: int, lengths: Sequence[int]) -> None:
    values, sizes = _batch(input_dim, lengths)
    with torch.no_grad():
        exact, out = run(module, values, sizes)
        small, _ = run(copy.deepcopy(module).to(torch.bfloat16), values.to(torch.bfloat16), sizes)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, _ = run(module, values, sizes)
    assert small.dtype == torch.bfloat16
    size = int(out[0])
    scale = exact[0, :size].abs().max()
    for other in (small, mixed):
        difference = (other[0, :size].float() - exact[0, :size]).abs().mean()
        assert difference <= 0.05 * scale, f"bfloat16 is off by {difference / scale:.1%} of the range"


class _Plain(nn.Module):
    def __init__(self, module: nn.Module, run: Run) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.run(self.module, values, lengths)


def _check_export(module: nn.Module, run: Run, input_dim: int, lengths: Sequence[int], dynamic: bool) -> None:
    values, sizes = _batch(input_dim, lengths)
    dims = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO} if dynamic else None
    shapes = (dims, {0: torch.export.Dim.AUTO}) if dynamic else None
    # Sizes are symbols while a graph is traced, which the shape checker would refuse as "not an int".
    checking = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        # torch's own LSTM and GRU keep a list of their weights, which export notices and leaves as it was.
        warnings.filterwarnings("ignore", "The tensor attributes", UserWarning)
        program = torch.export.export(_Plain(module, run), (values, sizes), dynamic_shapes=shapes)
    finally:
        jaxtyping.config.update("jaxtyping_disable", checking)
    others = (lengths[0], lengths[-1], lengths[0] + 9, lengths[0] // 2, lengths[0] * 3 // 4) if dynamic else lengths
    values, sizes = _batch(input_dim, others)
    with torch.no_grad():
        exported, _ = program.module()(values, sizes)
        torch.testing.assert_close(exported, run(module, values, sizes)[0], atol=1e-5, rtol=1e-5)


def check_block(
    build: Callable[[], nn.Module],
    *,
    input_dim: int,
    run: Run | None = None,
    lengths: Sequence[int] = (37, 52, 24, 45),
    export: bool = True,
    dynamic: bool = True,
    low_precision: bool = True,
) -> None:
    """A block of frames in, frames out: batch-invariant, deaf to padding, fully trained, saved, cast and exported.

    Args:
        build: makes the module.
        input_dim: width of its input.
        run: calls it, where it is not `module(values, lengths) -> values`.
        lengths: frames of the items that are tried.
        export: whether `torch.export` must work.
        dynamic: whether the exported program must take other sizes.
        low_precision: whether it must run in bfloat16.
    """
    run = run or (lambda module, values, sizes: (module(values, sizes), sizes))
    torch.manual_seed(0)
    module = build().eval()
    _check_batch_invariance(module, run, input_dim, lengths)
    _check_garbage(module, run, input_dim, lengths)
    _check_gradients(module, run, input_dim, lengths)
    _check_state_dict(build, run, input_dim, lengths)
    if low_precision:
        _check_low_precision(module, run, input_dim, lengths)
    if export:
        _check_export(module, run, input_dim, lengths, dynamic)


def _encode(module: nn.Module, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    features = module(values, lengths)
    return features.values, features.lengths


def _check_lengths(encoder: nn.Module, input_dim: int, tried: Sequence[int]) -> None:
    for length in tried:
        values, sizes = _batch(input_dim, [length])
        features = encoder(values, sizes)
        count = encoder.output_lengths(length)  # type: ignore[operator]
        assert count == int(encoder.output_lengths(sizes)[0]) == int(features.lengths[0])  # type: ignore[operator]
        assert features.values.shape[1] >= count
        assert features.values.isfinite().all()


def _check_layers(encoder: nn.Module, input_dim: int, lengths: Sequence[int]) -> None:
    values, sizes = _batch(input_dim, lengths, extra=4)
    outputs, whole = encoder(values, sizes, layers=True), encoder(values, sizes)
    assert len(outputs) == encoder.num_layers + 1
    assert torch.equal(outputs[-1].values, whole.values)
    assert whole.frame_rate == encoder.frame_rate
    assert whole.values.shape[-1] == encoder.dim
    for output in outputs:
        assert isinstance(output, Features)
        for item, size in enumerate(output.lengths.tolist()):
            assert not output.values[item, size:].any(), "what comes out in the padding must be zero"


def _check_halves(encoder: nn.Module, input_dim: int, lengths: Sequence[int]) -> None:
    """The front end, what masks are laid on, and the blocks, one after another, are the whole."""
    values, sizes = _batch(input_dim, lengths, extra=3)
    whole = encoder(values, sizes)
    local = encoder.local(values, sizes)  # type: ignore[operator]
    embedded = encoder.embed(local)  # type: ignore[operator]
    assert encoder.input == ("features" if input_dim else "waveform")
    assert local.values.shape[-1] == encoder.local_dim
    assert torch.equal(encoder.context(embedded).values, whole.values)  # type: ignore[operator]
    assert len(encoder.blocks) == encoder.num_layers  # type: ignore[arg-type]


def _check_attention(encoder: nn.Module, input_dim: int, lengths: Sequence[int]) -> None:
    values, sizes = _batch(input_dim, lengths)
    maps = encoder.attention_maps(values, sizes)  # type: ignore[operator]
    assert len(maps) == encoder.num_layers
    for item in range(len(lengths)):
        alone = encoder.attention_maps(values[item : item + 1], sizes[item : item + 1])  # type: ignore[operator]
        for layer, own in zip(maps, alone, strict=True):
            size = own.shape[-1]
            rows = own.sum(-1)
            assert ((rows - 1).abs() <= 1e-4).logical_or(rows == 0).all(), "attention weights must sum to one"
            if layer.shape[0] == len(lengths):
                torch.testing.assert_close(
                    layer[item, :, :size, :size][..., : own.shape[-2], :], own[0], atol=1e-4, rtol=0
                )


def _check_stream(encoder: nn.Module, input_dim: int, size: int) -> None:
    values, sizes = _batch(input_dim, [size, size])
    whole = encoder(values, sizes).values.detach()
    part = max(1, size // 7)
    for pieces in ([size], [max(1, part // 13)] * size, [3 * part, 3, 2 * part, size], [part] * 9):
        stream = encoder.stream(2)  # type: ignore[operator]
        parts, start = [], 0
        for piece in pieces:
            if start < size:
                parts.append(stream.push(values[:, start : start + piece]).values)
            start += piece
        joined = torch.cat([*parts, stream.finish().values], dim=1)
        assert joined.shape == whole.shape
        worst = (joined - whole).abs().max().item()
        assert worst <= TOLERANCE, f"chunks of {pieces[0]} frames differ from the whole by {worst:.2e}"


def check_encoder(
    build: Callable[[], nn.Module],
    *,
    input_dim: int,
    streaming: bool = False,
    lengths: Sequence[int] = (),
    tried: Sequence[int] = (),
    dynamic: bool = True,
    export: bool = True,
    low_precision: bool = True,
) -> None:
    """Everything that the toolkit promises of an encoder.

    Args:
        build: makes it, with random weights.
        input_dim: width of the features that it takes; 0 for waveforms.
        streaming: whether `stream()` must give the same frames as the whole.
        lengths: frames or samples of the items that are tried.
        tried: lengths whose number of frames is checked.
        dynamic: whether the exported program must take other sizes.
        export: whether `torch.export` must work.
        low_precision: whether it must run in bfloat16.
    """
    lengths = lengths or ((61, 83, 40, 57) if input_dim else (6100, 8333, 4000, 5700))
    tried = tried or (range(1, 42) if input_dim else (1, 399, 400, 401, 719, 720, 1000, 2222))
    options = {"dynamic": dynamic, "export": export, "low_precision": low_precision}
    check_block(build, input_dim=input_dim, run=_encode, lengths=lengths, **options)
    encoder = build().eval()
    with torch.no_grad():
        _check_lengths(encoder, input_dim, tried)
        _check_layers(encoder, input_dim, lengths)
        _check_halves(encoder, input_dim, lengths)
        if hasattr(encoder, "attention_maps"):
            _check_attention(encoder, input_dim, lengths)
        if streaming:
            _check_stream(encoder, input_dim, 97 if input_dim else 9700)
