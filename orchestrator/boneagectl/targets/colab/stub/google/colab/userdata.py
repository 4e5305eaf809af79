"""Secrets, which exist, do not exist, or may not be read."""

import os


class SecretNotFoundError(Exception):
    pass


class NotebookAccessError(Exception):
    pass


class TimeoutException(Exception):
    pass


def get(key: str) -> str:
    answer = os.environ.get("STUB_SECRETS", "")
    if answer == "timeout":
        raise TimeoutException(f"Requesting secret {key} timed out.")
    if f"STUB_SECRET_{key}" not in os.environ:
        raise SecretNotFoundError(f"Secret {key} does not exist.")
    if answer == "denied":
        raise NotebookAccessError(f"Notebook does not have access to secret {key}")
    return os.environ[f"STUB_SECRET_{key}"]
