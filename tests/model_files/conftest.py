import pytest


@pytest.fixture(autouse=True)
def _as_in_the_training_room(one_thread: None, offline: None) -> None:
    """One thread, no network."""
