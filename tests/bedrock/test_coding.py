import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.coding import Inflater


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def inflated(inflater: Inflater, data: bytes, size: int) -> bytes:
    return b"".join(piece for at in range(0, len(data), size) for piece in inflater.feed(data[at : at + size]))


@given(st.binary(max_size=300), st.sampled_from([gzip.compress, zlib.compress, raw_deflate]), st.integers(1, 400))
def test_every_coding_is_undone_on_any_chunking(data: bytes, code: object, size: int) -> None:
    assert callable(code)
    assert inflated(Inflater(), code(data), size) == data


def test_gzip_of_several_members_is_one_body() -> None:
    assert inflated(Inflater(), gzip.compress(b"one ") + gzip.compress(b"two"), 5) == b"one two"


def test_a_decompression_bomb_is_noticed_before_it_is_held() -> None:
    pieces = []
    with pytest.raises(ValueError, match="more than 1000000 bytes"):
        pieces.extend(len(piece) for piece in Inflater(limit=1_000_000).feed(zlib.compress(bytes(10_000_000))))
    assert sum(pieces) <= 1_000_000


def test_what_is_not_compressed_is_an_error() -> None:
    with pytest.raises(zlib.error):
        list(Inflater().feed(b"plain text that nobody compressed"))
