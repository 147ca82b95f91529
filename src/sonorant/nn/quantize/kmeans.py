"""k-means over a stream of frames: fitted on the device, with memory that does not grow with the corpus.

Read `KMeans` (the fitted model), then `fit_kmeans`, then `KMeansFit`, which goes pass by pass and can be stopped and taken
up again. A fit has four stages: one pass keeps a uniform sample of bounded size; greedy k-means++ seeds the centres on a
part of it; Lloyd passes over the sample bring them near; Lloyd passes over the whole stream finish. Where the whole stream
fits into the sample it is read only once.

Passes are over-relaxed: a centre moves 1.9 times as far as to the mean of its frames. For fixed assignments the inertia of
a cluster is n·|c - mean|² plus a constant, and a factor below 2 never raises it, so inertia falls in every pass as in
plain Lloyd, in about half as many of them (Salakhutdinov and Roweis, 2003, on bound optimisation). The last pass is plain
and in float32; the others may take their products in bfloat16, where the chip is faster at it.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sonorant.core.config import at_least, content_hash, one_of, to_plain, within
from sonorant.core.errors import CheckpointError, ConfigError, DataError
from sonorant.core.files import atomic_write
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features, Units
from sonorant.nn.quantize.lloyd import Statistics, is_distributed, share_sample
from sonorant.nn.quantize.nearest import Nearest, Precision, search_dtype
from sonorant.nn.quantize.seeding import seed_centers
from sonorant.nn.quantize.stream import Reservoir, even_blocks

__all__ = ["Frames", "KMeans", "KMeansConfig", "KMeansFit", "KMeansProgress", "Metric", "fit_kmeans"]

Frames = Callable[[], Iterable[Float[Tensor, "_ dim"]]]
"""Gives a fresh iterator over blocks of frames: one pass."""
Metric = Literal["euclidean", "cosine"]


class KMeans(nn.Module):
    """Centres, and the nearest of them for each frame.

    Args:
        num_clusters: how many.
        dim: width of the frames.
        metric: `"cosine"` compares directions only; its centres have length 1.

    >>> model = KMeans(2, 1)
    >>> model.centers.copy_(torch.tensor([[0.0], [10.0]])).shape
    torch.Size([2, 1])
    >>> model.predict(torch.tensor([[1.0], [9.0]])).tolist()
    [0, 1]
    """

    centers: Tensor

    def __init__(self, num_clusters: int, dim: int, metric: Metric = "euclidean") -> None:
        super().__init__()
        at_least("num_clusters", num_clusters, 1)
        one_of("metric", metric, ("euclidean", "cosine"))
        self.num_clusters, self.dim, self.metric = num_clusters, dim, metric
        self.register_buffer("centers", torch.zeros(num_clusters, dim))

    def search(self, values: Float[Tensor, "n dim"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """The nearest centre of each frame and its squared distance (for cosine: 2 - 2 cos), in float32.

        Raises:
            ConfigError: frames of another width.
        """
        if values.shape[-1] != self.dim:
            raise ConfigError(f"this k-means was fitted on frames {self.dim} wide, got {values.shape[-1]}")
        if self.metric == "cosine":
            values = F.normalize(values.float(), dim=-1)
        return Nearest(self.centers.float())(values)

    def predict(self, values: Float[Tensor, "n dim"]) -> Int[Tensor, " n"]:
        """The nearest centre of each frame."""
        return self.search(values)[0]

    def forward(self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> Tensor:
        """Units `(batch, frame)` of a padded batch; 0 in the padding."""
        ids = self.predict(zero_padding(values, lengths).flatten(0, 1)).view(values.shape[:2])
        return zero_padding(ids, lengths)

    def encode(self, features: Features) -> Units:
        """Features → units at the same frame rate."""
        ids = self(features.values, features.lengths)
        return Units(ids, features.lengths, features.frame_rate, self.num_clusters)

    def decode(self, units: Units) -> Features:
        """Units → their centres; what was merged into runs is drawn out again by `units.durations` beforehand."""
        values = zero_padding(self.centers[units.ids], units.lengths)
        return Features(values, units.lengths, units.frame_rate)

    def inertia(self, frames: Frames) -> float:
        """Mean squared distance of the frames to their centres, over one pass."""
        total, count = 0.0, 0
        for block in even_blocks(frames(), 1 << 14):
            total += float(self.search(block.to(self.centers.device))[1].sum(dtype=torch.float64))
            count += len(block)
        return total / max(count, 1)


@dataclass(frozen=True, kw_only=True)
class KMeansConfig:
    """How a k-means model is fitted."""

    num_clusters: int = 500
    """Clusters."""
    metric: Metric = "euclidean"
    """euclidean, or cosine: frames and centres of length 1 (spherical k-means)."""
    passes: int = 3
    """Lloyd passes over the whole stream, at most; the last one is exact."""
    sample_size: int | None = None
    """Frames that are held in memory; where None 65536 or 64 a cluster, whichever is more."""
    sample_passes: int = 20
    """Lloyd passes over the sample before those over the stream, at most."""
    seeding_size: int | None = None
    """Frames of the sample that are looked at for first centres; where None 8 a cluster."""
    tolerance: float = 2e-4
    """A stage ends when a pass lowers the inertia by a smaller share than this; 0: when it rises."""
    overrelax: float = 1.9
    """How far a centre moves, over the way to the mean of its frames; 1: plain Lloyd."""
    precision: Precision = "auto"
    """Of products in all passes but the last: auto (bfloat16 where the chip is faster at it), float32, bfloat16."""
    seed: int = 0
    """Of the sample, the seeding, and what replaces dead centres."""

    def __post_init__(self) -> None:
        for name in ("num_clusters", "passes"):
            at_least(name, getattr(self, name), 1)
        for name in ("sample_passes", "tolerance"):
            at_least(name, getattr(self, name), 0)
        for name in ("sample_size", "seeding_size"):
            if (value := getattr(self, name)) is not None:
                at_least(f"{name} (frames, for {self.num_clusters} clusters)", value, self.num_clusters)
        one_of("metric", self.metric, ("euclidean", "cosine"))
        one_of("precision", self.precision, ("auto", "float32", "bfloat16"))
        within("overrelax", self.overrelax, 1, 1.99)

    @property
    def held(self) -> int:
        """Frames of the sample."""
        return self.sample_size or max(65536, 64 * self.num_clusters)


@dataclass(frozen=True)
class KMeansProgress:
    """One pass that is over."""

    stage: str
    """sample (the stream was read, centres are seeded), near (Lloyd over the sample), all (Lloyd over the stream)."""
    number: int
    """Passes of this stage so far."""
    inertia: float
    """Mean squared distance to the centres that the pass began with; nan for the stage `sample`."""
    frames: int
    """Frames that the pass went over."""
    revived: int
    """Centres without frames that were put elsewhere."""


def fit_kmeans(
    frames: Frames,
    num_clusters: int,
    *,
    device: torch.device | str | None = None,
    state: str | Path | None = None,
    progress: Callable[[KMeansProgress], None] | None = None,
    **settings: object,
) -> KMeans:
    """Fits k-means on a stream of frames.

    Args:
        frames: called once for each pass; gives blocks `(n, dim)` of any size.
        num_clusters: how many.
        device: where the work is done; where None that of the frames (and the CPU for a fit that is taken up again).
        state: a file that is written after each pass, and from which a fit that was stopped goes on, bit for bit.
        progress: called after each pass.
        settings: fields of `KMeansConfig`, such as `metric="cosine"`.

    Raises:
        DataError: a block holds values that are not finite, or there are fewer distinct frames than clusters.
        CheckpointError: `state` was written with other settings.

    Under torch.distributed each process gives its share of the frames, and all get the same model.

    >>> points = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    >>> sorted(round(float(c), 2) for c in fit_kmeans(lambda: iter([points]), 2).centers)
    [0.05, 5.05]
    """
    fit = KMeansFit(KMeansConfig(num_clusters=num_clusters, **settings), device)  # type: ignore[arg-type]
    if state is not None and Path(state).is_file():
        fit.load(state)
    while not fit.done:
        report = fit.step(frames)
        if state is not None:
            fit.save(state)
        if progress is not None:
            progress(report)
    return fit.model()


class KMeansFit:
    """A fit that goes pass by pass.

    Args:
        config: see there.
        device: see `fit_kmeans`.

    Between two passes `state_dict()` holds all there is to go on, in tensors; `save` and `load` keep it in a file.
    """

    def __init__(self, config: KMeansConfig, device: torch.device | str | None = None) -> None:
        self.config, self.device = config, device
        self.stage, self.number, self.last, self.seen = "sample", 0, float("inf"), 0
        self._near_done = self._final = self._whole = False
        self._mean = self._centers = self._sample = torch.empty(0)

    @property
    def done(self) -> bool:
        """Whether the last pass is over."""
        return self.stage == "done"

    def step(self, frames: Frames) -> KMeansProgress:
        """Goes through one pass, over the stream or over the sample that stands for it."""
        if self.done:
            raise DataError("this fit is over; model() gives the result")
        return self._read_sample(frames) if self.stage == "sample" else self._lloyd(frames)

    def model(self) -> KMeans:
        """The centres as they are now."""
        centers = self._centers + self._mean
        model = KMeans(self.config.num_clusters, centers.shape[1], self.config.metric).to(centers.device)
        model.centers.copy_(F.normalize(centers, dim=1) if self.config.metric == "cosine" else centers)
        return model

    # --- stages ---------------------------------------------------------------------------------------------------------

    def _read_sample(self, frames: Frames) -> KMeansProgress:
        config = self.config
        reservoir = Reservoir(config.held, config.seed)
        for block in even_blocks(frames(), 4096):
            reservoir.add(self._prepared(block))
        sample, self.seen, self._whole = share_sample(reservoir)
        if len(sample) < config.num_clusters:
            raise DataError(f"num_clusters={config.num_clusters}, but there are only {len(sample)} frames")
        # Everything from here on is centred: products of small numbers lose less to rounding.
        self._mean = sample.mean(dim=0)
        self._sample = sample - self._mean
        part = config.seeding_size or 8 * config.num_clusters
        try:
            self._centers = seed_centers(self._sample[:part], config.num_clusters, config.seed)
        except DataError:
            if part >= len(sample):
                raise
            self._centers = seed_centers(self._sample, config.num_clusters, config.seed)
        self._enter("near" if config.sample_passes else "all")
        return KMeansProgress("sample", 1, float("nan"), self.seen, 0)

    def _lloyd(self, frames: Frames) -> KMeansProgress:
        config, stage = self.config, self.stage
        final = stage == "all" and (self._final or self.number + 1 == config.passes)
        dtype = torch.float32 if final else search_dtype(config.precision, self._centers.device)
        search = Nearest(self._centers, dtype, centered=True)
        statistics = Statistics(self._centers, (config.seed, stage, self.number))
        from_sample = stage == "near" or self._whole
        for block in (
            self._sample.split(search.block_size) if from_sample else self._streamed(frames, search.block_size)
        ):
            statistics.add(block, *search.block(block))
        # The sample is the same in each process already; what came from the streams is added up over them.
        statistics.close(reduce=not from_sample)
        moved, revived = statistics.centers(1.0 if final else config.overrelax)
        self._centers = self._on_sphere(moved)
        inertia = statistics.inertia
        report = KMeansProgress(stage, self.number + 1, inertia, statistics.frames, revived)
        self._advance(inertia, final)
        return report

    def _streamed(self, frames: Frames, size: int) -> Iterator[Tensor]:
        return (self._prepared(block) - self._mean for block in even_blocks(frames(), size))

    def _advance(self, inertia: float, final: bool) -> None:
        """Which pass comes next."""
        self.number += 1
        settled = inertia > self.last * (1 - self.config.tolerance)
        self.last = inertia
        if final:
            self._enter("done")
        elif self.stage == "near" and (settled or self.number == self.config.sample_passes):
            self._final = settled and self._whole
            self._enter("all", self._final)
        elif self.stage == "all" and settled:
            self._final = True

    def _enter(self, stage: str, final: bool = False) -> None:
        self.stage, self.number, self.last, self._final = stage, 0, float("inf"), final
        if stage == "done" or (stage == "all" and not self._whole):
            self._sample = self._sample.new_empty(0, self._sample.shape[1])  # a slice would keep all of it

    def _prepared(self, block: Tensor) -> Tensor:
        if self.device is not None or self.stage != "sample":
            block = block.to(self.device or self._centers.device)
        return F.normalize(block, dim=1) if self.config.metric == "cosine" else block

    def _on_sphere(self, centers: Tensor) -> Tensor:
        """For cosine: back to length 1, seen from the origin; a centre that is 0 stays."""
        if self.config.metric != "cosine":
            return centers
        return F.normalize(centers + self._mean, dim=1) - self._mean

    # --- state ----------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Where the fit stands between two passes; holds the sample while that is still needed."""
        plain = {"stage": self.stage, "number": self.number, "last": self.last, "seen": self.seen, "final": self._final}
        text = json.dumps({**plain, "whole": self._whole, "config": content_hash(to_plain(self.config))})
        tensors = {"mean": self._mean, "centers": self._centers, "sample": self._sample}
        return {**tensors, "progress": torch.tensor(list(text.encode()), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            CheckpointError: it is no state of a fit, or was written with other settings.
        """
        missing = sorted({"mean", "centers", "sample", "progress"} - state.keys())
        if missing:
            raise CheckpointError(f"this is no state of a k-means fit: it lacks {', '.join(missing)}")
        plain = json.loads(bytes(state["progress"].tolist()).decode())
        if plain["config"] != content_hash(to_plain(self.config)):
            raise CheckpointError("this k-means was begun with other settings; use those, or begin anew elsewhere")
        self.stage, self.number, self.last, self.seen = (plain[k] for k in ("stage", "number", "last", "seen"))
        self._final, self._whole = plain["final"], plain["whole"]
        self._mean, self._centers, self._sample = state["mean"], state["centers"], state["sample"]

    def save(self, path: str | Path) -> None:
        """Writes the state; the file appears whole or stays as it was. With several processes, only the first writes."""
        from safetensors.torch import save

        if is_distributed() and torch.distributed.get_rank() != 0:
            return
        with atomic_write(path) as file:
            file.write(save({name: value.cpu().contiguous() for name, value in self.state_dict().items()}))

    def load(self, path: str | Path) -> None:
        """Reads what `save` wrote.

        Raises:
            CheckpointError: the file is damaged, or was written with other settings.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(path, device=str(self.device or "cpu"))
        except SafetensorError as error:
            raise CheckpointError(f"{path} is no state of a k-means fit: {error}") from error
        self.load_state_dict(state)
