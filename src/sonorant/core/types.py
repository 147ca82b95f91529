"""The seven nouns that every layer speaks, and the interfaces between layers.

Plain frozen dataclasses, in the order audio → frames → discrete → times → training → results; then the protocols.
Lengths are integers in steps of the tensor's own time axis. Times are in seconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.score import Score

__all__ = [
    "Batch", "Codec", "Codes", "Encoder", "Features", "Loss", "Metric", "Objective", "Quantizer", "Score", "Segment",
    "Segments", "Task", "Units",
]  # fmt: skip


def _moved(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    return value.to(device, non_blocking=non_blocking) if isinstance(value, Tensor) else value


Moved = TypeVar("Moved", bound="_OnDevice")


class _OnDevice:
    """`to(device)` for frozen dataclasses of tensors."""

    def to(self: Moved, device: torch.device | str, non_blocking: bool = False) -> Moved:
        """The same value with every tensor on `device`."""
        moved = {f.name: _moved(getattr(self, f.name), device, non_blocking) for f in fields(self)}  # type: ignore[arg-type]
        if "labels" in moved:
            moved["labels"] = {key: _moved(label, device, non_blocking) for key, label in moved["labels"].items()}
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class Batch(_OnDevice):
    """Audio of several items, padded with zeros at the end, and the labels that a task asked for.

    >>> batch = Batch(torch.zeros(2, 16000), torch.tensor([16000, 8000]), 16000, ids=("a", "b"))
    >>> len(batch), batch.seconds
    (2, 1.5)
    """

    waveform: Float[Tensor, "batch time"] | Float[Tensor, "batch channel time"]
    """In [-1, 1]."""
    lengths: Int[Tensor, " batch"]
    """Samples of each item."""
    sample_rate: int
    """Hz."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """Name → tensor padded on axis 1 (with `<name>_lengths` beside it), list of one value an item, or `Segments`."""
    ids: tuple[str, ...] = ()
    """The cuts' ids, for messages and results."""
    seeds: Int[Tensor, " batch"] | None = None
    """One 63-bit seed an item, a function of (run seed, epoch, id): all random draws on the item come from it, so they
    are the same on resume, in any batch and with any number of workers."""

    def __len__(self) -> int:
        return int(self.waveform.shape[0])

    @property
    def seconds(self) -> float:
        """Seconds of audio, padding left out."""
        return float(self.lengths.sum()) / self.sample_rate


@dataclass(frozen=True)
class Features(_OnDevice):
    """Continuous frames."""

    values: Float[Tensor, "batch frame dim"]
    lengths: Int[Tensor, " batch"]
    frame_rate: float
    """Frames a second."""

    def __len__(self) -> int:
        return int(self.values.shape[0])


@dataclass(frozen=True)
class Units(_OnDevice):
    """Discrete speech, one unit a frame, or one a run with `durations` in frames."""

    ids: Int[Tensor, "batch frame"]
    lengths: Int[Tensor, " batch"]
    frame_rate: float
    num_units: int
    durations: Int[Tensor, "batch frame"] | None = None


@dataclass(frozen=True)
class Codes(_OnDevice):
    """What a codec writes: several codebooks a frame."""

    ids: Int[Tensor, "batch codebook frame"]
    lengths: Int[Tensor, " batch"]
    frame_rate: float
    codebook_sizes: tuple[int, ...]


class Segment(NamedTuple):
    """A labelled stretch of time; `start` and `duration` in seconds, `score` a probability or a log-probability."""

    start: float
    duration: float
    label: str
    score: float = 1.0

    @property
    def end(self) -> float:
        return self.start + self.duration


@dataclass(frozen=True)
class Segments:
    """For each item of a batch its segments, ordered by start."""

    items: tuple[tuple[Segment, ...], ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Segment, ...]:
        return self.items[index]

    def __iter__(self) -> Iterator[tuple[Segment, ...]]:
        return iter(self.items)


@dataclass(frozen=True)
class Loss:
    """A sum over `count` targets, so that accumulation and averaging over devices are exact.

    >>> loss = Loss(torch.tensor(6.0), torch.tensor(3.0)) + Loss(torch.tensor(2.0), torch.tensor(1.0))
    >>> float(loss.mean)
    2.0
    """

    total: Float[Tensor, ""]
    """Sum over all targets; what is differentiated."""
    count: Float[Tensor, ""] | Int[Tensor, ""]
    """Number of targets (frames, tokens or items): what `total` is divided by."""
    parts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Detached sums to be logged, over the same count."""

    @property
    def mean(self) -> Tensor:
        return self.total / self.count.clamp(min=1)

    def __add__(self, other: "Loss") -> "Loss":
        names = {**self.parts, **other.parts}
        zero = torch.zeros_like(self.total.detach())
        parts = {name: self.parts.get(name, zero) + other.parts.get(name, zero) for name in names}
        return Loss(self.total + other.total, self.count + other.count, parts)


@runtime_checkable
class Encoder(Protocol):
    """Waveform or features → `Features`, in three parts: `context(embed(local(values, lengths)))`."""

    input: Literal["waveform", "features"]
    """What goes in: `(batch, time)` or `(batch, frame, dim)`."""
    dim: int
    """Width of the frames that come out."""
    local_dim: int
    """Width of what the front end makes."""
    num_layers: int

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        ...

    @property
    def receptive_field(self) -> int:
        """Input steps that one frame sees by convolution alone."""
        ...

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames that come out for `lengths` steps that go in; exact."""
        ...

    def local(self, values: Tensor, lengths: Tensor) -> Features:
        """The front end: convolutions over the waveform, or thinned-out features."""
        ...

    def embed(self, local: Features) -> Features:
        """What the blocks take: normed and projected. Masked objectives mask what comes out here."""
        ...

    def context(self, embedded: Features, layers: bool = False) -> Any:
        """The blocks: `Features`, or with `layers` what enters the first block and what comes out of each."""
        ...

    def __call__(self, values: Tensor, lengths: Tensor) -> Features: ...


class Quantizer(Protocol):
    """Vectors ↔ indices."""

    def encode(self, features: Features) -> Units: ...

    def decode(self, units: Units) -> Features: ...


class Codec(Protocol):
    """Waveform ↔ codes."""

    sample_rate: int
    frame_rate: float

    def encode(self, batch: Batch) -> Codes: ...

    def decode(self, codes: Codes) -> Tensor: ...


class Objective(Protocol):
    """What `train.fit` trains: an `nn.Module` with one loss for each optimiser."""

    def losses(self, batch: Batch) -> dict[str, Loss]: ...


class Task(Protocol):
    """An objective that can also answer."""

    def losses(self, batch: Batch) -> dict[str, Loss]: ...

    def predict(self, batch: Batch) -> Sequence[Any]: ...


class Metric(Protocol):
    """Takes arrays and strings, never models; counts, so that parts of a test set add up exactly."""

    def update(self, reference: Any, hypothesis: Any) -> None: ...

    def score(self) -> Score: ...
