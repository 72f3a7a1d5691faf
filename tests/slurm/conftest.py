"""One cluster for all tests here."""

from collections.abc import Iterator

import pytest
from cluster import Cluster, NoClusterError


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Four nodes with four fake GPUs each, or a skip that says what this machine lacks."""
    try:
        with Cluster() as made:
            yield made
    except NoClusterError as error:
        pytest.skip(str(error))
