"""The stages that self-supervised recipes are made of: statistics, clusters, units, pre-training.

    front = statistics_stage(work, config.front, cuts)
    clusters = cluster_stage(work, "round1", mfcc, cuts, 100)
    units = units_stage(work, "round1", UnitTokenizer(mfcc, load_kmeans(clusters)), cuts)
    encoder = pretrain_stage(work, "round1", partial(build, config, front), cuts, config.training, {"units": units}, config)

Each is a stage of the workspace: named by the content of what went into it, made once, gone on with where it was stopped.
What follows on a pre-trained encoder is in `probe.py` (frozen) and `finetuning.py` (CTC with a few minutes of labels).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonorant.benchmark.probe import alignment_of, module_digest
from sonorant.benchmark.workspace import Workspace
from sonorant.core.alignment import first_centre, frame_labels
from sonorant.core.checkpoint import load_checkpoint, load_weights, save_checkpoint
from sonorant.core.config import at_least, to_plain
from sonorant.core.lengths import valid_mask
from sonorant.core.seed import derive, seed_everything
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig, Batches
from sonorant.data.corpora.corpus import content_of
from sonorant.encoders.checkpoint import save_trained_encoder
from sonorant.encoders.spectral import FrontConfig, OnSpectrum, OnSpectrumConfig, SpectralFront
from sonorant.metrics.units import UnitAgreement
from sonorant.nn.quantize.kmeans import KMeans, KMeansConfig, fit_kmeans
from sonorant.train.checkpoint import restore_weights
from sonorant.train.config import TrainConfig, learning_fields
from sonorant.train.launch import launch
from sonorant.train.loop import fit
from sonorant.train.optim import OptimConfig, build_optimizer
from sonorant.train.record import Resume
from sonorant.train.schedule import ScheduleConfig, build_schedule
from sonorant.units.checks import check_units
from sonorant.units.store import UnitStore, write_units
from sonorant.units.tokenizer import UnitTokenizer, layer_of, streamed, tokenise

__all__ = [
    "PretrainConfig", "agreement", "cluster_stage", "fresh_encoder", "load_kmeans", "pretrain_stage", "statistics_stage",
    "units_stage",
]  # fmt: skip

_STREAM = BatchConfig(max_seconds=120)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Steps, batches, optimiser, schedule and loop of one pre-training."""

    steps: int = 2000
    """Updates of the weights."""
    batches: BatchConfig = field(default_factory=lambda: BatchConfig(max_seconds=120))
    """Sizes and loading; `memory_mb` keeps a small corpus decoded."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-4))
    """The optimiser."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(name="warmup_linear", warmup=0.08))
    """Of the learning rate (HuBERT: 8 % of warm-up, then linear decay)."""
    loop: TrainConfig = field(default_factory=TrainConfig)
    """Clipping, averaging, checkpoints."""

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)


# --- statistics, clusters, units --------------------------------------------------------------------------------------


def statistics_stage(work: Workspace, config: FrontConfig, cuts: Any, max_hours: float = 0.5) -> Path:
    """Mean and variance of spectral frames over a corpus: a `SpectralFront` as a checkpoint of an encoder.

    Args:
        work: where.
        config: which frames.
        cuts: whose.
        max_hours: of audio that is looked at.
    """

    def make(folder: Path) -> None:
        front, seconds = SpectralFront(config), 0.0
        for batch, frames in streamed(
            cuts, _at(_STREAM, config.sample_rate), lambda b: front.local(b.waveform, b.lengths)
        ):
            front.normalise.update(frames)
            seconds += batch.seconds
            if seconds >= 3600 * max_hours:
                break
        save_trained_encoder(front, folder / "front")

    inputs = {"front": to_plain(config), "cuts": content_of(cuts), "max_hours": max_hours}
    return work.stage(f"statistics-{config.kind}", make, inputs) / "front"


def _at(config: BatchConfig, sample_rate: int) -> BatchConfig:
    return replace(config, sample_rate=sample_rate)


def fresh_encoder(config: OnSpectrumConfig, front: str | Path) -> OnSpectrum:
    """An encoder with random weights whose front end bears a corpus's statistics.

    Args:
        config: front end and encoder.
        front: what `statistics_stage` gave.
    """
    encoder = OnSpectrum(config)
    load_weights(encoder.front, load_checkpoint(front).weights, where=str(front))
    return encoder


