"""Encoders against transformers': HuBERT base, the same weights, the same audio, in the same process, in turn.

Batches hold utterances of unequal lengths, as real ones do. The peer is given them padded with a mask, as its users do, and
one by one, where it computes no padding. Peak memory is measured in a process of its own for each side. The profile says
which share of the machine's own matrix product each part reaches.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from harness import Pair, interleaved, peak_of, report, seconds, table
from torch import Tensor, nn

from sonorant.encoders.load import load_encoder
from sonorant.nn.packed import pack
from sonorant.nn.waveform import WaveformConvs

RATE = 16000
SECONDS = (2.0, 3.1, 4.4, 6.2, 8.5, 10.7, 13.2, 15.5)
EQUAL = (8.0, 8.0, 8.0, 8.0)
TRAINED = (2.0, 3.0, 5.0, 8.0)


def audio(lengths: tuple[float, ...]) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Items, the padded batch, lengths in samples, and the mask that the peer wants."""
    generator = torch.Generator().manual_seed(0)
    items = [0.1 * torch.randn(int(n * RATE), generator=generator) for n in lengths]
    sizes = torch.tensor([len(item) for item in items])
    batch = nn.utils.rnn.pad_sequence(items, batch_first=True)
    mask = (torch.arange(batch.shape[1]) < sizes[:, None]).long()
    return items, batch, sizes, mask


def peer_model() -> Any:
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    return HubertModel(HubertConfig(mask_time_prob=0.0, layerdrop=0.0))


def models() -> tuple[Any, Any]:
    """Ours and the peer's, with the same weights."""
    theirs = peer_model()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return load_encoder(folder), theirs.eval()


def _row(what: str, pair: Pair, total: float, error: float | str) -> dict[str, Any]:
    return {
        "what": what,
        "ours": f"{total / pair.ours_seconds:.2f}× real time",
        "peer": f"{total / pair.peer_seconds:.2f}× real time",
        "ratio": pair.ratio,
        "error": error,
    }


def inference(repeats: int) -> list[dict[str, Any]]:
    ours, theirs = models()
    rows = []
    with torch.no_grad():
        for name, lengths in (("mixed lengths 2–15.5 s", SECONDS), ("equal lengths, 4 × 8 s", EQUAL)):
            items, batch, sizes, mask = audio(lengths)
            total = sum(lengths)
            alone = theirs(items[0][None]).last_hidden_state[0]
            error = (ours(batch, sizes).values[0, : len(alone)] - alone).abs().max().item()

            def padded(batch: Tensor = batch, mask: Tensor = mask) -> Any:
                return theirs(batch, attention_mask=mask)

            def one_by_one(items: list[Tensor] = items) -> Any:
                return [theirs(item[None]) for item in items]

            def packed(batch: Tensor = batch, sizes: Tensor = sizes) -> Any:
                return ours(batch, sizes)

            rows.append(_row(f"fp32, {name}, padded there", interleaved(packed, padded, repeats), total, error))
            rows.append(_row(f"fp32, {name}, one by one there", interleaved(packed, one_by_one, repeats), total, error))
            with torch.autocast("cpu", torch.bfloat16):
                short = ours(batch, sizes).values[0, : len(alone)].float()
                apart = ((short - alone).abs().mean() / alone.abs().mean()).item()
                pair = interleaved(packed, padded, repeats)
                rows.append(_row(f"bf16 autocast, {name}, padded there", pair, total, f"{apart:.1%} of the mean size"))
    return rows


# --- training ---------------------------------------------------------------------------------------------------------


def training(repeats: int) -> list[dict[str, Any]]:
    """Forward, backward and optimiser; a linear head on the last frames stands for an objective."""
    rows = []
    for name, lengths in (("mixed lengths 2–8 s", TRAINED), ("equal lengths, 4 × 5 s", (5.0,) * 4)):
        for precision in ("fp32", "bf16 autocast"):
            ours, theirs = models()
            _, batch, sizes, mask = audio(lengths)
            own = _step(ours, lambda m=ours, b=batch, s=sizes: m(b, s).values)
            other = _step(theirs, lambda m=theirs, b=batch, s=mask: m(b, attention_mask=s).last_hidden_state)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
                pair = interleaved(own, other, repeats)
            rows.append(_row(f"training step, {precision}, {name}", pair, sum(lengths), "–"))
    return rows


def _step(model: Any, forward: Callable[[], Tensor]) -> Callable[[], None]:
    model.train()
    head = nn.Linear(768, 100)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        head(forward()).float().log_softmax(-1)[..., 0].mean().backward()
        optimizer.step()

    return step


# --- memory -----------------------------------------------------------------------------------------------------------


def _peak(side: str, threads: int, queue: Any) -> None:
    torch.set_num_threads(threads)
    model: Any = own_model() if side == "ours" else peer_model().eval()
    _, batch, sizes, mask = audio(SECONDS)
    with torch.no_grad():
        queue.put(peak_of(lambda: model(batch, sizes) if side == "ours" else model(batch, attention_mask=mask)))


def own_model() -> Any:
    """Ours, built from its own configuration: the peer's never lies in this process."""
    from sonorant.encoders.catalogue import build_encoder

    return build_encoder("hubert_base").eval()


