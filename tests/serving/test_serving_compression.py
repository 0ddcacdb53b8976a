"""Bodies that come compressed, and answers that are compressed."""

import gzip
import json
import zlib

import numpy as np
import pytest
from backports import zstd

from serving.errors import ServingError
from serving.rest.content import SMALLEST_COMPRESSED, Response, compressed, decompressed
from serving.wire.requests import LARGEST_EXPANSION

pytestmark = pytest.mark.xdist_group("serving")

PREDICT = "/v1/models/zoo:predict"
TEXT = b'{"instances": [1, 3]}'
HALVES = len(TEXT) // 2
RAW = zlib.compressobj(wbits=-15)
COMPRESSED = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "gzip-by-its-old-name": ("X-GZip", gzip.compress(TEXT)),
    "two-files-of-gzip": ("gzip", gzip.compress(TEXT[:HALVES]) + gzip.compress(TEXT[HALVES:])),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "deflate-without-its-header": ("deflate", RAW.compress(TEXT) + RAW.flush()),
    "zstd": ("zstd", zstd.compress(TEXT)),
    "two-frames-of-zstd": ("zstd", zstd.compress(TEXT[:HALVES]) + zstd.compress(TEXT[HALVES:])),
    "none": ("identity", TEXT),
    "unknown-is-passed-over": ("utf-8", TEXT),
}


@pytest.mark.parametrize(("encoding", "body"), COMPRESSED.values(), ids=COMPRESSED)
def test_compressed_request_is_answered(rest, encoding, body):
    answer = rest.post(PREDICT, content=body, headers={"Content-Encoding": encoding})
    assert answer.json() == {"predictions": [2.5, 3.5]}


def test_large_bodies_come_back_as_they_were():
    body = np.random.default_rng(0).integers(0, 9, 300_000).astype(np.uint8).tobytes()
    for encoding, compress in {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}.items():
        assert decompressed(compress(body), encoding) == body


def wide_window():
    """A frame that asks for 16 MB of memory."""
    options = {zstd.CompressionParameter.window_log: 24, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(b"x") + compressor.flush()


MEGABYTE = bytes(2**20)
NOT_WHOLE = {
    "no-zstd": ("zstd", b"{}", "Request body is not valid zstd: Unable to decompress Zstandard data"),
    "cut-zstd": ("zstd", zstd.compress(TEXT)[:-3], "Request body is not valid zstd: it ends too early"),
    "many-frames": ("zstd", zstd.compress(b"") * 1001, "Request body is zstd of more than 1000 members."),
    "zstd-bomb": (
        "zstd",
        zstd.compress(MEGABYTE) * 101,
        f"Request body inflates to more than {LARGEST_EXPANSION} bytes.",
    ),
    "wide-window": ("zstd", wide_window(), "Request body is not valid zstd: Unable to decompress Zstandard data"),
    "no-deflate": ("deflate", b"\xff\xff", "Request body is not valid deflate: Error -3"),
    "cut-deflate": ("deflate", zlib.compress(TEXT)[:-3], "Request body is not valid deflate: it ends too early"),
    "deflate-bomb": (
        "deflate",
        zlib.compress(bytes(LARGEST_EXPANSION + 1), 1),
        f"Request body inflates to more than {LARGEST_EXPANSION} bytes.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("encoding", "body", "message"), NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_body_that_does_not_decompress_is_refused(encoding, body, message):
    with pytest.raises(ServingError) as caught:
        decompressed(body, encoding)
    assert caught.value.message.startswith(message)


LONG = Response(200, b"[" + b"0.125," * 1000 + b"0]")
WANTED = {
    "gzip": "gzip",
    "gzip, deflate": "gzip",
    "gzip, deflate, br, zstd": "zstd",
    "GZIP;Q=1, zstd;q=0.9": "gzip",
    "zstd;q=0, gzip;q=0.1": "gzip",
    "*": "zstd",
    "*, zstd;q=0": "gzip",
    "br": None,
    "identity, gzip;q=0.5": None,
    "gzip;q=0": None,
    "gzip;q=none": None,
    "": None,
}


@pytest.mark.parametrize(("accepted", "encoding"), WANTED.items(), ids=WANTED)
def test_answer_is_compressed_as_its_client_likes_it_best(accepted, encoding):
    answer = compressed(LONG, accepted)
    vary = (b"vary", b"Accept-Encoding")
    assert answer.headers == ((vary, (b"content-encoding", encoding.encode())) if encoding else (vary,))
    if encoding:
        assert len(answer.body) < len(LONG.body) / 10
        assert decompressed(answer.body, encoding) == LONG.body
    else:
        assert answer.body == LONG.body


@pytest.mark.parametrize(
    "response",
    [Response(200, b"0" * (SMALLEST_COMPRESSED - 1)), Response(200, bytes(SMALLEST_COMPRESSED), "application/x-npy")],
    ids=["short", "array"],
)
def test_what_gains_little_is_sent_as_it_is(response):
    assert compressed(response, "gzip") is response


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity"])
def test_compressed_answer_over_a_socket(rest, encoding):
    body = json.dumps({"instances": list(range(1000))})
    with rest.stream("POST", PREDICT, content=body, headers={"Accept-Encoding": encoding}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers.get("content-encoding", "identity") == encoding
    assert int(answer.headers["content-length"]) == len(raw)
    text = raw if encoding == "identity" else decompressed(raw, encoding)
    assert json.loads(text)["predictions"] == [x / 2 + 2 for x in range(1000)]
