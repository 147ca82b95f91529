"""What the recipes of self-supervised systems share: one corpus, one way to pre-train an arm, one way to judge it.

A recipe says which network, which objective, which arms. `Study` opens the corpus, gathers the spectrum's statistics, and
offers the stages: `units`, `pretrain`, `judge`, `references`. Whatever two arms do not differ in is the same for both.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from sonorant.benchmark.codes import CodeStores, clusters_stage, codes_stage, tokenised_stage
from sonorant.benchmark.discrimination import abx_stage
from sonorant.benchmark.encoding import encoding_stage
from sonorant.benchmark.finetuning import finetune_stage
from sonorant.benchmark.pretraining import (
    PretrainConfig,
    agreement,
    cluster_stage,
    load_kmeans,
    pretrain_stage,
    statistics_stage,
    units_stage,
)
from sonorant.benchmark.probe import sample_cuts
from sonorant.benchmark.protocol import (
    ProtocolConfig,
    check_protocol,
    from_waveforms,
    judge,
    network,
    random_encoder,
    references,
    swapped_units,
)
from sonorant.benchmark.workspace import Workspace
from sonorant.core.checkpoint import checkpoint_digest, load_checkpoint
from sonorant.core.config import to_plain
from sonorant.core.lengths import zero_padding
from sonorant.core.seed import normal
from sonorant.core.types import Batch, Loss, Score
from sonorant.encoders.checkpoint import KIND, describe_config, load_trained_encoder
from sonorant.encoders.spectral import FrontConfig, OnSpectrumConfig, log_mel_front
from sonorant.encoders.tokenised import tokenised
from sonorant.objectives.future import FutureConfig, quantizer_of
from sonorant.objectives.token_bert import TokenBertConfig
from sonorant.train.checkpoint import restore_weights
from sonorant.units.store import UnitStore
from sonorant.units.tokenizer import UnitTokenizer

__all__ = ["Study", "StudyConfig"]


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What all arms of a recipe have in common."""

    corpus: str = ""
    """Used where --corpus does not say."""
    unlabelled: str = ""
    """A further corpus, as --corpus names one, whose split `train` is pre-trained on too; nothing is judged on it."""
    front: FrontConfig = field(default_factory=lambda: log_mel_front(dim=80))
    """Spectral frames before an encoder that does not take waveforms."""
    training: PretrainConfig = field(default_factory=PretrainConfig)
    """Of each arm."""
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    """How an arm is judged."""


