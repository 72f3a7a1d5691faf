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


@pytest.fixture(autouse=True)
def _whole_cluster(cluster: Cluster) -> None:
    """What a test breaks is broken for this test alone."""
    cluster.reset()
