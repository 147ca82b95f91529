"""Quantisers in training against vector-quantize-pytorch and transformers: milliseconds of forward and backward.

`python bench/quantize.py [--quick] [--threads N]`. A batch of 8 items of unequal length, as in training; the peers get the
same padded batch with its lengths or mask, where they take any.
"""

import argparse
from collections.abc import Callable

import torch
from harness import interleaved, peak_memory_mb, report
from torch import Tensor, nn

from sonorant.nn.quantize.catalogue import build_quantizer
from sonorant.nn.quantize.quantizer import Quantizer

LENGTHS = (250, 480, 130, 750, 320, 610, 90, 400)
Step = Callable[[], None]


def batch(dim: int) -> tuple[Tensor, Tensor]:
    values = torch.zeros(len(LENGTHS), max(LENGTHS), dim)
    for item, length in enumerate(LENGTHS):
        values[item, :length] = torch.randn(length, dim)
    return values.requires_grad_(), torch.tensor(LENGTHS)


def ours(quantizer: Quantizer) -> Step:
    values, lengths = batch(quantizer.dim)
    seeds = torch.arange(len(LENGTHS))

    def step() -> None:
        found = quantizer(values, lengths, seeds)
        (found.values.sum() + found.penalty).backward()

    return step


def reference(model: nn.Module, dim: int) -> Step:
    """A module of vector-quantize-pytorch."""
    values, lengths = batch(dim)

    def step() -> None:
        found = model(values, lens=lengths)
        (found[0].sum() + found[2].sum()).backward()

    return step


def plain(model: nn.Module, dim: int) -> Step:
    """One that takes no lengths, and quantises the padding too."""
    values, _ = batch(dim)

    def step() -> None:
        found = model(values)
        (found[0].sum() + (found[2].sum() if len(found) > 2 else 0)).backward()

    return step


def gumbel(dim: int, code_dim: int) -> Step:
    from transformers import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

    config = Wav2Vec2Config(conv_dim=(dim,), conv_stride=(2,), conv_kernel=(2,), codevector_dim=code_dim)
    model = Wav2Vec2GumbelVectorQuantizer(config).train()
    nn.init.uniform_(model.codevectors)
    values, lengths = batch(dim)
    mask = torch.arange(max(LENGTHS)) < lengths[:, None]

    def step() -> None:
        quantised, perplexity = model(values, mask)
        (quantised.sum() - perplexity).backward()

    return step


def row(what: str, quantizer: Quantizer, peer: Step, repeats: int) -> dict[str, object]:
    pair = interleaved(ours(quantizer.train()), peer, repeats)
    return {
        "what": what, "ours": 1e3 * pair.ours_seconds, "peer": 1e3 * pair.peer_seconds, "ratio": pair.ratio,
        "memory_mb": round(peak_memory_mb()),
    }  # fmt: skip


def main() -> None:
    from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ, VectorQuantize

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    repeats = 3 if args.quick else 9
    options = {"decay": 0.99, "rotation_trick": False, "threshold_ema_dead_code": 1}
    levels = (8, 5, 5, 5)
    rows = [
        row("VQ 1024 × 256", build_quantizer("vq", 256, kmeans_init=False),
            reference(VectorQuantize(256, 1024, **options), 256), repeats),
        row("cosine VQ 1024 × 256", build_quantizer("cosine_vq", 256, kmeans_init=False),
            reference(VectorQuantize(256, 1024, use_cosine_sim=True, **options), 256), repeats),
        row("residual VQ, 8 × 1024 × 128", build_quantizer("residual", 128, kmeans_init=False),
            plain(ResidualVQ(dim=128, num_quantizers=8, codebook_size=1024, **options), 128), repeats),
        row("Gumbel 2 × 320, 512 → 256 (transformers)", build_quantizer("gumbel", 512, code_dim=256),
            gumbel(512, 256), repeats),
        row("finite scalars 8·5·5·5, 256 wide", build_quantizer("finite_scalar", 256, levels=levels),
            plain(FSQ(list(levels), dim=256), 256), repeats),
        row("lookup-free, 10 bits, 256 wide", build_quantizer("lookup_free", 256),
            plain(LFQ(dim=256, codebook_size=1024, commitment_loss_weight=0.25), 256), repeats),
    ]  # fmt: skip
    notes = (
        f"Milliseconds of forward and backward in training, {args.threads} thread(s), 8 items of 90 to 750 frames (half of"
        " the padded batch); ratio: how many times faster ours is. The residual, finite-scalar and lookup-free peers take"
        " no lengths."
    )
    report("quantize", "Quantisers in training against vector-quantize-pytorch and transformers", rows, notes)


if __name__ == "__main__":
    main()