def memory(threads: int) -> dict[str, Any]:
    """What one forward of the mixed batch adds to the peak of a fresh process."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for side in ("ours", "peer"):
        queue = context.Queue()
        process = context.Process(target=_peak, args=(side, threads, queue))
        process.start()
        found[side] = queue.get()
        process.join()
    return {
        "what": "fp32, mixed lengths: memory beside the weights",
        "ours": f"{found['ours']:.0f} MB",
        "peer": f"{found['peer']:.0f} MB",
        "ratio": found["peer"] / found["ours"],
        "error": "–",
    }


# --- cheaper networks -------------------------------------------------------------------------------------------------

CHEAPER = {
    "HuBERT base, waveform": ("hubert_base", {}),
    "Fast-HuBERT, log-mel, 40 ms": ("fast_hubert_base", {}),
    "Fast Conformer large, log-mel, 80 ms": ("fastconformer_large", {}),
    "Zipformer base, log-mel": ("zipformer_base", {}),
}


def networks(repeats: int) -> list[dict[str, Any]]:
    """A training step of networks of about HuBERT base's size, against the waveform network's."""
    from sonorant.encoders.catalogue import build_encoder

    _, batch, sizes, _ = audio(TRAINED)
    frames = torch.randn(len(TRAINED), batch.shape[1] // 160, 80)
    counts = sizes // 160
    steps, rows = {}, []
    for name, (preset, changes) in CHEAPER.items():
        torch.manual_seed(0)
        encoder: Any = build_encoder(preset, **changes)
        values, lengths = (batch, sizes) if encoder.input == "waveform" else (frames, counts)
        steps[name] = (encoder, _network_step(encoder, values, lengths))
    base = next(iter(CHEAPER))
    for name, (encoder, step) in steps.items():
        pair = interleaved(step, steps[base][1], repeats)
        size = sum(p.numel() for p in encoder.parameters()) / 1e6
        row = _row(f"training step, fp32: {name}, {size:.0f} M", pair, sum(TRAINED), "–")
        rows.append({**row, "peer": f"{sum(TRAINED) / pair.peer_seconds:.2f}× real time (HuBERT base here)"})
    return rows


def _network_step(encoder: Any, values: Tensor, lengths: Tensor) -> Callable[[], None]:
    encoder.train()
    head = nn.Linear(encoder.dim, 100)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        head(encoder(values, lengths).values).log_softmax(-1)[..., 0].mean().backward()
        optimizer.step()

    return step


# --- where the time goes ----------------------------------------------------------------------------------------------


def profile(repeats: int) -> list[dict[str, Any]]:
    """Seconds of each part for the mixed batch, and the share of the speed of a large matrix product here."""
    ours, _ = models()
    _, batch, sizes, _ = audio(SECONDS)
    total, rows = sum(SECONDS), list[dict[str, Any]]()
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    peak = 2 * 1024**3 / min(seconds(lambda: left @ right) for _ in range(20)) / 1e9
    block, stack = ours.stack.blocks[0], ours.stack
    with torch.no_grad():
        local = ours.local(batch, sizes)
        embedded = ours.embed(local)
        values, layout = pack(embedded)
        frames = len(values)
        squares = sum(n * n for n in local.lengths.tolist())
        parts: dict[str, tuple[float, Callable[[], Any]]] = {
            "convolutions over the waveform": (_conv_flops(ours.convs, total), lambda: ours.local(batch, sizes)),
            "projection": (2 * frames * 512 * 768, lambda: ours.embed(local)),
            "positions (as direct convolution)": (
                2.0 * frames * 768 * 48 * 128,
                lambda: stack.position.packed(values, layout),
            ),
            "12 × attention and projections": (
                12 * (2.0 * frames * 768 * 768 * 4 + 4.0 * squares * 768),
                lambda: [block.attention.packed(values, layout) for _ in range(12)],
            ),
            "12 × feed-forward": (
                12 * 4.0 * frames * 768 * 3072,
                lambda: [block._ffn(values) for _ in range(12)],
            ),
        }
        spent = {name: min(seconds(work) for _ in range(repeats)) for name, (_, work) in parts.items()}
        whole = min(seconds(lambda: ours(batch, sizes)) for _ in range(repeats))
    for name, (flops, _) in parts.items():
        rows.append(
            {
                "what": f"profile, fp32: {name}",
                "ours": f"{spent[name] / whole:.1%} of the time",
                "GFLOP": flops / 1e9,
                "GFLOP/s": flops / 1e9 / spent[name],
                "share of peak": flops / 1e9 / spent[name] / peak,
            }
        )
    flops = sum(flops for flops, _ in parts.values())
    rows.append(
        {
            "what": f"profile, fp32: the whole; a matrix product of 1024 runs at {peak:.0f} GFLOP/s here",
            "ours": f"{total / whole:.2f}× real time",
            "GFLOP": flops / 1e9,
            "GFLOP/s": flops / 1e9 / whole,
            "share of peak": flops / 1e9 / whole / peak,
        }
    )
    return rows


def _conv_flops(convs: WaveformConvs, total: float) -> float:
    samples, flops, inputs = total * RATE, 0.0, 1
    for conv in convs.convs:
        samples /= conv.stride
        flops += 2.0 * samples * conv.kernel * inputs * len(conv.weight)
        inputs = len(conv.weight)
    return flops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch, for both sides")
    parser.add_argument("--only", default="", help="inference, training, memory, networks or profile")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    repeats = 1 if args.quick else 5
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "inference": lambda: inference(repeats),
        "memory": lambda: [memory(args.threads)],
        "training": lambda: training(repeats),
        "networks": lambda: networks(max(1, repeats // 2)),
        "profile": lambda: profile(repeats + 2),
    }
    rows = [row for name, part in parts.items() if args.only in ("", name) for row in part()]
    notes = (
        f"HuBERT base, {args.threads} threads. `ratio` is the peer's time over ours. Aims: ≥ 2.5 against the padded batch "
        "(fp32 and bf16), ≥ 1.1 one by one, never below 1 on equal lengths, half the memory, training ≥ 2.5."
    )
    if args.only:
        print(table(rows))
        return
    report("encoders", "Encoders", rows, notes)


if __name__ == "__main__":
    main()