class Study:
    """A recipe's corpus, front end and judges at hand.

    Args:
        work: where.
        config: what all arms share.
        encoder: configuration of the network, of waveforms or of the front's frames; arms may bring another.
    """

    def __init__(self, work: Workspace, config: StudyConfig, encoder: Any) -> None:
        self.work, self.config = work, config
        self.corpus = work.open_corpus(config.corpus)
        check_protocol(self.corpus, config.protocol)
        self.train = self.corpus.split("train")
        if config.unlabelled:
            self.train = self.train + work.open_further(config.unlabelled).split("train")
        self.encoder = from_waveforms(encoder, config.front)
        self.front = self._statistics(self.encoder)

    def _statistics(self, encoder: Any) -> Path | None:
        if not isinstance(encoder, OnSpectrumConfig):
            return None
        return statistics_stage(self.work, encoder.front, self.train)

    def spectrum(self, front: FrontConfig) -> Path:
        """Normalised spectral frames as a trained encoder without layers."""
        return statistics_stage(self.work, front, self.train)

    def random(self, encoder: Any = None) -> Path:
        """The network, or another one, before training."""
        if encoder is None:
            return random_encoder(self.work, self.encoder, self.front)
        own = from_waveforms(encoder, self.config.front)
        return random_encoder(self.work, own, self._statistics(own))

    def units(self, name: str, source: Path, num_clusters: int, layer: int | None = None) -> UnitStore:
        """The training split labelled by clusters of one layer of a trained encoder."""
        module = load_trained_encoder(source)
        clusters = cluster_stage(self.work, name, module, self.train, num_clusters, layer=layer)
        return units_stage(self.work, name, UnitTokenizer(module, load_kmeans(clusters), layer), self.train)

    def swapped(self, units: UnitStore) -> UnitStore:
        """The control: each cut with the units of another."""
        return swapped_units(self.work, units)

    def agreement(self, units: UnitStore, arm: str) -> list[Score]:
        """`arm/pnmi` and purities of units with the phones of the training split; none where phones are not judged."""
        if not self.config.protocol.probe.phones:
            return []
        return agreement(units, self.train, arm, self.config.protocol.probe.silence)

    def pretrain(
        self,
        arm: str,
        objective: Any,
        labels: Mapping[str, UnitStore] | None = None,
        *,
        encoder: Any = None,
        start: Path | None = None,
        training: PretrainConfig | None = None,
        parts: Mapping[str, Any] | None = None,
        deaf: bool = False,
    ) -> Path:
        """Trains a network by an objective; a folder for `load_trained_encoder`.

        Args:
            arm: name of this arm.
            objective: configuration; its file's `build(encoder, config, **parts)` makes the module.
            labels: name → units.
            encoder: configuration of another network.
            start: trained encoder to start from; random weights where None.
            training: other than the study's.
            parts: name → partial that makes a module which the objective takes beside its configuration.
            deaf: the control of objectives without labels: it hears noise in place of speech.
        """
        own = self.encoder if encoder is None else from_waveforms(encoder, self.config.front)
        front = self.front if encoder is None else self._statistics(own)
        made = dict(parts or {})
        settings = {
            "encoder": describe_config(own),
            "objective": {"kind": type(objective).__name__, **to_plain(objective)},
            "parts": {name: _told(part) for name, part in made.items()},
            "start": "" if start is None else checkpoint_digest(start),
            "deaf": deaf,
        }
        build = partial(_objective, own, front, objective, made, start, deaf)
        return pretrain_stage(
            self.work, arm, build, self.train, training or self.config.training, dict(labels or {}), settings
        )

    def trained(self, folder: Path, objective: Any, *, encoder: Any = None) -> Any:
        """The objective of a `pretrain` as it was trained, with what it has beside the encoder, such as its quantiser.

        Args:
            folder: what `pretrain` gave.
            objective: the same configuration.
            encoder: likewise.
        """
        own = self.encoder if encoder is None else from_waveforms(encoder, self.config.front)
        front = self.front if encoder is None else self._statistics(own)
        module = _objective(own, front, objective, {}, None, False)
        restore_weights(module, folder.parent / "training")
        return module.eval()

    def on_codes(
        self, name: str, folder: Path, objective: FutureConfig, over: Any, *, encoder: Any = None
    ) -> tuple[Path, CodeStores]:
        """A network over the codes of a trained quantiser, before it has learnt anything, and the training split's codes.

        Args:
            name: of these codes.
            folder: what `pretrain` gave.
            objective: with which it was trained, with a quantiser.
            over: configuration of the network over the codes.
            encoder: of another network than the study's.
        """
        trained = self.trained(folder, objective, encoder=encoder)
        kind, options = quantizer_of(trained.encoder.local_dim, objective)
        config = tokenised(trained.encoder, kind, options, over, layer=0)
        fresh = tokenised_stage(self.work, name, config, folder, trained.quantizer)
        return fresh, codes_stage(self.work, name, fresh, self.train)

    def on_clusters(
        self, name: str, source: Path, num_clusters: int, over: Any, layer: int | None = None
    ) -> tuple[Path, CodeStores]:
        """The same over clusters of one layer of a trained encoder."""
        module = load_trained_encoder(source)
        clusters = cluster_stage(self.work, name, module, self.train, num_clusters, layer=layer)
        fresh = clusters_stage(self.work, name, source, clusters, over, layer)
        return fresh, codes_stage(self.work, name, fresh, self.train)

    def bert(
        self, arm: str, fresh: Path, codes: CodeStores, words: TokenBertConfig, training: PretrainConfig | None = None
    ) -> Path:
        """Trains the network over codes to name those that are hidden; the encoder from waveforms that it is part of."""
        config: Any = load_trained_encoder(fresh).config
        words = replace(words, streams=tuple(codes.streams))
        return self.pretrain(arm, words, codes.streams, encoder=config, start=fresh, training=training)

    def judge(self, arm: str, encoder: Path, finetune: bool = True) -> list[Score]:
        """`arm/phone_accuracy`, `arm/speaker_accuracy`, with `_noisy`, and `arm/per`."""
        protocol = self.config.protocol if finetune else replace(self.config.protocol, finetune=None)
        return judge(self.work, arm, encoder, self.corpus, protocol)

    def speed(self, arm: str, encoder: Path) -> list[Score]:
        """`arm/audio_rate`: seconds of audio that its training went through in a second, as it was measured then."""
        told = load_checkpoint(encoder, kind=KIND, verify=False).extra["training"]
        return [
            Score(f"{arm}/audio_rate", float(told["audio_seconds_per_second"]), "higher", num_items=int(told["steps"]))
        ]

    def training_seconds(self, arm: str, encoder: Path) -> list[Score]:
        """`arm/train_seconds`: of the clock, as they were measured then."""
        told = load_checkpoint(encoder, kind=KIND, verify=False).extra["training"]
        return [Score(f"{arm}/train_seconds", float(told["seconds"]), "lower", num_items=int(told["steps"]))]

    def encoding(self, arm: str, encoder: Path) -> list[Score]:
        """`arm/gmacs` for a second of audio, `arm/encode_rate` and `arm/parameters`: see `encoding_scores`."""
        return encoding_stage(self.work, arm, encoder)

    def abx(self, arm: str, encoder: Path, layer: int | None = None, **options: Any) -> list[Score]:
        """`arm/abx_within` and `arm/abx_across` of the phones that the probes are tested on; see `abx_scores`."""
        cuts = sample_cuts(self.corpus.split("test"), self.config.protocol.probe.num_test, self.work.seed)
        return abx_stage(self.work, arm, encoder, cuts, layer=layer, **options)

    def references(self, finetune: bool = True) -> list[Score]:
        """The arms `random` (its `per` is the network trained from scratch) and `log_mel`."""
        protocol = self.config.protocol if finetune else replace(self.config.protocol, finetune=None)
        return references(self.work, self.encoder, self.corpus, protocol, self.front)

    def scratch(self, arm: str, encoder: Any) -> list[Score]:
        """`arm/per` of another network that was trained on the few labels alone; none where nothing is fine-tuned."""
        finetune = self.config.protocol.finetune
        if finetune is None:
            return []
        return finetune_stage(self.work, arm, self.random(encoder), self.corpus, finetune, scratch=True)

    def arms(
        self,
        objectives: Mapping[str, Any],
        always: Sequence[str],
        finetuned: Sequence[str] | None = None,
        **options: Any,
    ) -> list[Score]:
        """Pre-trains and judges those arms that always run and those that were asked for.

        Args:
            objectives: arm → configuration of its objective; the arm "deaf" hears noise.
            always: arms that run in any case.
            finetuned: arms that are fine-tuned too; all but "deaf" where None.
            options: as for `pretrain`, for all arms.
        """
        scores = list[Score]()
        tuned = set(objectives) - {"deaf"} if finetuned is None else set(finetuned)
        for arm, objective in objectives.items():
            if arm in always or arm in self.work.arms:
                encoder = self.pretrain(arm, objective, deaf=arm == "deaf", **options)
                scores += self.judge(arm, encoder, finetune=arm in tuned)
        return scores


