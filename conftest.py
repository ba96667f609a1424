"""What `python -m pytest --doctest-modules fastdens kernels` needs: examples run in folders of their own."""

import pytest
from _pytest.doctest import DoctestItem

# Each needs a package that the library does without.
collect_ignore_glob = ["fastdens/bench/peers/*.py"]


@pytest.fixture(autouse=True)
def folder_of_an_example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Files of an example lie beside it."""
    if isinstance(request.node, DoctestItem):
        request.getfixturevalue("monkeypatch").chdir(tmp_path_factory.mktemp("example"))
