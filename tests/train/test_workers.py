"""Several workers learn what one does; they end together, whoever fails."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from train_toy import QUIET, Adversaries, ToyBatches, digest, make_batch, train, train_and_tell

from sonorant.core.errors import ConfigError, DataError, TrainingError
from sonorant.train.config import TrainConfig
from sonorant.train.devices import make_fabric
from sonorant.train.launch import launch
from sonorant.train.loop import fit

HERE = Path(__file__).parent


class Alternating:
    """The batches of two workers, one after the other: what one worker sees when it does the work of both."""

    def __init__(self) -> None:
        self.consumed = 0

    def __iter__(self) -> Any:
        while True:
            self.consumed += 1
            yield make_batch(self.consumed - 1)

    def state_dict(self) -> dict[str, int]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.consumed = state["consumed"]


def _weights(told: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(told), dtype=torch.float32)


def test_two_workers_equal_one(tmp_path: Path, server: Any) -> None:
    options = {"steps": 12, "dropout": 0.0, "per_pass": 100}
    two = launch(train_and_tell, 2, str(tmp_path / "two"), options, start_method="forkserver")
    one, _ = train(tmp_path / "one", steps=12, dropout=0.0, accumulate=2, batches=Alternating())
    expected = torch.cat([t.flatten() for t in one.state_dict().values()])
    torch.testing.assert_close(_weights(two), expected, atol=1e-5, rtol=0)


def test_sharded_workers_equal_unsharded_and_resume(tmp_path: Path, server: Any) -> None:
    options = {"steps": 8, "checkpoint_every": 3, "ema_decay": 0.9}
    sharded = {**options, "strategy": "fsdp"}
    plain = launch(train_and_tell, 2, str(tmp_path / "ddp"), options, start_method="forkserver")
    with pytest.raises(TrainingError):
        launch(train_and_tell, 2, str(tmp_path / "fsdp"), sharded, 5, start_method="forkserver")
    resumed = launch(train_and_tell, 2, str(tmp_path / "fsdp"), sharded, start_method="forkserver")
    torch.testing.assert_close(_weights(resumed), _weights(plain), atol=1e-5, rtol=0)


def adversaries(folder: str, accumulate: int, strategy: str = "auto") -> str:
    """Two optimisers; what two workers share out, one accumulates."""
    objective = Adversaries()
    parts = {"generator": objective.generator, "discriminator": objective.discriminator}
    optimizers = {name: torch.optim.SGD(part.parameters(), lr=0.1) for name, part in parts.items()}
    config = TrainConfig(**{**QUIET, "accumulate": accumulate, "strategy": strategy})
    batches = Alternating() if accumulate == 2 else lambda rank, world: ToyBatches(100, rank, world)
    fit(objective, batches, optimizers, steps=5, folder=folder, config=config)
    return digest(objective)


def test_two_workers_equal_one_with_two_optimisers(tmp_path: Path, server: Any) -> None:
    two = launch(adversaries, 2, str(tmp_path / "two"), 1, start_method="forkserver")
    one = adversaries(str(tmp_path / "one"), 2)
    torch.testing.assert_close(_weights(two), _weights(one), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="'fsdp' takes one optimiser, got generator, discriminator"):
        launch(adversaries, 2, str(tmp_path / "sharded"), 1, "fsdp", start_method="forkserver")


def double(value: int) -> int:
    return 2 * value


def fail(kind: str) -> None:
    """The second worker fails while the first would wait for ever."""
    if os.environ["RANK"] == "1":
        if kind == "ours":
            raise DataError("item x: no audio")
        if kind == "foreign":
            raise ZeroDivisionError("one by none")
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(100)


@pytest.mark.parametrize(
    "kind, error, message",
    [
        ("ours", DataError, "item x: no audio"),
        ("foreign", TrainingError, "worker 1 failed:(.|\n)*one by none"),
        ("dead", TrainingError, r"worker 1 ended without a word \(signal SIGSEGV\)"),
    ],
)
def test_one_failure_ends_all(
    kind: str, error: type[Exception], message: str, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sonorant.train.launch.GRACE", 0.2)
    begin = time.monotonic()
    with pytest.raises(error, match=message):
        launch(fail, 2, kind, start_method="forkserver")
    assert time.monotonic() - begin < 30


def test_launch_in_small_things(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch(double, 1, 4) == 8
    assert launch(double, 2, 4, start_method="forkserver") == 8
    with pytest.raises(ConfigError, match="num_processes must be at least 1"):
        launch(double, 0, 4)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="already a worker"):
        launch(double, 2, 4)


def test_sharding_needs_several_workers() -> None:
    with pytest.raises(ConfigError, match="'fsdp' shards a model over several workers and there is one"):
        make_fabric(TrainConfig(strategy="fsdp"))


def terminated(folder: str, where: str) -> None:
    """Launches two workers; for the test that stops the launcher."""
    try:
        options = {"steps": 2000, "checkpoint_every": 0, "pause": 0.01}
        launch(train_and_tell, 2, folder, options, start_method="forkserver")
    except TrainingError as error:
        Path(where).write_text(f"{type(error).__name__}: {error}")


def test_sigterm_to_the_launcher_stops_all_workers_cleanly(tmp_path: Path, start: Any) -> None:
    log = tmp_path / "run" / "log.csv"
    process = start(terminated, str(tmp_path / "run"), str(tmp_path / "told.txt"))
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    process.join(60)
    assert process.exitcode == 0
    assert "Interrupted: training was asked to stop and did" in (tmp_path / "told.txt").read_text()
    assert (tmp_path / "run" / "checkpoints" / "last").exists()


@pytest.mark.slow
def test_two_nodes_on_loopback_by_torchrun(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = '{"steps": 12, "dropout": 0.0, "per_pass": 100}'
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    command += ["--local-addr", "127.0.0.1", str(HERE / "train_toy.py"), str(tmp_path / "run"), "--options", options]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1] / "src"), "GLOO_SOCKET_IFNAME": "lo"}
    nodes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [node.communicate(timeout=150)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    one, _ = train(tmp_path / "one", steps=12, dropout=0.0, accumulate=2, batches=Alternating())
    expected = torch.cat([t.flatten() for t in one.state_dict().values()])
    told = (tmp_path / "run" / "digest.txt").read_text()
    torch.testing.assert_close(_weights(told), expected, atol=1e-5, rtol=0)
