import pytest

from sonorant.core.errors import CheckpointError, ConfigError, blaming


def test_what_goes_wrong_in_a_file_is_said_with_its_name() -> None:
    for error, kind, message in (
        (KeyError("dims"), CheckpointError, r"^x.pt does not hold .* \(KeyError: 'dims'\); fetch it anew"),
        (RecursionError("deep"), CheckpointError, r"^x.pt does not hold .* \(RecursionError: deep\)"),
        (ConfigError("dim must be 3"), ConfigError, r"^x.pt: dim must be 3$"),
        (CheckpointError("in x.pt is nothing"), CheckpointError, r"^in x.pt is nothing$"),
    ):
        with pytest.raises(kind, match=message), blaming("x.pt"):
            raise error
    with pytest.raises(KeyboardInterrupt), blaming("x.pt"):
        raise KeyboardInterrupt
