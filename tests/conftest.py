"""Shape checking over the whole package, one thread, no network, and the folder of real recordings."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import socket
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
# Public tensor arguments are checked here and nowhere else: a call costs nothing outside the tests. Modules that were
# imported before this line (none of ours) would go unchecked.
install_import_hook("sonorant", "shapechecker.check")


@pytest.fixture(scope="session")
def packs() -> Path:
    """The folder of small real speech packs, beside the checkout or in SONORANT_DATA."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SONORANT_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no speech packs at {folder}; set SONORANT_DATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing under test may reach beyond this machine."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0]) if isinstance(address, tuple) else str(address)
            if host not in ("127.0.0.1", "::1", "localhost"):
                raise OSError(f"a test tried to reach {host}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)
