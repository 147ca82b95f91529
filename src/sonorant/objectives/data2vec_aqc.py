"""data2vec-aqc (arXiv:2211.01246): data2vec whose student hears a changed copy, and a contrast between both copies' codes.

Three additions to data2vec. Augmentation: the student hears noise or a room, the teacher the clean item. Quantiser: the front
end's frames of both copies become codes q (clean) and q' (changed). Clustering and cross-contrast: the student's hidden
frames must point at q, the teacher's at q'; negatives that fall into the cluster of the positive weigh less.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Batch, Features, Loss
from sonorant.losses.contrastive import contrastive_logits, info_nce, negatives_within
from sonorant.losses.distill import layer_targets, regression_loss
from sonorant.nn.masking import frames_at, hidden_first
from sonorant.objectives.collapse import contrast_statistics, frame_statistics
from sonorant.objectives.contrastive import QuantizedTargets, Targets, Wav2Vec2Config
from sonorant.objectives.self_distillation import Data2VecConfig, check_top_layers, teacher_layers
from sonorant.objectives.steps import StepCounter
from sonorant.objectives.teacher import Teacher, ramp
from sonorant.objectives.views import Hiding, heard, local_features, penalised, seeds_of, takes_waveform

__all__ = ["Data2VecAqc", "Data2VecAqcConfig", "cluster_positions", "data2vec_aqc_objective"]


@dataclass(frozen=True, kw_only=True)
class Data2VecAqcConfig:
    """data2vec-aqc; the defaults are those of section 3 and the authors' code."""

    regression: Data2VecConfig = field(default_factory=Data2VecConfig)
    """data2vec's own part."""
    contrast: Wav2Vec2Config = field(default_factory=lambda: Wav2Vec2Config(feature_weight=0.0))
    """Quantiser, negatives and temperature (100 negatives of the item, 0.1)."""
    contrast_weight: float = 0.5
    """Of each of the two contrastive losses."""
    cluster_factor: int = 16
    """Hidden frames a cluster; 0 clusters nothing."""
    cluster_scale: float = 0.3
    """Logits of negatives in the positive's cluster are multiplied by it."""
    cluster_rounds: int = 5
    """Rounds of k-means."""

    def __post_init__(self) -> None:
        for name in ("contrast_weight", "cluster_factor", "cluster_rounds"):
            at_least(name, getattr(self, name), 0)
        within("cluster_scale", self.cluster_scale, 0, 1)
        if not self.contrast.num_codebooks or self.contrast.cross_negatives:
            raise ConfigError("data2vec-aqc contrasts codes of one item: num_codebooks ≥ 1 and cross_negatives = 0")


