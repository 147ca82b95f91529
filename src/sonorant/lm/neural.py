"""Neural language models over words, subwords or characters: LSTM and Transformer, for rescoring and for perplexity.

`LstmLm` and `TransformerLm` are networks, tokens → logits. `NeuralLm` is a network with its tokeniser: what is trained
(`losses`), asked (`score`, `score_sentences`, `perplexity`), saved and loaded. Id 0, which is CTC's blank and no text has,
stands for a sentence's start in what goes in and for its end in what comes out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.checkpoint import load_checkpoint, load_weights, save_checkpoint
from sonorant.core.config import at_least, from_plain, one_of, to_plain, within
from sonorant.core.errors import CheckpointError, ConfigError, DataError
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Loss
from sonorant.lm.text_batches import token_batch
from sonorant.nn.dropout import Dropout
from sonorant.nn.masking import causal_mask
from sonorant.nn.recurrent import Recurrent
from sonorant.nn.transformer import TransformerLayer
from sonorant.text.load import tokenizer_from_plain
from sonorant.text.tokenizer import Tokenizer

__all__ = ["KIND", "LstmLm", "NeuralLm", "NeuralLmConfig", "TransformerLm", "build_network"]

KIND = "neural_lm"
"""Name of these models' checkpoints."""


@dataclass(frozen=True, kw_only=True)
class NeuralLmConfig:
    """Shape of a language model; defaults suit subwords and some million words of text."""

    network: Literal["lstm", "transformer"] = "lstm"
    vocab_size: int = 0
    """Tokeniser's size, blank included; set by `NeuralLm.build`."""
    dim: int = 512
    """Width of embeddings and layers; embeddings and output share their matrix (arXiv:1608.05859)."""
    num_layers: int = 2
    num_heads: int = 8
    """Of the Transformer; must divide `dim` into even parts."""
    ffn_dim: int = 2048
    """Of the Transformer."""
    dropout: float = 0.2

    def __post_init__(self) -> None:
        one_of("network", self.network, ("lstm", "transformer"))
        for name in ("dim", "num_layers", "num_heads", "ffn_dim"):
            at_least(name, getattr(self, name), 1)
        at_least("vocab_size", self.vocab_size, 0)
        within("dropout", self.dropout, 0, 1)
        if self.network == "transformer" and self.dim % (2 * self.num_heads):
            raise ConfigError(
                f"dim must be a multiple of 2 × num_heads, got dim={self.dim}, num_heads={self.num_heads}"
            )


def _embedding(config: NeuralLmConfig) -> nn.Embedding:
    embedding = nn.Embedding(config.vocab_size, config.dim)
    # The output shares it: with unit variance the first logits would be of the order of dim.
    nn.init.normal_(embedding.weight, std=config.dim**-0.5)
    return embedding


