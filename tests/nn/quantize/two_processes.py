"""One of two processes, `python two_processes.py RANK FOLDER`: fits and trains on half of the data, writes what came out."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from sonorant.nn.quantize.kmeans import fit_kmeans
from sonorant.nn.quantize.online import OnlineCodebook
from sonorant.nn.quantize.quantizer import Quantizer
from sonorant.nn.quantize.vq import VectorCodebook


def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centers = 3 * torch.randn(8, 4, generator=generator)
    return centers[torch.arange(600) % 8] + 0.1 * torch.randn(600, 4, generator=generator)


def results(part: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    found = {
        "whole": fit_kmeans(lambda: iter(part.split(50)), 8).centers,
        "streamed": fit_kmeans(lambda: iter(part.split(50)), 8, sample_size=100, passes=5).centers,
    }
    for name, codebook in (
        ("vq", VectorCodebook(4, 8)),
        ("revived", VectorCodebook(4, 30, kmeans_init=True, dead_below=0.5)),
        ("online", OnlineCodebook(4, 8)),
    ):
        quantizer = Quantizer(codebook).train()
        for _ in range(3):
            quantizer(part[None], torch.tensor([len(part)]), torch.tensor([1]))
        found[name] = codebook.weight.detach().clone()
    return found


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    save_file(results(frames()[rank::2].contiguous()), folder / f"{rank}.safetensors")
    dist.destroy_process_group()
