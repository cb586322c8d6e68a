import pytest


@pytest.fixture(autouse=True)
def _no_network(offline: None) -> None:
    """What every test of this room starts from."""
