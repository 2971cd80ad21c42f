"""One proxy for the whole folder, and a virtual key of it."""

from collections.abc import Iterator

import pytest

from tests.fakes.running import Blocking, database, in_thread


@pytest.fixture(scope="session")
def proxy(postgres: str, _template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Blocking]:
    with (
        database(postgres, _template) as url,
        in_thread(url, tmp_path_factory.mktemp("proxy")) as running,
    ):
        yield running


@pytest.fixture(scope="session")
def key(proxy: Blocking) -> str:
    return proxy.key(key_alias="conformance")
