"""CTC loss and alignment, the layers that decide training speed on a CPU, and whole training steps.

Run `python bench/ctc.py [--quick]`. Peers: torch's own layers; for the alignment a plain numpy Viterbi item by item.
"""

import argparse
from typing import Any

import numpy as np
import torch
from harness import interleaved, peak_memory_mb, report, seconds
from torch import nn

from sonorant.decoding.align import ctc_align
from sonorant.encoders.catalogue import build_encoder
from sonorant.losses.ctc import ctc_loss
from sonorant.nn.convolution import depthwise_conv
from sonorant.nn.dropout import dropout
from sonorant.nn.recurrent import Recurrent

Row = dict[str, Any]


def row(what: str, pair: Any, error: float | None = None) -> Row:
    return {
        "what": what,
        "ours": pair.ours_seconds * 1e3,
        "peer": pair.peer_seconds * 1e3,
        "ratio": pair.ratio,
        "error": "" if error is None else error,
        "memory_mb": round(peak_memory_mb()),
    }


def losses(repeats: int) -> list[Row]:
    rows = []
    for batch, frames, vocab, count in ((16, 160, 32, 60), (8, 400, 32, 120), (32, 125, 500, 20)):
        torch.manual_seed(0)
        log_probs = torch.randn(batch, frames, vocab).log_softmax(-1).requires_grad_()
        tokens, sizes = torch.randint(1, vocab, (batch, count)), torch.full((batch,), count)
        lengths = torch.full((batch,), frames)

        def ours(log_probs=log_probs, lengths=lengths, tokens=tokens, sizes=sizes) -> torch.Tensor:
            loss = ctc_loss(log_probs, lengths, tokens, sizes).total
            torch.autograd.grad(loss, log_probs)
            return loss

        def peer(log_probs=log_probs, lengths=lengths, tokens=tokens, sizes=sizes) -> torch.Tensor:
            loss = nn.functional.ctc_loss(log_probs.transpose(0, 1), tokens, lengths, sizes, reduction="sum")
            torch.autograd.grad(loss, log_probs)
            return loss

        error = float((ours() / peer() - 1).abs().detach())
        what = f"CTC loss and gradient, {batch} × {frames} frames × {vocab}, {count} tokens (torch's)"
        rows.append(row(what, interleaved(ours, peer, repeats), error))
    return rows


def viterbi_of_one(log_probs: np.ndarray, tokens: np.ndarray) -> float:
    """Viterbi of one item in numpy, vectorised over states."""
    labels = np.zeros(2 * len(tokens) + 1, dtype=int)
    labels[1::2] = tokens
    skip = np.zeros(len(labels), dtype=bool)
    skip[3::2] = tokens[1:] != tokens[:-1]
    scores = np.full(len(labels), -np.inf)
    scores[:2] = log_probs[0, labels[:2]]
    choices = np.zeros((len(log_probs), len(labels)), dtype=np.uint8)
    for frame in range(1, len(log_probs)):
        options = np.stack([scores, np.roll(scores, 1), np.where(skip, np.roll(scores, 2), -np.inf)])
        options[1, 0] = -np.inf
        choices[frame] = options.argmax(0)
        scores = options.max(0) + log_probs[frame, labels]
    state = len(labels) - 1 - int(scores[-2] > scores[-1])
    best = float(scores[state])
    for frame in range(len(log_probs) - 1, 0, -1):
        state -= int(choices[frame, state])
    return best


def alignment(repeats: int) -> list[Row]:
    torch.manual_seed(0)
    log_probs = torch.randn(16, 400, 32).log_softmax(-1)
    tokens, sizes, lengths = torch.randint(1, 32, (16, 100)), torch.full((16,), 100), torch.full((16,), 400)
    arrays = [(item.numpy(), target.numpy()) for item, target in zip(log_probs, tokens, strict=True)]
    ours = ctc_align(log_probs, lengths, tokens, sizes).log_likelihoods.tolist()
    error = max(abs(a - viterbi_of_one(*b)) for a, b in zip(ours, arrays, strict=True))
    pair = interleaved(
        lambda: ctc_align(log_probs, lengths, tokens, sizes),
        lambda: [viterbi_of_one(*item) for item in arrays],
        repeats,
    )
    return [row("forced alignment, 16 × 400 frames, 100 tokens (numpy, item by item)", pair, error)]


