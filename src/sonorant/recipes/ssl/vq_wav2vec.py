"""vq-wav2vec: codes that tell what comes next, and BERT over them. Baevski, Schneider and Auli, 2019, arXiv:1910.05453.

wav2vec with a quantiser between its two networks, by Gumbel softmax (`gumbel`) or by k-means (`kmeans`); the codes of the
first are then the words of a BERT (`bert`), which is fine-tuned beside the same network that knows only the codes (`codes`)
and one on the spectrum (`log_mel`). Where we differ: BERT takes a stream of codes from each group and adds their embeddings,
in place of one word a pair; the recogniser is BERT's Transformer itself, not wav2letter on its frames; the toy presets have
wider strides, and fewer and narrower layers.
"""

from dataclasses import dataclass, field, replace

from sonorant.benchmark.claims import Card, Claim
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
from sonorant.objectives.future import FutureConfig, vq_wav2vec_objective
from sonorant.objectives.token_bert import TokenBertConfig, token_bert_objective
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig

CARD = Card(
    system="36",
    title="vq-wav2vec",
    paper="arXiv:1910.05453",
    family="ssl",
    headline="TIMIT 11.6 % phone errors, WSJ nov92 2.34 % WER from BERT over Gumbel codes",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the paper's, on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, training of the codes, judges."""
    encoder: Wav2VecConfig = field(default_factory=vq_wav2vec)
    """Section 5.1."""
    objective: FutureConfig = field(default_factory=vq_wav2vec_objective)
    """Two groups of 320 codes, twelve steps, ten negatives (section 5.1); both quantisers are tried."""
    targets: FrontConfig = field(default_factory=mfcc_front)
    """Frames whose clusters the codes are compared with, as many as codes are in use."""
    bert: TeraConfig | ConformerConfig = field(default_factory=lambda: tera(num_layers=12, input_dim=768))
    """The network over the codes (section 5.2: BERT base)."""
    words: TokenBertConfig = field(default_factory=token_bert_objective)
    """What is hidden from it (section 5.2); a stream for each group."""
    bert_training: PretrainConfig = field(default_factory=PretrainConfig)
    """Its training."""


def paper() -> Config:
    """Codes: 400k updates; BERT: 250k of them (sections 5.1 and 5.2)."""
    loop = TrainConfig(precision="bf16-mixed")
    cosine = ScheduleConfig(name="warmup_cosine", warmup=500 / 400_000)
    optim = OptimConfig(name="adam", lr=1e-5)
    codes = PretrainConfig(steps=400_000, batches=BatchConfig(max_seconds=95), optim=optim, schedule=cosine, loop=loop)
    bert = PretrainConfig(
        steps=250_000,
        batches=BatchConfig(max_seconds=250),
        optim=OptimConfig(name="adam", lr=1e-5, betas=(0.9, 0.98), weight_decay=0.01),
        schedule=ScheduleConfig(name="warmup_linear", warmup=0.04),
        loop=loop,
    )
    return Config(study=StudyConfig(training=codes), bert_training=bert)


def toy() -> Config:
    """Some three minutes of codes each and two of BERT on two cores, an hour of the built-in corpus; 25 frames a second."""
    encoder, objective = toy_vq_wav2vec()
    return Config(
        study=toy_study(steps=500),
        encoder=encoder,
        objective=objective,
        targets=mfcc_front(25),
        bert=toy_transformer(input_dim=160),
        # Spans of 200 ms, as in the other toy presets.
        words=token_bert_objective(mask=MaskConfig(prob=0.5, span=5)),
        bert_training=toy_study().training,
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    study = tiny_study(base.study)
    return replace(
        base,
        study=study,
        encoder=replace(base.encoder, dim=16, context_kernels=(2, 3)),
        objective=replace(base.objective, codebook_size=8),
        bert=tiny_transformer(input_dim=16),
        bert_training=study.training,
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("pnmi", of="gumbel", above="gumbel_mfcc", why="codes agree with phones more than as many clusters of MFCC"),
    Claim("pnmi", of="kmeans", above="kmeans_mfcc", why="so do those of the k-means quantiser"),
    Claim("code_usage", of="gumbel", above=0.3, why="the codes do not collapse"),
    Claim("code_usage", of="kmeans", above=0.3, why="nor with k-means"),
    Claim("phone_accuracy", of="gumbel", above="random", why="frames of the trained network tell phones apart"),
    Claim("per", of="bert", below="codes", why="BERT over the codes helps where labels are few"),
    Claim("per", of="codes", below="log_mel", why="and the codes are no worse than the spectrum"),
    Claim("pnmi", of="swapped", above="gumbel_mfcc", must_fail=True, why="codes of other utterances say nothing"),
    Claim("phone_accuracy", of="gumbel", above="deaf", why="what comes next in noise teaches nothing"),
    Claim("phone_accuracy", of="deaf", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → wav2vec with two quantisers → codes against clusters → BERT over codes → fine-tuning."""
    study = Study(work, config.study, config.encoder)
    scores = list[Score]()
    objectives = {arm: replace(config.objective, quantizer=arm) for arm in ("gumbel", "kmeans")}
    trained = {arm: study.pretrain(arm, objective) for arm, objective in objectives.items()}
    made = {arm: study.on_codes(arm, trained[arm], objectives[arm], config.bert) for arm in trained}
    for arm, (_, codes) in made.items():
        clusters = study.units(f"{arm}_mfcc", study.spectrum(config.targets), codes.num_used)
        scores += codes.usage(arm) + study.agreement(codes.joint, arm) + study.agreement(clusters, f"{arm}_mfcc")
        scores += study.judge(arm, trained[arm], finetune=False)
    fresh, codes = made["gumbel"]
    bert = study.bert("bert", fresh, codes, config.words, config.bert_training)
    scores += study.judge("bert", bert) + study.judge("codes", fresh) + study.scratch("log_mel", config.bert)
    if "swapped" in work.arms:
        scores += study.agreement(study.swapped(codes.joint), "swapped")
    if "deaf" in work.arms:
        deaf = study.pretrain("deaf", objectives["gumbel"], deaf=True)
        scores += study.judge("deaf", deaf, finetune=False)
    return scores + study.references(finetune=False)
