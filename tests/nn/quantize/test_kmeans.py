"""k-means over a stream: finds what is there, never rises, does not depend on the cuts, and goes on where it was stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from sonorant.core.errors import CheckpointError, ConfigError, DataError
from sonorant.core.types import Features
from sonorant.nn.quantize.kmeans import KMeans, KMeansConfig, KMeansFit, KMeansProgress, fit_kmeans
from sonorant.nn.quantize.nearest import Nearest, search_dtype
from sonorant.nn.quantize.stream import Reservoir, even_blocks


def blobs(num_clusters: int, each: int, dim: int = 8, spread: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(num_clusters, dim, generator=generator) * 4
    labels = torch.arange(num_clusters).repeat(each)
    return centers[labels] + spread * torch.randn(len(labels), dim, generator=generator), labels


def speechlike(count: int, dim: int = 24, seed: int = 0) -> Tensor:
    """Overlapping clusters with a spectrum that falls off, runs of alike frames, and a large mean."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, dim + 1).float() ** -0.6
    means = torch.randn(120, dim, generator=generator) * spectrum
    labels = torch.randint(120, (count // 3 + 1,), generator=generator).repeat_interleave(3)[:count]
    return 5 + means[labels] + 0.7 * spectrum * torch.randn(count, dim, generator=generator)


def stream(frames: Tensor, size: int = 333) -> Iterator[Tensor]:
    return iter(frames.split(size))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("sample_size", [None, 60])
def test_separated_clusters_are_found(metric: str, sample_size: int | None) -> None:
    frames, labels = blobs(12, 40)
    model = fit_kmeans(lambda: stream(frames), 12, metric=metric, sample_size=sample_size, seeding_size=60)
    ids = model.predict(frames)
    pairs = {(int(a), int(b)) for a, b in zip(ids, labels)}
    assert len(pairs) == 12
    if metric == "cosine":
        torch.testing.assert_close(model.centers.norm(dim=1), torch.ones(12))


def test_centres_are_the_means_of_their_frames() -> None:
    """What is left of over-relaxation and bfloat16 after the last, exact pass: nothing, once the labels have settled."""
    frames, _ = blobs(6, 50)
    model = fit_kmeans(lambda: stream(frames), 6)
    ids = model.predict(frames)
    for cluster in range(6):
        torch.testing.assert_close(model.centers[cluster], frames[ids == cluster].mean(dim=0), atol=1e-5, rtol=1e-5)


@settings(max_examples=12, deadline=None)
@given(
    num_clusters=st.integers(2, 30),
    seed=st.integers(0, 99),
    overrelax=st.sampled_from([1.0, 1.5, 1.9, 1.99]),
    sample_size=st.sampled_from([None, 200]),
    metric=st.sampled_from(["euclidean", "cosine"]),
)
def test_inertia_never_rises(
    num_clusters: int, seed: int, overrelax: float, sample_size: int | None, metric: str
) -> None:
    frames = speechlike(900, dim=6, seed=seed)
    seen: list[KMeansProgress] = []
    fit_kmeans(
        lambda: stream(frames), num_clusters, sample_passes=0, passes=12, tolerance=0.0, precision="float32",
        overrelax=overrelax, sample_size=sample_size, metric=metric, seed=seed, progress=seen.append,
    )  # fmt: skip
    inertias = [p.inertia for p in seen if p.stage == "all"]
    assert len(inertias) >= 2
    assert all(after <= before * (1 + 1e-5) + 1e-9 for before, after in zip(inertias, inertias[1:]))


def test_inertia_is_within_a_hundredth_of_scikit_learns() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    for seed, precision in ((0, "float32"), (1, "bfloat16")):
        frames = speechlike(6000, seed=seed)
        full = cluster.KMeans(60, n_init=1, random_state=0).fit((frames - frames.mean(0)).numpy())
        reported: list[KMeansProgress] = []
        model = fit_kmeans(lambda: stream(frames), 60, precision=precision, progress=reported.append)  # noqa: B023
        found = model.inertia(lambda: stream(frames))  # noqa: B023
        assert found <= 1.01 * full.inertia_ / len(frames)
        assert reported[-1].inertia == pytest.approx(found, rel=5e-3)
        streamed = fit_kmeans(lambda: stream(frames), 60, precision=precision, sample_size=2000, passes=6)  # noqa: B023
        assert streamed.inertia(lambda: stream(frames)) <= 1.015 * full.inertia_ / len(frames)  # noqa: B023


def test_lloyd_passes_equal_scikit_learns() -> None:
    """From the same centres, plain passes give the same centres."""
    cluster = pytest.importorskip("sklearn.cluster")
    frames = speechlike(2000)
    fit = KMeansFit(
        KMeansConfig(num_clusters=20, sample_passes=0, passes=4, overrelax=1, tolerance=0, precision="float32")
    )
    fit.step(lambda: stream(frames))
    first = fit.model().centers.clone()
    while not fit.done:
        fit.step(lambda: stream(frames))
    model = cluster.KMeans(20, init=first.numpy(), n_init=1, max_iter=4, tol=0, algorithm="lloyd")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(frames.numpy())
    torch.testing.assert_close(fit.model().centers, torch.from_numpy(model.cluster_centers_), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("sample_size", [None, 300])
def test_how_the_stream_is_cut_does_not_matter(sample_size: int | None) -> None:
    frames = speechlike(2000, dim=5)
    models = [fit_kmeans(lambda: stream(frames, size), 15, sample_size=sample_size) for size in (1, 77, 2000)]  # noqa: B023
    assert torch.equal(models[0].centers, models[1].centers)
    assert torch.equal(models[0].centers, models[2].centers)
    other = fit_kmeans(lambda: stream(frames), 15, sample_size=sample_size, seed=1)
    assert not torch.equal(models[0].centers, other.centers)


@pytest.mark.parametrize("sample_size", [None, 300])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stopped_and_resumed_is_uninterrupted(tmp_path: Path, sample_size: int | None, stop: int) -> None:
    frames = speechlike(1500, dim=5)
    keywords = {"sample_size": sample_size, "sample_passes": 2, "passes": 4, "tolerance": 0.0}
    whole = fit_kmeans(lambda: stream(frames), 20, device="cpu", **keywords)
    file = tmp_path / "fit.safetensors"

    def stopping(_: KMeansProgress, count: list[int] = [0]) -> None:  # noqa: B006
        count[0] += 1
        if count[0] == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_kmeans(lambda: stream(frames), 20, state=file, progress=stopping, **keywords)
    passes: list[KMeansProgress] = []
    resumed = fit_kmeans(lambda: stream(frames), 20, state=file, progress=passes.append, **keywords)
    assert len(passes) == 1 + 2 + 4 - stop
    assert torch.equal(whole.centers, resumed.centers)
    again = fit_kmeans(lambda: pytest.fail("a fit that is over reads nothing"), 20, state=file, **keywords)
    assert torch.equal(whole.centers, again.centers)
    with pytest.raises(CheckpointError, match="other settings"):
        fit_kmeans(lambda: stream(frames), 21, state=file, **keywords)
    save_file(whole.state_dict(), file)
    with pytest.raises(CheckpointError, match="no state of a k-means fit: it lacks mean, progress, sample"):
        fit_kmeans(lambda: stream(frames), 20, state=file, **keywords)
    file.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="no state"):
        fit_kmeans(lambda: stream(frames), 20, state=file, **keywords)


def test_the_state_lets_go_of_the_sample_once_the_stream_takes_over() -> None:
    frames = speechlike(1500, dim=5)
    fit = KMeansFit(KMeansConfig(num_clusters=10, sample_size=200, sample_passes=1))
    fit.step(lambda: stream(frames))
    assert len(fit.state_dict()["sample"]) == 200
    fit.step(lambda: stream(frames))
    left = fit.state_dict()["sample"]
    assert len(left) == 0
    assert left.untyped_storage().nbytes() == 0


def test_a_corpus_that_fits_the_sample_is_read_once() -> None:
    frames, reads = speechlike(1000), []

    def source() -> Iterator[Tensor]:
        reads.append(1)
        return stream(frames)

    fit_kmeans(source, 10, sample_size=1000)
    assert len(reads) == 1
    fit_kmeans(source, 10, sample_size=999, passes=3, tolerance=0.0)
    assert len(reads) == 1 + 1 + 3


def test_duplicates_and_too_few_distinct_frames() -> None:
    few = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    frames = few.repeat(100, 1)
    model = fit_kmeans(lambda: stream(frames), 5)
    assert model.inertia(lambda: stream(frames)) < 1e-6
    assert len(model.predict(frames).unique()) == 5
    with pytest.raises(DataError, match="hold only 5 distinct"):
        fit_kmeans(lambda: stream(frames), 6)
    with pytest.raises(DataError, match="only 5 frames"):
        fit_kmeans(lambda: stream(few), 6)
    # Too few in the part that is seeded from, enough in all: the whole sample is looked at.
    mostly_one = torch.cat([frames[:1].repeat(3000, 1), few[1:]])
    assert fit_kmeans(lambda: stream(mostly_one), 5, seeding_size=5).inertia(lambda: stream(mostly_one)) < 1e-6


@pytest.mark.parametrize("sample_size", [None, 100])
def test_dead_centres_are_revived(sample_size: int | None) -> None:
    frames, _ = blobs(10, 30)
    config = KMeansConfig(num_clusters=10, sample_passes=0, passes=5, tolerance=0.0, sample_size=sample_size)
    fit = KMeansFit(config)
    fit.step(lambda: stream(frames))
    state = fit.state_dict()
    state["centers"][3:] = 1000.0  # nobody's nearest
    fit.load_state_dict(state)
    report = fit.step(lambda: stream(frames))
    assert report.revived == 7
    while not fit.done:
        fit.step(lambda: stream(frames))
    assert len(fit.model().predict(frames).unique()) > 7


def test_a_block_that_is_not_finite_is_named() -> None:
    frames = speechlike(1000)
    frames[700, 3] = float("nan")
    with pytest.raises(DataError, match=r"block 2 .* 1 of its 333 frames \(the first is frame 34\)"):
        fit_kmeans(lambda: stream(frames), 10)
    with pytest.raises(DataError, match="block 1 of the frames is 3 wide"):
        fit_kmeans(lambda: iter([torch.zeros(4, 2), torch.zeros(4, 3)]), 2)
    with pytest.raises(DataError, match="empty"):
        fit_kmeans(lambda: iter([]), 2)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="sample_size"):
        KMeansConfig(num_clusters=100, sample_size=50)
    with pytest.raises(ConfigError, match="overrelax"):
        KMeansConfig(overrelax=2.0)


def test_the_reservoir_is_uniform() -> None:
    """Each of 50 frames stays in a fifth of the draws: a deviation of 0.1 would be five standard errors."""
    frames = torch.arange(50.0)[:, None]
    hits = torch.zeros(50)
    for seed in range(400):
        reservoir = Reservoir(10, seed)
        for block in frames.split(7):
            reservoir.add(block)
        sample = reservoir.sample()
        assert len(sample.unique()) == 10
        hits[sample[:, 0].long()] += 1 / 400
    assert (hits - 0.2).abs().max() < 0.1


def test_even_blocks_keep_all_frames_in_order() -> None:
    frames = torch.arange(100.0)[:, None]
    blocks = list(even_blocks(iter([frames[:3], frames[3:3], frames[3:90], frames[90:]]), 16))
    assert [len(block) for block in blocks] == [16] * 6 + [4]
    assert torch.equal(torch.cat(blocks), frames)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_the_search_is_brute_force(offset: float) -> None:
    generator = torch.Generator().manual_seed(3)
    frames, centers = (torch.randn(n, 12, generator=generator) + offset for n in (700, 40))
    exact = torch.cdist(frames.double(), centers.double())
    ids, distances = Nearest(centers)(frames)
    assert torch.equal(ids, exact.argmin(dim=1))
    torch.testing.assert_close(
        distances.double(), exact.min(dim=1).values ** 2, atol=1e-3 if offset else 1e-5, rtol=1e-4
    )
    rough = Nearest(centers, torch.bfloat16)(frames)[0]
    lost = exact.gather(1, rough[:, None])[:, 0] ** 2 - exact.min(dim=1).values ** 2
    assert lost.max() <= 0.01 * 2 * (frames - offset).square().sum(dim=1).max()


def test_units_of_a_padded_batch() -> None:
    model = KMeans(3, 2, metric="cosine")
    model.centers.copy_(F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])))
    values = torch.tensor([[[5.0, 1.0], [0.1, 0.3]], [[-1.0, -2.0], [float("nan"), 0.0]]])
    units = model.encode(Features(values, torch.tensor([2, 1]), 50.0))
    assert units.ids.tolist() == [[0, 1], [2, 0]]
    assert (units.num_units, units.frame_rate) == (3, 50.0)
    back = model.decode(units)
    assert torch.equal(model.encode(back).ids, units.ids)
    assert not back.values[1, 1:].any()
    with pytest.raises(ConfigError, match="fitted on frames 2 wide, got 3"):
        model.encode(Features(torch.zeros(1, 4, 3), torch.tensor([4]), 50.0))


def test_auto_precision_is_float32_where_nothing_is_known() -> None:
    assert search_dtype("auto", torch.device("meta")) == torch.float32
    assert search_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
