"""The key that verifies tokens."""

from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from jwt import InvalidKeyError, PyJWTError, get_algorithm_by_name

from progress_service.config import ConfigurationError

UNFIT = (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm)
"""What is raised for a key that an algorithm cannot use."""


def verifying_key(config: Mapping[str, Any]) -> Any:
    """Return the key that is given, ready for use."""
    algorithm = config["JWT_ALGORITHM"]
    name = "JWT_SECRET_KEY" if config.get("JWT_SECRET_KEY") else "JWT_PUBLIC_KEY"
    try:
        return _verifying_key(config[name], algorithm)
    except UNFIT as error:
        raise ConfigurationError(f"PROGRESS_{name} is no key for {algorithm}, or has too few bits.") from error


def _verifying_key(key: Any, name: str) -> Any:
    """Return a key ready for use, so that it is parsed once; raises one of UNFIT where it is not one to verify with."""
    algorithm = get_algorithm_by_name(name)
    prepared = algorithm.prepare_key(key)
    if hasattr(prepared, "private_bytes"):
        raise InvalidKeyError("This is a private key.")
    if too_short := algorithm.check_key_length(prepared):
        raise InvalidKeyError(too_short)
    return prepared
