"""k-means against faiss and scikit-learn: seconds and inertia at equal clusters, data and passes.

`python bench/kmeans.py [--quick] [--threads N] [--frames N] [--clusters K] [--dim D] [--no-full]`. Every fitter gets the same
frames, and where it goes by passes the same number of them; ours alternates with each peer. Inertia is that of the fitted
centres over all frames in float32, over that of scikit-learn's full k-means (k-means++, until it settles).
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator

if "--threads" in sys.argv:  # before numpy and torch start their pools
    os.environ["OMP_NUM_THREADS"] = sys.argv[sys.argv.index("--threads") + 1]
else:
    os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from harness import peak_memory_mb, report
from torch import Tensor

from sonorant.nn.quantize.kmeans import KMeans, fit_kmeans

PASSES = 10
Fit = Callable[[], Tensor]


def speechlike(count: int, dim: int, seed: int = 0) -> Tensor:
    """Frames with what matters for clustering in an encoder's: a spectrum that falls off, states of unequal frequency that
    last some frames and overlap, and a shift for each stretch of a speaker."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, dim + 1).float() ** -0.6
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0]
    means = torch.randn(2000, dim, generator=generator) * spectrum
    frequency = torch.arange(1, 2001).float() ** -0.7
    states = torch.multinomial(frequency, count // 4 + 1, replacement=True, generator=generator)
    speakers = torch.randn(count // 400 + 1, dim, generator=generator) * spectrum * 0.5
    frames = means[states.repeat_interleave(4)[:count]] + speakers.repeat_interleave(400, 0)[:count]
    return (frames + torch.randn(count, dim, generator=generator) * spectrum * 0.9) @ basis.T


def ours(frames: Tensor, num_clusters: int, **settings: object) -> Fit:
    def stream() -> Iterator[Tensor]:
        return iter(frames.split(1000))

    return lambda: fit_kmeans(stream, num_clusters, **settings).centers


def equal_passes(frames: Tensor, num_clusters: int, **settings: object) -> Fit:
    return ours(frames, num_clusters, **{"passes": PASSES, "sample_passes": 0, "tolerance": 0.0, **settings})


def faiss_fit(frames: Tensor, num_clusters: int) -> Fit:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    array = frames.numpy()

    def fit() -> Tensor:
        model = faiss.Kmeans(
            frames.shape[1], num_clusters, niter=PASSES, seed=1, max_points_per_centroid=len(frames) // num_clusters + 1
        )
        model.train(array)
        return torch.from_numpy(model.centroids)

    return fit


def minibatch(frames: Tensor, num_clusters: int) -> Fit:
    from sklearn.cluster import MiniBatchKMeans

    def fit() -> Tensor:
        model = MiniBatchKMeans(
            num_clusters, batch_size=10_000, max_iter=PASSES, n_init=1, random_state=0, max_no_improvement=None, tol=0.0
        )
        return torch.from_numpy(model.fit(frames.numpy()).cluster_centers_)

    return fit


def full(frames: Tensor, num_clusters: int) -> Fit:
    from sklearn.cluster import KMeans as Peer

    return lambda: torch.from_numpy(Peer(num_clusters, n_init=1, random_state=0).fit(frames.numpy()).cluster_centers_)


def inertia(frames: Tensor, centers: Tensor) -> float:
    model = KMeans(*centers.shape)
    model.centers.copy_(centers)
    return model.inertia(lambda: iter([frames]))


def told(found: dict[str, object]) -> dict[str, object]:
    """Shows a row as soon as it is there: the whole takes minutes."""
    print(found, file=sys.stderr, flush=True)
    return found


def timed(fit: Fit) -> tuple[float, float, Tensor]:
    """Seconds on the clock, seconds of all processors, and the centres."""
    clock, processor = time.perf_counter(), time.process_time()
    centers = fit()
    return time.perf_counter() - clock, time.process_time() - processor, centers


def row(what: str, mine: Fit, peer: Fit, error: Callable[[Tensor], float], repeats: int) -> dict[str, object]:
    """In turn; without a run to warm up, for each takes seconds. Processor time is what a busy machine cannot spoil."""
    pairs = [(timed(mine), timed(peer)) for _ in range(repeats)]
    median = statistics.median
    return told({
        "what": what, "ours": median(a[0] for a, _ in pairs), "peer": median(b[0] for _, b in pairs),
        "ratio": median(b[0] / a[0] for a, b in pairs), "ratio of processor time": median(b[1] / a[1] for a, b in pairs),
        "processor s, ours": median(a[1] for a, _ in pairs), "processor s, peer": median(b[1] for _, b in pairs),
        "inertia, ours": error(pairs[-1][0][2]), "inertia, peer": error(pairs[-1][1][2]),
        "memory_mb": round(peak_memory_mb()),
    })  # fmt: skip


def alone(what: str, fit: Fit, error: Callable[[Tensor], float]) -> dict[str, object]:
    clock, processor, centers = timed(fit)
    found = {"what": what, "ours": clock, "processor s, ours": processor, "inertia, ours": error(centers)}
    return told({**found, "memory_mb": round(peak_memory_mb())})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the frames, fewer clusters")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-full", action="store_true", help="leave out scikit-learn's full k-means (about a minute)")
    args = parser.parse_args()
    if args.quick:
        args.frames, args.clusters, args.dim = 5000, 100, 128
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")  # scikit-learn on threads of MKL, faiss on few points a centre
    frames = speechlike(args.frames, args.dim)
    size = f"K={args.clusters}, dim {args.dim}, {PASSES} passes over {args.frames}"
    baseline = 1.0
    rows: list[dict[str, object]] = []
    if not args.no_full:
        clock, processor, centers = timed(full(frames, args.clusters))
        baseline = inertia(frames, centers)
        settled = {"what": "scikit-learn KMeans, full", "peer": clock, "processor s, peer": processor}
        rows.append(told({**settled, "inertia, peer": 1.0}))

    def error(centers: Tensor) -> float:
        return inertia(frames, centers) / baseline

    fit = equal_passes(frames, args.clusters)
    rows += [
        row(f"{size} (faiss)", fit, faiss_fit(frames, args.clusters), error, args.repeats),
        row(f"{size} (MiniBatchKMeans)", fit, minibatch(frames, args.clusters), error, max(1, args.repeats // 2)),
        alone("half the passes", equal_passes(frames, args.clusters, passes=PASSES // 2), error),
        alone("all products in float32", equal_passes(frames, args.clusters, precision="float32"), error),
        alone("plain Lloyd steps", equal_passes(frames, args.clusters, overrelax=1.0), error),
        alone("streamed, a fifth held", equal_passes(frames, args.clusters, sample_size=len(frames) // 5), error),
        alone("default settings, until it settles", ours(frames, args.clusters), error),
    ]
    notes = (
        f"Seconds, {args.threads} threads; ratio: how many times faster ours is. Inertia over that of scikit-learn's full"
        " k-means. Ours seeds by greedy k-means++ within its time; faiss starts from random frames."
    )
    report("kmeans", "k-means against faiss and scikit-learn", rows, notes)


if __name__ == "__main__":
    main()
