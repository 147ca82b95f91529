"""BERT over codes or over frames, fine-tuned by CTC with few labels. Baevski, Auli and Mohamed, 2019, arXiv:1911.03912.

One network, pre-trained in two ways: to name hidden codes, those of vq-wav2vec (`main`) or clusters of cepstra and of log-mel
(`mfcc_codes`, `log_mel_codes`), or to tell hidden frames of log-mel from others (`continuous`). All are fine-tuned as they
are, beside the same network on the codes and on the spectrum without pre-training (`unpretrained`, `random`). Where we
differ: a code of vq-wav2vec is two codes whose embeddings are added; positions are sinusoids; no language model.
"""

from dataclasses import dataclass, field, replace

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.codes import shuffled_codes
from sonorant.benchmark.pretraining import PretrainConfig
from sonorant.benchmark.settings import tiny_study, tiny_transformer, toy_study, toy_transformer, toy_vq_wav2vec
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.encoders.conformer import ConformerConfig
from sonorant.encoders.cpc import Wav2VecConfig, vq_wav2vec
from sonorant.encoders.spectral import FrontConfig, mfcc_front
from sonorant.encoders.tera import TeraConfig, tera
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.contrastive import Wav2Vec2Config, continuous_bert_objective
from sonorant.objectives.future import FutureConfig, vq_wav2vec_objective
from sonorant.objectives.token_bert import TokenBertConfig, token_bert_objective
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig

CARD = Card(
    system="27",
    title="BERT over codes",
    paper="arXiv:1911.03912",
    family="ssl",
    headline="ten minutes of labels: 16.3 % and 25.2 % WER on LibriSpeech test-clean and test-other",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the paper's, on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, front of the continuous arm, training of BERT, judges."""
    encoder: TeraConfig | ConformerConfig = field(default_factory=lambda: tera(num_layers=12, input_dim=768))
    """BERT base (section 3.1), over codes as over frames."""
    words: TokenBertConfig = field(default_factory=token_bert_objective)
    """Codes that are hidden (section 3.1)."""
    continuous: Wav2Vec2Config = field(default_factory=continuous_bert_objective)
    """Frames that are hidden, and what they are told from (section 3.2)."""
    cepstra: FrontConfig = field(default_factory=mfcc_front)
    """Frames of the arm mfcc_codes."""
    num_clusters: int = 13_500
    """Of cepstra and log-mel: as many as vq-wav2vec's codes in use (section 4.2)."""
    wav2vec: Wav2VecConfig = field(default_factory=vq_wav2vec)
    """What makes the codes of the arm main."""
    quantising: FutureConfig = field(default_factory=vq_wav2vec_objective)
    """How it learns to."""
    wav2vec_training: PretrainConfig = field(default_factory=PretrainConfig)
    """Its training."""


def paper() -> Config:
    """250k updates over 960 h (section 4.3); the codes as in vq-wav2vec."""
    loop, optim = TrainConfig(precision="bf16-mixed"), OptimConfig(name="adam", lr=1e-5, betas=(0.9, 0.98))
    bert = PretrainConfig(steps=250_000, batches=BatchConfig(max_seconds=250), optim=optim, loop=loop)
    codes = replace(bert, steps=400_000, batches=BatchConfig(max_seconds=95))
    return Config(study=StudyConfig(training=bert), wav2vec_training=codes)


def toy() -> Config:
    """Some three minutes of codes and two an arm on two cores, an hour of the built-in corpus; 25 frames a second."""
    wav2vec, quantising = toy_vq_wav2vec()
    mask = MaskConfig(prob=0.5, span=5)
    return Config(
        study=toy_study(),
        encoder=toy_transformer(input_dim=160),
        words=token_bert_objective(mask=mask),
        continuous=continuous_bert_objective(mask=mask, dim=64, num_negatives=50),
        cepstra=mfcc_front(25),
        num_clusters=500,
        wav2vec=wav2vec,
        quantising=quantising,
        wav2vec_training=toy_study(steps=500).training,
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    study = tiny_study(base.study)
    return replace(
        base,
        study=study,
        encoder=tiny_transformer(input_dim=16),
        continuous=replace(base.continuous, dim=16, num_negatives=5),
        num_clusters=8,
        wav2vec=replace(base.wav2vec, dim=16, context_kernels=(2, 3)),
        quantising=replace(base.quantising, codebook_size=8),
        wav2vec_training=study.training,
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("per", of="main", below="continuous", why="discrete targets and inputs beat continuous ones"),
    Claim("per", of="continuous", below="random", why="which beat the same network from scratch"),
    Claim("per", of="main", below="random", why="as do codes"),
    Claim("per", of="main", below="unpretrained", why="and it is BERT that helps, not the codes alone"),
    Claim("per", of="main", below="mfcc_codes", why="learnt codes beat clusters of cepstra"),
    Claim("per", of="main", below="log_mel_codes", why="and of log-mel"),
    Claim("per", of="shuffled", below="unpretrained", must_fail=True, why="codes in random order teach nothing"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → codes of three kinds → BERT over each, BERT over frames → fine-tuning and probes."""
    study = Study(work, config.study, config.encoder)
    wav2vec = study.pretrain("codes", config.quantising, encoder=config.wav2vec, training=config.wav2vec_training)
    fresh, codes = study.on_codes("main", wav2vec, config.quantising, config.encoder, encoder=config.wav2vec)
    scores = codes.usage("main") + study.judge("main", study.bert("main", fresh, codes, config.words))
    fronts = {"mfcc_codes": config.cepstra, "log_mel_codes": config.study.front}
    for arm in (arm for arm in fronts if arm in work.arms):
        over, clusters = study.on_clusters(arm, study.spectrum(fronts[arm]), config.num_clusters, config.encoder)
        scores += study.judge(arm, study.bert(arm, over, clusters, config.words))
    if "unpretrained" in work.arms:
        scores += study.judge("unpretrained", fresh)
    if "shuffled" in work.arms:
        mixed = shuffled_codes(work, "main", fresh, codes)
        scores += study.judge("shuffled", study.bert("shuffled", fresh, mixed, config.words))
    return scores + study.arms({"continuous": config.continuous}, always=["continuous"]) + study.references()