def layers(repeats: int) -> list[Row]:
    torch.manual_seed(0)
    values = torch.randn(16, 160, 144, requires_grad=True)
    weight = torch.randn(144, 1, 31, requires_grad=True)
    lengths = torch.linspace(100, 160, 16).long()
    seed = torch.randn(16, 160, 144)
    ours_lstm, theirs_lstm = Recurrent("lstm", 144, 128), nn.LSTM(144, 128, batch_first=True, bidirectional=True)

    def native() -> torch.Tensor:
        return nn.functional.conv1d(values.transpose(1, 2), weight, padding=15, groups=144).transpose(1, 2)

    def packed() -> None:
        inputs = nn.utils.rnn.pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
        nn.utils.rnn.pad_packed_sequence(theirs_lstm(inputs)[0], batch_first=True)[0].sum().backward()

    error = float((depthwise_conv(values, weight, 15, 15) - native()).abs().max().detach())
    conv = interleaved(
        lambda: torch.autograd.grad(depthwise_conv(values, weight, 15, 15), (values, weight), seed),
        lambda: torch.autograd.grad(native(), (values, weight), seed),
        repeats,
    )
    lstm = interleaved(lambda: ours_lstm(values, lengths).sum().backward(), packed, max(3, repeats // 2))
    drop = interleaved(
        lambda: torch.autograd.grad(dropout(values, 0.1), values, seed),
        lambda: torch.autograd.grad(nn.functional.dropout(values, 0.1), values, seed),
        repeats,
    )
    return [
        row("depthwise convolution, kernel 31, 16 × 160 × 144, forward and backward (conv1d)", conv, error),
        row("BiLSTM 2 × 128, 16 × 160 frames, forward and backward (packed nn.LSTM)", lstm),
        row("dropout 0.1 of 16 × 160 × 144, forward and backward (torch's)", drop),
    ]


PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "BiGRU 3 × 2 × 192, frames stacked by 4": ("bigru", {"dim": 192}),
    "Conformer 4 × 144, frames stacked by 4": ("conformer_small", {"num_layers": 4, "subsampling": "stack"}),
    "Conformer 4 × 144, conv2d of 32 channels": ("conformer_small", {"num_layers": 4, "channels": 32}),
    "Conformer small as published (16 × 144)": ("conformer_small", {}),
    "Deep Speech, LSTM, 512 wide, 50 Hz": ("deepspeech", {"dim": 512}),
}


def training(quick: bool) -> list[Row]:
    """Audio-seconds a second of forward, CTC loss and backward on 60 s of audio in items of 6 s."""
    rows = []
    for what, (name, changes) in PRESETS.items():
        if quick and "published" in what:
            continue
        torch.manual_seed(0)
        encoder = build_encoder(name, **changes).train()
        head = nn.Linear(encoder.dim, 40)  # type: ignore[arg-type]
        config = encoder.config
        num_frames = int(6 * config.input_frame_rate)
        values = torch.randn(10, num_frames, config.input_dim)
        lengths, sizes = torch.full((10,), num_frames), torch.full((10,), 50)
        tokens = torch.randint(1, 40, (10, 50))

        def step(encoder=encoder, head=head, values=values, lengths=lengths, tokens=tokens, sizes=sizes) -> None:
            features = encoder(values, lengths)
            loss = ctc_loss(head(features.values).log_softmax(-1), features.lengths, tokens, sizes)
            loss.mean.backward()

        step()
        best = min(seconds(step) for _ in range(2 if quick else 3))
        millions = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
        speed = f"{60 / best:.1f} audio-s/s"
        rows.append(
            {"what": f"training step: {what}, {millions:.1f} M", "ours": speed, "memory_mb": round(peak_memory_mb())}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no large preset")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    repeats = 3 if quick else 9
    rows = losses(repeats) + alignment(repeats) + layers(repeats) + training(quick)
    notes = (
        "Milliseconds, one thread; ratio: how many times faster ours is (median over pairs); error: largest difference."
    )
    report("ctc", "CTC loss, alignment, and training steps on a CPU", rows, notes)


if __name__ == "__main__":
    main()