class LstmLm(nn.Module):
    """Embedding, LSTM layers with dropout between them, output by the transposed embedding."""

    def __init__(self, config: NeuralLmConfig) -> None:
        super().__init__()
        self.embedding = _embedding(config)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            Recurrent("lstm", config.dim, config.dim, bidirectional=False) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(
        self, tokens: Int[Tensor, "batch token"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch token vocab"]:
        """Logits of the token after each position; a position sees itself and what is before it."""
        values = self.dropout(self.embedding(tokens))
        for layer in self.layers:
            values = self.dropout(layer(values, lengths))
        return nn.functional.linear(self.norm(values), self.embedding.weight, self.bias)


class TransformerLm(nn.Module):
    """Embedding, causal Transformer layers with rotary positions, output by the transposed embedding."""

    def __init__(self, config: NeuralLmConfig) -> None:
        super().__init__()
        self.embedding = _embedding(config)
        self.scale = config.dim**0.5
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(config.dim, config.num_heads, config.ffn_dim, config.dropout, position="rotary")
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(
        self, tokens: Int[Tensor, "batch token"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch token vocab"]:
        """Logits of the token after each position; a position sees itself and what is before it. `lengths` changes
        nothing: the padding comes after everything that is read."""
        values = self.dropout(self.embedding(tokens) * self.scale)
        causal = causal_mask(tokens.shape[1], 0, tokens.device)
        for layer in self.layers:
            values = layer(values, causal)
        return nn.functional.linear(self.norm(values), self.embedding.weight, self.bias)


def build_network(config: NeuralLmConfig) -> LstmLm | TransformerLm:
    """The network that a configuration names."""
    if config.vocab_size < 2:
        raise ConfigError(f"vocab_size must be at least 2 (blank and one symbol), got {config.vocab_size}")
    return LstmLm(config) if config.network == "lstm" else TransformerLm(config)


class NeuralLm(nn.Module):
    """A network and its tokeniser.

    >>> from sonorant.text.alphabet import Alphabet
    >>> lm = NeuralLm.build(Alphabet.build(["a b", "b c"]), NeuralLmConfig(dim=8, num_layers=1))
    >>> lm.score_sentences(["a b", "c"]).shape
    (2,)
    """

    def __init__(self, config: NeuralLmConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        if config.vocab_size != tokenizer.vocab_size:
            raise ConfigError(
                f"the network is for {config.vocab_size} symbols, the tokeniser has {tokenizer.vocab_size}"
            )
        self.config, self.tokenizer = config, tokenizer
        self.network = build_network(config)

    @classmethod
    def build(cls, tokenizer: Tokenizer, config: NeuralLmConfig | None = None) -> "NeuralLm":
        """A model of the tokeniser's size, untrained."""
        plain = to_plain(config or NeuralLmConfig())
        return cls(from_plain(NeuralLmConfig, {**plain, "vocab_size": tokenizer.vocab_size}), tokenizer)

    def losses(self, batch: Any) -> dict[str, Loss]:
        """Cross-entropy summed over tokens and sentence ends, as `{"lm": Loss}`; of `labels["tokens"]` padded with 0 and
        `labels["tokens_lengths"]`, in a `TokenBatch` or a `Batch` of speech."""
        tokens, lengths = batch.labels["tokens"], batch.labels["tokens_lengths"]
        log_probs = self.token_log_probs(tokens, lengths)
        return {"lm": Loss(-log_probs.sum(), (lengths + 1).sum())}

    def token_log_probs(
        self, tokens: Int[Tensor, "batch token"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch token_and_end"]:
        """Natural log-probability of each token and, at `lengths`, of the sentence's end; 0 in the padding."""
        valid = valid_mask(lengths, tokens.shape[1])
        if bool(((tokens == 0) & valid).any()):
            raise DataError("a text holds token 0, which stands for the sentence's ends")
        tokens = tokens * valid  # whatever the padding holds, the first position after a sentence is its end, 0
        inputs, targets = nn.functional.pad(tokens, (1, 0)), nn.functional.pad(tokens, (0, 1))
        logits = self.network(inputs, lengths + 1)
        log_probs = -nn.functional.cross_entropy(logits.transpose(1, 2).float(), targets, reduction="none")
        return log_probs * valid_mask(lengths + 1, inputs.shape[1])

    def score(self, sequences: Sequence[Sequence[int]], *, max_tokens: int = 16_384) -> Float[Tensor, " sentence"]:
        """Natural log-probability of each token sequence with its end, in batches of at most `max_tokens`.

        A sequence's score does not depend on its neighbours (up to rounding of floats).
        """
        device = next(self.parameters()).device
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        scores = torch.zeros(len(sequences), dtype=torch.float64)
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                for chosen in _batches(order, sequences, max_tokens):
                    labels = token_batch([sequences[index] for index in chosen]).to(device).labels
                    found = self.token_log_probs(labels["tokens"], labels["tokens_lengths"])
                    scores[chosen] = found.double().sum(dim=1).cpu()
        finally:
            self.train(training)
        return scores

    def score_sentences(self, sentences: Iterable[str]) -> Float[np.ndarray, " sentence"]:
        """Natural log-probability of each text. Raises `DataError` for text that the tokeniser does not cover."""
        return self.score([self.tokenizer.encode(sentence) for sentence in sentences]).numpy()

    def perplexity(self, lines: Iterable[str], *, per: Literal["word", "token"] = "word") -> float:
        """Of a text, a sentence a line, sentence ends counted; per word, so that it can be set beside an n-gram's, or
        per token. Blank lines are left out; raises `DataError` where nothing else is there."""
        one_of("per", per, ("word", "token"))
        texts = [line for line in lines if line.split()]
        if not texts:
            raise DataError("no text to evaluate on: every line is blank")
        sequences = [self.tokenizer.encode(text) for text in texts]
        units = sequences if per == "token" else [text.split() for text in texts]
        return float(np.exp(-float(self.score(sequences).sum()) / sum(len(unit) + 1 for unit in units)))

    def save(self, folder: str | Path) -> None:
        """As a checkpoint that loads with no flags."""
        weights = {name: value.detach() for name, value in self.state_dict().items()}
        extra = {"tokenizer": self.tokenizer.to_plain()}
        save_checkpoint(folder, kind=KIND, weights=weights, config=self.config, extra=extra)

    @classmethod
    def load(cls, folder: str | Path) -> "NeuralLm":
        """What `save` wrote, in eval mode."""
        checkpoint = load_checkpoint(folder, kind=KIND)
        if "tokenizer" not in checkpoint.extra:
            raise CheckpointError(f"{folder} holds no tokeniser: a language model is written by its save")
        tokenizer = tokenizer_from_plain(checkpoint.extra["tokenizer"])
        model = cls(from_plain(NeuralLmConfig, checkpoint.config), tokenizer)
        load_weights(model, checkpoint.weights, where=str(folder))
        return model.eval()


def _batches(order: Sequence[int], sequences: Sequence[Sequence[int]], max_tokens: int) -> Iterable[list[int]]:
    """Indices by rising length, cut where the padded batch would grow beyond `max_tokens`."""
    batch: list[int] = []
    for index in order:
        if batch and (len(sequences[index]) + 1) * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