def cluster_stage(
    work: Workspace,
    name: str,
    encoder: nn.Module,
    cuts: Any,
    num_clusters: int,
    *,
    layer: int | None = None,
    batches: BatchConfig = _STREAM,
    sample_rate: int = 16000,
    **settings: Any,
) -> Path:
    """k-means over one layer's frames, streamed; a folder for `load_kmeans`. Goes on after the last whole pass.

    Args:
        work: where.
        name: of these clusters.
        encoder: frozen, from waveforms; a `SpectralFront` for clusters of cepstra.
        cuts: whose frames.
        num_clusters: how many.
        layer: see `units.tokenizer.layer_of`.
        batches: budgets of the passes.
        sample_rate: Hz, of what the encoder takes.
        settings: fields of `KMeansConfig`.
    """
    config = KMeansConfig(num_clusters=num_clusters, seed=derive(work.seed, "clusters", name) % 2**31, **settings)

    def frames() -> Iterator[Tensor]:
        encoder.eval()
        for _, found in streamed(
            cuts, _at(batches, sample_rate), lambda b: layer_of(encoder, b, layer), device=_device(encoder)
        ):
            yield found.values[valid_mask(found.lengths, found.values.shape[1])]

    def make(folder: Path) -> None:
        plain = {n: v for n, v in to_plain(config).items() if n != "num_clusters"}
        model = fit_kmeans(frames, num_clusters, state=folder / "state.safetensors", **plain)
        shape = {"num_clusters": num_clusters, "dim": model.dim, "metric": model.metric}
        save_checkpoint(folder / "kmeans", kind="kmeans", weights=model.state_dict(), config=shape)
        (folder / "state.safetensors").unlink()

    inputs = {"encoder": module_digest(encoder), "layer": layer, "kmeans": to_plain(config), "cuts": content_of(cuts)}
    return work.stage(f"clusters-{name}", make, inputs, resumable=True) / "kmeans"


def _device(module: nn.Module) -> torch.device:
    return next((tensor.device for tensor in [*module.parameters(), *module.buffers()]), torch.device("cpu"))


def load_kmeans(folder: str | Path) -> KMeans:
    """The clusters of a `cluster_stage`.

    Raises:
        CheckpointError: there are none.
    """
    found = load_checkpoint(folder, kind="kmeans")
    model = KMeans(**found.config)
    load_weights(model, found.weights, where=str(folder))
    return model.eval()


def units_stage(
    work: Workspace, name: str, tokenizer: UnitTokenizer, cuts: Any, batches: BatchConfig = _STREAM
) -> UnitStore:
    """Labels a corpus and checks the labels.

    Args:
        work: where.
        name: of these units.
        tokenizer: makes them.
        cuts: whose; join the cuts of several splits to label them all.
        batches: budgets.

    Raises:
        DataError: the units cannot teach anything: see `check_units`.
    """

    def make(folder: Path) -> None:
        items = tokenise(tokenizer, cuts, batches)
        store = write_units(
            folder / "units", items, offset=tokenizer.offset, sample_rate=tokenizer.sample_rate, note={"name": name}
        )
        check_units(store, cuts)

    inputs = {"tokenizer": module_digest(tokenizer), "layer": tokenizer.layer, "cuts": content_of(cuts)}
    return UnitStore(work.stage(f"units-{name}", make, inputs) / "units")


def agreement(store: UnitStore, cuts: Any, arm: str, silence: Sequence[str] = ()) -> list[Score]:
    """`arm/pnmi`, `arm/phone_purity` and `arm/cluster_purity` of stored units with the cuts' phones, by utterance.

    Args:
        store: of all the cuts.
        cuts: with phone alignments.
        arm: before the slash of the scores' names.
        silence: phones that do not count.
    """
    metrics = [UnitAgreement(name, f"{arm}/{name}") for name in ("pnmi", "phone_purity", "cluster_purity")]
    for cut in cuts:
        units, said = store.of(cut), [p for p in alignment_of(cut, "phone") if p.label not in silence]
        names = sorted({phone.label for phone in said})
        ids = {name: i for i, name in enumerate(names)}
        labels = frame_labels(said, len(units), store.frame_rate, ids=ids, offset=store.offset)
        inside = labels >= 0
        for metric in metrics:
            metric.update([names[i] for i in labels[inside]], units[inside])
    return [metric.score() for metric in metrics]


# --- training ---------------------------------------------------------------------------------------------------------

Label = UnitStore | Callable[[Any], Any]


