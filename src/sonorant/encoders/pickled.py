"""Checkpoints that other toolkits pickled, read without running anything in them.

torch's restricted reader makes tensors and plain containers. fairseq's files also hold options and dictionaries as objects of
its own classes: for those names, written out below, an inert stand-in is made that remembers what it was given, so that no
code but this file's runs. Any other class is refused.
"""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sonorant.core.errors import CheckpointError

__all__ = ["INERT", "Inert", "plain", "read_pickled"]

INERT = (
    "argparse.Namespace",
    "fairseq.data.dictionary.Dictionary",
    "fairseq.data.audio.hubert_dataset.HubertDataset",
    "fairseq.dataclass.constants.DDP_BACKEND_CHOICES",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.StringNode",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "typing.Any",
    "builtins.dict",
    "builtins.list",
    "builtins.str",
    "builtins.int",
    "builtins.float",
    "builtins.bool",
)
"""Names for which a stand-in is made; none of them is imported."""


_REFUSED = {"GLOBAL", "Unsupported", "instantiate", "unrecognized", "function"}
"""A word of torch's lines that say what is refused; others advise to read the file unsafely, which is not passed on."""


class Inert:
    """What stands for an object of another toolkit: its state and nothing that runs."""

    state: Mapping[str, Any] = {}

    def __init__(self, *args: Any, **options: Any) -> None:
        self.state = options

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, Mapping) else {"state": state}


def read_pickled(path: str | Path) -> Any:
    """What a `.pt` or `.bin` holds, on the CPU.

    Raises:
        CheckpointError: no such file, damaged, or it holds objects that cannot be read safely.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no file {path}")
    names = [(_stand_in(name), name) for name in INERT]
    try:
        with torch.serialization.safe_globals(names), warnings.catch_warnings():  # type: ignore[arg-type]
            # What an unusual protocol leads to is said below, if it leads to anything.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        told = [line for line in str(error).splitlines() if _REFUSED & set(line.split())]
        first = told[0] if told else "torch's restricted reader refuses it"
        raise CheckpointError(
            f"{path} holds objects that cannot be read without running code from it: {first.strip(' .')[:200]}. Write its "
            "weights alone on a machine that trusts the file: torch.save({'model': state_dict, 'cfg': plain_dict}, path), or "
            "take the model's safetensors from its hub page"
        ) from None
    except Exception as error:  # bytes of no pickle fail in any way: by an index, an attribute, an assertion
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise CheckpointError(f"{path} is damaged or no checkpoint of torch ({why}); fetch it anew") from None


def _stand_in(name: str) -> type[Inert]:
    # A type each: the reader keeps what is allowed by type and by name.
    return type(name.rpartition(".")[2], (Inert,), {"__module__": name.rpartition(".")[0]})


def plain(value: Any) -> Any:
    """Options as plain values, whatever held them: a dictionary, a namespace, or OmegaConf's nodes.

    >>> plain({"a": Inert(b=1)})
    {'a': {'b': 1}}
    """
    if isinstance(value, Inert):
        state = value.state
        if "_content" in state:  # OmegaConf's containers
            return plain(state["_content"])
        return plain(state["_val"]) if "_val" in state else plain(state)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
