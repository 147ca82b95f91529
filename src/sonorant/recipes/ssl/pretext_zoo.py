"""A zoo of pretext tasks: what self-supervised objectives teach the same network. After the review of Mohamed et al., 2022,
arXiv:2205.10643.

The review compares published models; here network, data, steps, optimiser and judges are the same, and only what is asked
for differs: reconstruction (APC, Mockingjay, TERA), contrasts (CPC, wav2vec 2.0), prediction of units or of a teacher
(HuBERT, BEST-RQ, data2vec, DinoSR). Objectives that hide frames hide the same ones. APC and CPC predict what comes: their
network has the same layers, blind to the future. NPC is left out, as it wants layers that are blind to the frame itself.
Each objective is as it was published; HuBERT's asks for hidden frames only, though other toy presets of ours ask for all.
Fixed spectral frames stand in place of learnt convolutions in all arms. A family's scores are means over its members.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.pretraining import PretrainConfig
from sonorant.benchmark.probe import ProbeConfig
from sonorant.benchmark.protocol import ProtocolConfig, toy_protocol
from sonorant.benchmark.settings import (
    TOY_MASK,
    tiny_network,
    tiny_study,
    toy_data2vec,
    toy_dinosr,
    toy_network,
    toy_study,
    toy_wav2vec2,
)
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.encoders.conformer import ConformerConfig, conformer_small
from sonorant.encoders.spectral import FrontConfig, log_mel_front, mfcc_front
from sonorant.nn.alteration import Alteration
from sonorant.objectives.contrastive import Wav2Vec2Config
from sonorant.objectives.future import FutureConfig, cpc_objective
from sonorant.objectives.masked_prediction import MaskedPredictionConfig, hubert_objective
from sonorant.objectives.random_projection import BestRqConfig, best_rq_objective
from sonorant.objectives.reconstruction import ReconstructionConfig, apc_objective, mockingjay_objective, tera_objective
from sonorant.objectives.self_distillation import Data2VecConfig, DinoSrConfig

CARD = Card(
    system="19",
    title="Pretext zoo",
    paper="arXiv:2205.10643",
    family="ssl",
    headline="a review: it sorts objectives into generative, contrastive and predictive ones",
)

FAMILIES = {
    "reconstruction": ("apc", "mockingjay", "tera"),
    "contrastive": ("cpc", "wav2vec2"),
    "predictive": ("hubert", "best_rq", "data2vec", "dinosr"),
}
FORWARD = ("apc", "cpc")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are those of a network of some five million parameters at 25 frames a second."""

    study: StudyConfig = field(default_factory=lambda: StudyConfig(front=log_mel_front(25)))
    """Corpus, front, training, judges of all arms."""
    encoder: ConformerConfig = field(
        default_factory=lambda: conformer_small(num_layers=8, position="rotary", subsampling="stack", factor=1)
    )
    """Network of all arms."""
    apc: ReconstructionConfig = field(default_factory=lambda: apc_objective(shift=2))
    """Frames to come."""
    mockingjay: ReconstructionConfig = field(default_factory=lambda: mockingjay_objective(span=2))
    """Hidden frames as they were: masked predictive coding."""
    tera: ReconstructionConfig = field(default_factory=lambda: tera_objective(alter=Alteration(time_share=0.3, span=2)))
    """Altered frames, bands and magnitudes as they were."""
    cpc: FutureConfig = field(default_factory=lambda: cpc_objective(num_steps=6))
    """Frames to come among others."""
    wav2vec2: Wav2Vec2Config = field(default_factory=toy_wav2vec2)
    """Codes of hidden frames among others."""
    hubert: MaskedPredictionConfig = field(
        default_factory=lambda: hubert_objective(100, mask=TOY_MASK, feature_weight=0.0)
    )
    """Clusters of hidden frames."""
    best_rq: BestRqConfig = field(default_factory=lambda: best_rq_objective(mask=TOY_MASK, codebook_size=512))
    """Random codes of hidden frames."""
    data2vec: Data2VecConfig = field(default_factory=toy_data2vec)
    """A teacher's layers at hidden frames."""
    dinosr: DinoSrConfig = field(default_factory=toy_dinosr)
    """Codes of a teacher's layers at hidden frames."""
    targets: FrontConfig = field(default_factory=lambda: mfcc_front(25))
    """Frames whose clusters are HuBERT's units."""
    num_units: int = 100
    """Clusters."""
    layer: int = 6
    """Whose frames ABX compares."""
    abx_items: int = 5
    """Of one phone and speaker that ABX compares."""