@dataclass(frozen=True)
class _Job:
    """What a training process needs; it travels to other processes."""

    build: Callable[[], nn.Module]
    cuts: Any
    config: PretrainConfig
    labels: Mapping[str, Label]
    folder: Path
    settings: dict[str, Any]
    seed: int
    num_workers: int
    progress: bool
    accelerator: str
    sample_rate: int
    validate: Callable[[nn.Module], Sequence[Score]] | None
    resume: Resume


def pretrain_stage(
    work: Workspace,
    arm: str,
    build_objective: Callable[[], nn.Module],
    cuts: Any,
    config: PretrainConfig,
    labels: Mapping[str, Label] | None = None,
    settings: Any = (),
    *,
    sample_rate: int = 16000,
    validate: Callable[[nn.Module], Sequence[Score]] | None = None,
) -> Path:
    """Trains an objective and keeps its encoder: a folder for `load_trained_encoder`.

    Args:
        work: where; as many processes as it says.
        arm: name of this arm of the experiment.
        build_objective: makes a module with `losses(batch)` and `encoder`; importable, as it travels to other processes.
        cuts: to train on.
        config: how.
        labels: name → units, which are put onto the encoder's own frames, or a callable that takes a cut.
        settings: all that the objective depends on, plain or configurations; labels that are callables count here too.
        sample_rate: Hz, of what the encoder takes.
        validate: objective → scores, at `config.loop.validate_every`; the weights with the best first score are kept.

    Raises:
        DataError: labels do not cover the cuts.
        Diagnosis: training cannot succeed.
    """
    labels = labels or {}
    stores = {name: store.digest() for name, store in labels.items() if isinstance(store, UnitStore)}
    how = {**to_plain(config), "loop": {**learning_fields(config.loop), "validate_every": config.loop.validate_every}}
    # How the audio is read changes no batch.
    how["batches"] = to_plain(config.batches.packing())
    inputs = {"settings": to_plain(settings), "training": how, "cuts": content_of(cuts), "labels": stores}

    def make(folder: Path) -> None:
        job = _Job(
            build_objective, cuts, config, labels, folder, inputs, derive(work.seed, "pretrain") % 2**31, work.num_workers,
            work.progress, work.accelerator, sample_rate, validate, work.resume,
        )  # fmt: skip
        launch(_pretrain, work.devices, job)

    return work.stage(f"pretrain-{arm}", make, inputs, resumable=True, collective=True) / "encoder"


def _pretrain(job: _Job) -> None:
    # Weights first, from the run's seed: the same in every process and on every machine.
    seed_everything(job.seed)
    objective = job.build()
    encoder: Any = objective.encoder
    config = replace(job.config.batches, sample_rate=job.sample_rate, num_workers=job.num_workers)
    labels = {name: _aligned(label, encoder, job.sample_rate) for name, label in job.labels.items()}

    def batches(rank: int, world_size: int) -> Batches:
        return Batches(job.cuts, config, labels=labels, seed=job.seed, rank=rank, world_size=world_size, train=True)

    diagnose = getattr(objective, "diagnose", None)
    result = fit(
        objective,
        batches,
        {"model": build_optimizer(job.config.optim, objective)},
        steps=job.config.steps,
        folder=job.folder / "training",
        config=replace(job.config.loop, seed=job.seed, progress=job.progress, accelerator=job.accelerator),
        settings=job.settings,
        schedules={"model": build_schedule(job.config.schedule, job.config.steps)},
        validate=None if job.validate is None else _bound(job.validate, objective),
        diagnose=diagnose,
        resume=job.resume,
    )
    if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return
    # In a module of its own: the one that was trained may be compiled, or spread over workers.
    seed_everything(job.seed)
    trained = job.build()
    step = restore_weights(trained, job.folder / "training")
    told = {
        "steps": result.step,
        "kept_step": step,
        "audio_hours": result.audio_seconds / 3600,
        "audio_seconds_per_second": result.audio_seconds_per_second,
        "seconds": result.seconds,
        "waiting_share": result.waiting_share,
        "losses": dict(result.losses),
    }
    save_trained_encoder(trained.encoder, job.folder / "encoder", {"training": json.loads(json.dumps(told))})  # type: ignore[arg-type]


def _bound(validate: Callable[[nn.Module], Sequence[Score]], objective: nn.Module) -> Callable[[], Sequence[Score]]:
    return lambda: validate(objective)


def _aligned(label: Label, encoder: Any, sample_rate: int) -> Callable[[Any], Any]:
    if not isinstance(label, UnitStore):
        return label
    # On the CPU and apart from the module, which may be on another device and large.
    return label.at(
        float(encoder.frame_rate), first_centre(encoder.output_lengths, sample_rate), encoder.output_lengths
    )