class Deaf(nn.Module):
    """An objective that hears noise of the items' lengths and loudness in place of them: what is learnt without speech."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective: Any = objective

    @property
    def encoder(self) -> Any:
        """Of the objective."""
        return self.objective.encoder

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """The objective's, of noise."""
        assert batch.seeds is not None
        noise = normal(batch.seeds, "deaf", batch.waveform.shape[1]).to(batch.waveform)
        level = zero_padding(batch.waveform, batch.lengths).square().mean(dim=1, keepdim=True).sqrt()
        losses: dict[str, Loss] = self.objective.losses(replace(batch, waveform=noise * level))
        return losses


def _told(part: Any) -> Any:
    """A part of an objective in plain values: what makes it, with what; a path is a checkpoint, told by its content."""
    options = {n: checkpoint_digest(v) if isinstance(v, Path) else to_plain(v) for n, v in part.keywords.items()}
    return {"function": f"{part.func.__module__}.{part.func.__qualname__}", "options": options}


def _objective(
    encoder: Any, front: Path | None, objective: Any, parts: Mapping[str, Any], start: Path | None, deaf: bool
) -> nn.Module:
    """The network inside its objective; called in every process of a training."""
    body = network(encoder, front) if start is None else load_trained_encoder(start)
    made = {name: part() for name, part in parts.items()}
    module: nn.Module = importlib.import_module(type(objective).__module__).build(body, objective, **made)
    return Deaf(module) if deaf else module