def paper() -> Config:
    """The review trains nothing; this is the comparison with more layers and steps."""
    training = PretrainConfig(steps=100_000, batches=BatchConfig(max_seconds=600))
    protocol = ProtocolConfig(probe=ProbeConfig(words=True), finetune=None)
    return Config(study=StudyConfig(front=log_mel_front(25), training=training, protocol=protocol))


def toy() -> Config:
    """A minute or two an arm on two cores, an hour of the built-in corpus."""
    protocol = toy_protocol(probe=ProbeConfig(words=True), finetune=None)
    return Config(study=toy_study(protocol=protocol), encoder=toy_network(), layer=3, abx_items=3)


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    study = tiny_study(base.study)
    probe = replace(study.protocol.probe, words=True, speakers=True, speaker_utterances=2)
    head = replace(base.hubert.heads[0], num_units=8)
    return replace(
        base,
        study=replace(study, protocol=replace(study.protocol, probe=probe)),
        encoder=tiny_network(),
        cpc=replace(base.cpc, num_negatives=5),
        wav2vec2=replace(base.wav2vec2, codebook_size=8, code_dim=16, dim=16, num_negatives=5),
        hubert=replace(base.hubert, heads=(head,)),
        best_rq=replace(base.best_rq, codebook_size=16),
        data2vec=replace(base.data2vec, top_layers=2),
        dinosr=replace(base.dinosr, top_layers=2, codebook_size=8),
        num_units=8,
        layer=1,
        abx_items=2,
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    *(
        Claim("phone_accuracy", of=arm, above="random", why="frames of the trained network tell phones apart")
        for arms in FAMILIES.values()
        for arm in arms
    ),
    Claim("phone_accuracy", of="predictive", above="reconstruction", why="units are about phones…"),
    Claim("phone_accuracy", of="contrastive", above="reconstruction", why="…and so is what tells frames apart"),
    Claim("speaker_accuracy", of="reconstruction", above="predictive", why="whole frames are about voices too"),
    Claim("phone_accuracy", of="hubert", above="deaf", why="units heard under noise teach nothing"),
    Claim("phone_accuracy", of="deaf", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def family(name: str, members: Sequence[str], scores: Sequence[Score]) -> list[Score]:
    """`name/metric`: for each metric the mean over the members."""
    by_metric: dict[str, list[Score]] = {}
    for score in scores:
        arm, _, metric = score.name.partition("/")
        if arm in members:
            by_metric.setdefault(metric, []).append(score)
    return [
        Score(f"{name}/{metric}", fmean(score.value for score in found), found[0].better, num_items=len(found))
        for metric, found in by_metric.items()
    ]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → the same network by each objective → probes of phones, words and speakers, ABX; means of families."""
    study = Study(work, config.study, config.encoder)
    units = {"units": study.units("targets", study.spectrum(config.targets), config.num_units)}
    forward = replace(config.encoder, causal=True, chunk_size=1)
    trained = {"random": study.random(), "log_mel": study.spectrum(config.study.front)}
    for arm in (arm for arms in FAMILIES.values() for arm in arms):
        labels = units if arm == "hubert" else None
        own = forward if arm in FORWARD else None
        trained[arm] = study.pretrain(arm, getattr(config, arm), labels, encoder=own)
    if "deaf" in work.arms:
        trained["deaf"] = study.pretrain("deaf", config.hubert, units, deaf=True)
    scores = list[Score]()
    for arm, encoder in trained.items():
        scores += study.judge(arm, encoder)
        layer = None if arm == "log_mel" else config.layer
        scores += study.abx(arm, encoder, layer, context="any", max_items=config.abx_items)
    return scores + [score for name, arms in FAMILIES.items() for score in family(name, arms, scores)]