@torch.no_grad()
def cluster_positions(
    values: Float[Tensor, "batch position dim"], counts: Int[Tensor, " batch"], factor: int, rounds: int = 5
) -> Int[Tensor, "batch position"]:
    """Cosine k-means of each item's positions by itself, into one cluster for each `factor` of them.

    It begins with positions at equal distances, so an item's clusters are a function of the item.

    Args:
        values: of the positions.
        counts: positions of each item; those beyond get any cluster.
        factor: positions a cluster.
        rounds: of assigning and averaging.
    """
    size, positions, _ = values.shape
    unit = normalize(values.float(), dim=-1)
    valid = valid_mask(counts, positions)
    numbers = (counts // factor).clamp(min=1)
    most = int(numbers.max()) if size else 0
    starts = torch.arange(most, device=values.device) * counts[:, None] // numbers[:, None]
    centers = frames_at(unit, starts.clamp(max=max(positions - 1, 0)))
    beyond = ~valid_mask(numbers, most)[:, None]  # clusters that the item does not have
    clusters = torch.zeros(size, positions, dtype=torch.long, device=values.device)
    for _ in range(rounds):
        clusters = (unit @ centers.mT).masked_fill(beyond, float("-inf")).argmax(dim=-1)
        member = nn.functional.one_hot(clusters, most).to(unit.dtype) * valid[..., None]
        sums = member.mT @ unit
        # A cluster that lost its positions keeps its centre.
        centers = torch.where(member.sum(dim=1)[..., None] > 0, normalize(sums, dim=-1), centers)
    return clusters


class _Views(NamedTuple):
    local: Features
    context: Features
    teacher: Float[Tensor, "batch position dim"]
    """The mean of its top layers, at the hidden frames."""
    student: Float[Tensor, "batch position dim"]
    clean: Targets
    changed: Targets
    counts: Int[Tensor, " batch"]
    seeds: Int[Tensor, " batch"]


class Data2VecAqc(nn.Module):
    """See the module's docstring.

    Args:
        encoder: of waveforms.
        config: both parts and their weights.
        augment: changes what the student hears and keeps lengths.
    """

    def __init__(
        self, encoder: nn.Module, config: Data2VecAqcConfig, augment: Callable[[Batch], Batch] | None = None
    ) -> None:
        super().__init__()
        self.config, self.augment = config, augment
        self.encoder: Any = takes_waveform(encoder, "Data2VecAqc")
        regression, contrast = config.regression, config.contrast
        check_top_layers(encoder, regression.top_layers)
        self.hiding = Hiding(regression.mask, encoder)
        self.head = nn.Linear(self.encoder.dim, self.encoder.dim)
        self.teacher = Teacher(encoder, averaged=self.encoder.blocks)
        self.steps = StepCounter(encoder)
        self.targets = QuantizedTargets(self.encoder.local_dim, contrast, self.steps)
        self.project = nn.Linear(self.encoder.dim, contrast.dim)
        self._decay = ramp(regression.decay_start, regression.decay_end, regression.decay_steps)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": regression, both contrasts and diversity, over hidden frames}."""
        if self.training:
            self.steps.tick()
            self.teacher.follow(self._decay)
        views, config = self._views(batch), self.config
        valid = valid_mask(views.counts, views.student.shape[1])
        regression = config.regression
        loss = regression_loss(self.head(views.student[valid]), views.teacher[valid], regression.kind, regression.beta)
        first, second = (info_nce(logits, views.counts) for logits in self._contrasts(views))
        diversity = (views.clean.penalty + views.changed.penalty) * loss.count
        total = loss.total + config.contrast_weight * (first.total + second.total + diversity)
        parts = {
            **loss.parts,
            "contrast_student": config.contrast_weight * first.parts["contrastive"],
            "contrast_teacher": config.contrast_weight * second.parts["contrastive"],
            "diversity": config.contrast_weight * diversity.detach(),
            "correct": first.parts["correct"],
        }
        weight = regression.feature_weight
        return {"model": penalised(Loss(total, loss.count, parts), views.local, views.counts, weight)}

    def _views(self, batch: Batch) -> _Views:
        seeds = seeds_of(batch, "Data2VecAqc")
        changed = heard(batch, self.augment, "Data2VecAqc")
        gradient, top = self.config.regression.local_gradient, self.config.regression.top_layers
        local, clean = (local_features(self.encoder, b, gradient) for b in (changed, batch))
        hidden, mask = self.hiding(self.encoder.embed(local), seeds)
        context = self.encoder.context(hidden)
        places, counts = hidden_first(mask)
        with torch.no_grad():
            layers = [layer.values for layer in teacher_layers(self.teacher, self.encoder.embed(clean))]
            means = layer_targets(layers, clean.lengths, top)
        return _Views(
            local,
            context,
            frames_at(means, places),
            frames_at(context.values, places),
            self.targets(frames_at(clean.values, places), counts, seeds),
            self.targets(frames_at(local.values, places), counts, seeds),
            counts,
            seeds,
        )

    def _contrasts(self, views: _Views) -> list[Float[Tensor, "batch position logit"]]:
        """The student against the clean copy's codes, and the teacher against the changed copy's."""
        config, positions = self.config, views.student.shape[1]
        negatives = negatives_within(views.seeds, views.counts, positions, config.contrast.num_negatives)
        clusters = self._clusters(views)
        pairs = ((views.student, views.clean, clusters[0]), (views.teacher, views.changed, clusters[1]))
        return [
            contrastive_logits(
                self.project(frames.to(views.student.dtype)),
                targets.values,
                negatives,
                temperature=config.contrast.temperature,
                codes=targets.codes,
                clusters=cluster,
                cluster_scale=config.cluster_scale,
            )
            for frames, targets, cluster in pairs
        ]

    def _clusters(self, views: _Views) -> tuple[Tensor | None, Tensor | None]:
        """Clusters of the codes of both copies, found together."""
        if not self.config.cluster_factor:
            return None, None
        # Both copies of a position stand side by side, so that valid positions come first.
        pooled = torch.stack([views.clean.values, views.changed.values], dim=2).flatten(1, 2)
        factor = 2 * self.config.cluster_factor
        clusters = cluster_positions(pooled, 2 * views.counts, factor, self.config.cluster_rounds)
        return clusters[:, 0::2], clusters[:, 1::2]

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of the student's frames, use of codes, and how often the right code is chosen."""
        views = self._views(batch)
        logits = self._contrasts(views)[0]
        found = contrast_statistics(info_nce(logits, views.counts), logits.shape[-1])
        assert views.clean.perplexity is not None
        return {**frame_statistics(views.context), **found, "target_perplexity": float(views.clean.perplexity.min())}


def data2vec_aqc_objective(**changes: Any) -> Data2VecAqcConfig:
    """data2vec-aqc base; give `Data2VecAqc` noise and rooms as `augment`."""
    return replace(Data2VecAqcConfig(), **changes)


def build(
    encoder: nn.Module, config: Data2VecAqcConfig, augment: Callable[[Batch], Batch] | None = None
) -> Data2VecAqc:
    """The objective of a configuration."""
    return Data2VecAqc(encoder, config, augment)
