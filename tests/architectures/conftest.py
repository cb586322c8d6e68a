import pytest


@pytest.fixture(autouse=True)
def _one_thread_and_no_network(one_thread: None, offline: None) -> None:
    """What every test of this room starts from."""
