"""Folders of Hugging Face: where a name's files are, and what is in them. Nothing is unpickled unsafely."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from sonorant.core.errors import CheckpointError
from sonorant.core.optional import require
from sonorant.encoders.convert import Weights
from sonorant.encoders.pickled import read_pickled

__all__ = [
    "CONFIG",
    "find_folder",
    "hub_folder",
    "hub_name",
    "read_features",
    "read_json",
    "read_weights",
    "write_folder",
]

log = logging.getLogger("sonorant")
CONFIG = "config.json"
_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PLAIN = ["*.json", "*.txt", "*.model"]


def find_folder(name: str | Path, revision: str | None = None) -> Path:
    """A folder that lies here, or that of a name on the hub.

    Raises:
        CheckpointError: neither a folder nor a name, or nothing there.
        MissingPackage: a name, and the extra `hub` is not installed.
    """
    if Path(name).is_dir():
        return Path(name)
    if not hub_name(name):
        raise CheckpointError(
            f"no folder or file {name}, and it is no name on the hub either: those read owner/model, such as "
            "facebook/hubert-base-ls960"
        )
    return hub_folder(str(name), revision)


def hub_name(name: str | Path) -> bool:
    """Whether it could be a name on the hub: owner/model."""
    return _NAME.fullmatch(str(name)) is not None


def hub_folder(name: str, revision: str | None = None) -> Path:
    """The files of a model on the hub: out of the cache if they are all there, else fetched.

    Args:
        name: owner/model.
        revision: branch, tag or commit.

    Raises:
        CheckpointError: not in the cache, and the hub cannot be reached or does not have it.
        MissingPackage: the extra `hub` is not installed.
    """
    hub = require("huggingface_hub", extra="hub", purpose=f"to find '{name}' on the hub")
    errors = require("huggingface_hub.errors", extra="hub")
    try:
        folder = Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
        # A download that was broken off, or one without weights, is gone on with.
        if (files := _weight_files(folder)) and all(file.is_file() for file in files):
            return folder
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, FileNotFoundError):
        pass
    log.info("%s is not in the hub's cache; fetching it", name)
    try:
        # Weights once, and as safetensors where there are any.
        for weights in ("*.safetensors*", "pytorch_model*.bin*"):
            folder = Path(hub.snapshot_download(name, revision=revision, allow_patterns=[*_PLAIN, weights]))
            if _weight_files(folder):
                return folder
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HFValidationError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        why = shorten(first, 200, placeholder=" …").rstrip(".")
        raise CheckpointError(
            f"'{name}' is neither a folder here nor in the hub's cache, and the hub did not give it: {why}. Without "
            "a network, copy the model's folder here and give its path"
        ) from None
    raise CheckpointError(f"'{name}' on the hub holds no weights that can be read (safetensors or pytorch_model.bin)")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: no such file, or something else in it.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no {file.name} in {file.parent}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} must hold an object, got {str(found)[:60]}")
    return found


def read_features(folder: Path) -> dict[str, Any]:
    """How a model's input is prepared: `preprocessor_config.json`, or that part of `processor_config.json`; else empty."""
    if (folder / "preprocessor_config.json").is_file():
        return read_json(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        return _part(folder / "processor_config.json", "feature_extractor")
    return {}


def _part(file: Path, name: str) -> dict[str, Any]:
    """An object inside a file's object; empty where there is none."""
    found = read_json(file).get(name, {})
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: '{name}' must be an object, got {str(found)[:60]}")
    return found


def read_weights(folder: Path) -> Weights:
    """All weights of a folder: one file of safetensors, several with an index, or torch's own.

    Raises:
        CheckpointError: none, damaged, or one that the index names is missing or lies elsewhere.
    """
    files = _weight_files(folder)
    if not files:
        raise CheckpointError(f"no weights in {folder}: expected {_SAFE}, {_PICKLED}, or either with an index")
    weights: Weights = {}
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"the index in {folder} names {file.name}, which is not there")
        weights |= _read(file)
    return weights


def _weight_files(folder: Path) -> list[Path]:
    for whole in (_SAFE, _PICKLED):
        if (folder / whole).is_file():
            return [folder / whole]
        index = folder / f"{whole}.index.json"
        if index.is_file():
            return [folder / name for name in sorted(_named(index))]
    return []


def _named(index: Path) -> set[str]:
    """The files that an index names; of its own folder alone, whatever it says."""
    names = list(_part(index, "weight_map").values())
    # Not by where they lead: in the hub's cache they are links to elsewhere.
    for name in names:
        if not isinstance(name, str) or name in (".", "..") or set(name) & set("/\\:\0"):
            raise CheckpointError(
                f"{index} must name files beside it, got {str(name)[:80]!r}; nothing else is read: fetch the folder anew"
            )
    return set(names)


def _read(file: Path) -> Weights:
    if file.suffix != ".safetensors":
        found = read_pickled(file)
        if not isinstance(found, Mapping):
            raise CheckpointError(f"{file} must hold tensors by name, got {type(found).__name__}")
        return {str(name): tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None


def write_folder(
    folder: Path,
    weights: Mapping[str, Shaped[Tensor, "..."]],
    config: Mapping[str, Any],
    features: Mapping[str, Any],
) -> None:
    """Writes into an empty folder what transformers reads: weights, `config.json` and `preprocessor_config.json`."""
    from safetensors.torch import save_file

    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()},
        folder / _SAFE,
        metadata={"format": "pt"},
    )
    (folder / CONFIG).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
    if features:
        (folder / "preprocessor_config.json").write_text(json.dumps(dict(features), indent=2) + "\n", encoding="utf-8")
