"""Bytes that are made to cost more than they are worth, for each decoder of the server, and what reading them may cost.

`DECODERS` holds everything that reads what strangers send, `WORST` the worst bodies that are known, and `hostile` makes
up others. tests/serving/test_serving_cost.py and `python -m benchmarks.serving_fuzz` hold all of them to `allowed`.
"""

import asyncio
import gzip
import io
import random
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from backports import zstd
from uvicorn.server import ServerState

from serving.call import Call
from serving.errors import ServingError
from serving.models.guard import GuardedRunner
from serving.models.inference import CLASSIFY
from serving.rest.bodies import Body, decode_examples, decode_predict, parse_body
from serving.rest.connection import Connection, Limits, Shared
from serving.rest.content import (
    BYTES,
    FORM,
    JSON,
    NPY,
    NPZ,
    PROTOBUF,
    Response,
    choose_type,
    compressed,
    media_type,
)
from serving.rest.routes import parse_route, signature_name
from serving.wire.json_text import error_body
from serving.wire.requests import LARGEST_EXPANSION
from serving.wire.signatures import Signature, TensorInfo, bind_inputs, find_signature, helpful_text

SECONDS = 0.25
SECONDS_PER_BYTE = 5e-6
"""The costliest bytes known are short values that become objects, such as rows of JSON, parts of forms and strings of
messages: about a microsecond of CPU time each on a core of 2023. The rest is for slower ones."""
MEMORY = 8 * 2**20
MEMORY_PER_BYTE = 200
"""An empty list of JSON, or an empty message, takes 50 to 100 bytes for each of its own."""
SECONDS_PER_BYTE_MADE = 2e-8
MEMORY_PER_BYTE_MADE = 4
"""Of arrays, which are filled and copied."""
MADE_PER_BYTE = 16
"""A value of a byte or two becomes one of 8 or 16."""
SECONDS_TO_INFLATE = 1.0
"""Inflating the largest allowed body takes less. A larger one is refused only after that many bytes."""

_LARGEST_BODY = 2**29  # bytes
_ANY = None
_SIGNATURES = {
    "serving_default": Signature("serving_default", "", {"x": TensorInfo("x:0", "float", _ANY)}, {}),
    "strings": Signature("strings", "", {"s": TensorInfo("s:0", "string", (None,))}, {}),
    "pick": Signature(
        "pick", "", {"a": TensorInfo("a:0", "int64", (None,)), "b": TensorInfo("b:0", "bool", (None,))}, {}
    ),
    "classify": Signature(
        "classify",
        "",
        {"inputs": TensorInfo("i:0", "string", (None,))},
        {"scores": TensorInfo("s:0", "float", (None, None))},
    ),
}


class _Nothing:
    """Stands for a graph, which strangers have not made."""

    def run(self, feeds: Mapping[str, np.ndarray], *arguments: Any) -> list[np.ndarray]:
        return []

    def close(self) -> None:
        pass


_GUARD = GuardedRunner(_Nothing(), Path("/"), 100_000_000)  # type: ignore[arg-type]


class Cost(NamedTuple):
    """CPU time in seconds, memory in bytes at the worst moment, and the bytes of the arrays that were made."""

    seconds: float
    memory: float
    made: float

    def exceeds(self, other: "Cost") -> bool:
        """Whether it is more in any of them."""
        return any(own > others for own, others in zip(self, other, strict=True))


@dataclass(frozen=True)
class Decoder:
    """Reads bytes of strangers, from their coming in to where a graph would run, and gives the size of what it made."""

    read: Callable[[bytes], int]
    inflates: bool = False


def allowed(decoder: Decoder, num_bytes: int, num_made: int) -> Cost:
    """The limits for an input: a constant, plus a multiple of its length, plus a multiple of the bytes that it made."""
    seconds = SECONDS + SECONDS_PER_BYTE * num_bytes + SECONDS_PER_BYTE_MADE * num_made
    memory = MEMORY + MEMORY_PER_BYTE * num_bytes + MEMORY_PER_BYTE_MADE * num_made
    if decoder.inflates:
        seconds, memory = seconds + SECONDS_TO_INFLATE, memory + 3 * LARGEST_EXPANSION
    return Cost(seconds, memory, LARGEST_EXPANSION + MADE_PER_BYTE * num_bytes)


def measured(decoder: Decoder, data: bytes, tries: int = 3) -> tuple[Cost, Cost]:
    """The measured cost of an input, and the cost that is allowed. Raises any exception but ServingError."""
    tracemalloc.start()
    made = decoder.read(data)
    _, traced = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    may = allowed(decoder, len(data), made)
    runs = []
    for _ in range(tries):  # the least counts, as a machine that does other work, too, may be slow at one of them
        runs.append(_run(decoder, data))
        if runs[-1][0] <= may.seconds / 2 and runs[-1][1] <= may.memory:
            break
    seconds, resident = (min(each) for each in zip(*runs, strict=True))
    return Cost(seconds, max(traced, resident), made), may


def _run(decoder: Decoder, data: bytes) -> tuple[float, int]:
    """CPU time, and by how much the process grew, which Python's allocator does not know of libraries in C."""
    before = _resident_bytes("VmRSS", anew=True)
    start = time.thread_time()
    decoder.read(data)
    seconds = time.thread_time() - start
    return seconds, _resident_bytes("VmHWM") - before


def _resident_bytes(which: str, anew: bool = False) -> int:
    """The memory of this process, now (VmRSS) or at most (VmHWM) since it was counted anew; 0 where no /proc tells."""
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.partition(which + ":")[2].split(None, 1)[0]) * 1024


def _refusing(read: Callable[[bytes], int]) -> Callable[[bytes], int]:
    """Wraps a reader so that it also writes the error body of a refused input."""

    def reading(data: bytes) -> int:
        try:
            return read(data)
        except ServingError as error:
            error_body(ServingError(error.code, helpful_text(error, "/v1/models/m")))
            return 0

    return reading


def _parsed(action: str, body: bytes, content_type: str, encoding: str = "", query: str = "") -> Body:
    headers = {"content-type": content_type, "content-encoding": encoding}
    call = Call(header=lambda name: headers.get(name, ""))
    return parse_body(parse_route("POST", f"/v1/models/m:{action}", query), call, body, _LARGEST_BODY)


def _predicting(content_type: str, encoding: str = "", query: str = "") -> Decoder:
    def read(data: bytes) -> int:
        body = _parsed("predict", data, content_type, encoding, query)
        request, _ = decode_predict(body, _SIGNATURES)
        signature = find_signature(_SIGNATURES, request.signature_name)
        _GUARD.run(bind_inputs(signature, request.inputs), [], Call())
        return sum(map(_size, request.inputs.values()))

    return Decoder(_refusing(read), inflates=bool(encoding) or content_type == NPZ)


def _classifying(content_type: str) -> Decoder:
    def read(data: bytes) -> int:
        _, examples = decode_examples(_parsed("classify", data, content_type), _SIGNATURES, CLASSIFY)
        _GUARD.run({"i:0": examples}, [], Call())
        return _size(examples)

    return Decoder(_refusing(read))


def _size(array: np.ndarray) -> int:
    return sum(map(len, array.flat)) if array.dtype.kind == "O" else array.nbytes


class _Memory(asyncio.Transport):
    """Keeps what a connection writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self._is_closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self._is_closed = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


async def exchange(app: Any, pieces: Iterable[bytes]) -> bytes:
    """The bytes that the server writes for those that a client sends in pieces, each before the next one is read."""
    config = uvicorn.Config(app, Connection, ws="none", lifespan="off", interface="asgi3", log_config=None)
    state, shared = ServerState(), Shared(limits=Limits(), refused=lambda *arguments: [])
    connection, transport = Connection(config, state, shared, ""), _Memory()
    connection.connection_made(transport)
    for piece in pieces:
        if not transport.is_closing():
            connection.data_received(piece)
        while state.tasks and not connection.cycle.more_body:
            await asyncio.wait(state.tasks)
    connection.connection_lost(None)
    if state.tasks:
        await asyncio.wait(state.tasks)
    return bytes(transport.written)


async def _answer_nothing(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


def _requests_in_pieces(size: int) -> Decoder:
    def read(data: bytes) -> int:
        asyncio.run(exchange(_answer_nothing, (data[start : start + size] for start in range(0, len(data), size))))
        return 0

    return Decoder(read)


def _read_address(data: bytes) -> int:
    path, _, query = data.decode("latin-1").partition("?")
    for method in ("POST", "GET"):
        parse_route(method, path)
    signature_name(query)
    return 0


def _read_headers(data: bytes) -> int:
    header = data.decode("latin-1")
    media_type(header)
    choose_type(header, (JSON, NPY, NPZ, PROTOBUF))
    compressed(Response(200, b"{}" * 1024), header)
    decode_predict(_parsed("predict", b"", f"{FORM}; {header}", header), _SIGNATURES)
    return 0


DECODERS: dict[str, Decoder] = {
    "JSON": _predicting(JSON),
    "JSON of examples": _classifying(JSON),
    "PredictRequest": _predicting(PROTOBUF),
    "ClassificationRequest": _classifying(PROTOBUF),
    "npy": _predicting(NPY),
    "npz": _predicting(NPZ),
    "image": _predicting("image/png"),
    "tf.Example": _predicting(BYTES, query="signature_name=classify"),
    "form": _predicting(f"{FORM}; boundary=b"),
    "gzip": _predicting(JSON, "gzip"),
    "deflate": _predicting(JSON, "deflate"),
    "zstd": _predicting(JSON, "zstd"),
    "requests": _requests_in_pieces(65536),
    "requests in pieces": _requests_in_pieces(16),
    "headers": Decoder(_refusing(_read_headers)),
    "address": Decoder(_refusing(_read_address)),
}

REST_HEADERS: dict[str, dict[str, str]] = {
    **{name: {"Content-Type": JSON} for name in ("JSON", "JSON of examples")},
    **{name: {"Content-Type": PROTOBUF} for name in ("PredictRequest", "ClassificationRequest")},
    **{name: {"Content-Type": JSON, "Content-Encoding": name} for name in ("gzip", "deflate", "zstd")},
    "npy": {"Content-Type": NPY},
    "npz": {"Content-Type": NPZ},
    "image": {"Content-Type": "image/png"},
    "tf.Example": {"Content-Type": BYTES},
    "form": {"Content-Type": f"{FORM}; boundary=b"},
}
"""The HTTP headers to send with an input for each decoder."""


def hostile(name: str, chance: random.Random, size: int = 4096) -> bytes:
    """Bytes of about this size, at most, for the decoder of this name."""
    size = max(16, int(size * chance.random() ** 2))
    data = _MAKERS[name](chance, size)
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        start = int(len(data) * chance.random())
        end = start + chance.choice((0, 1, 4, 100))
        new = chance.choice((b"", chance.randbytes(4), data[start:end] * 3, b"\xff" * 8, b'"', b"[", b"\0"))
        data = data[:start] + new + data[end:]
    return data[: int(len(data) * chance.random())] if chance.random() < 0.1 else data


# JSON


def ladder(levels: int, size: int, last: bytes = b"1") -> bytes:
    """Nested lists whose first elements suggest the shape [size, size, ...], and which hold the sum of these sizes."""
    text = last
    for _ in range(levels):
        text = b"[" + text + b",1" * (size - 1) + b"]"
    return text


def _repeated(piece: bytes, size: int) -> bytes:
    return piece * max(1, size // max(1, len(piece)))


_TOKENS = (
    b"1",
    b"0.5",
    b"-0",
    b"NaN",
    b"Inf",
    b"true",
    b"null",
    b'""',
    b'"ab"',
    b"[]",
    b"[1]",
    b"[[]]",
    b"{}",
    b'{"b64":""}',
    b'{"x":1}',
    b'{"s":"a"}',
    b'{"a":1,"b":true}',
    b"16777217",
    b"1e999",
    b"18446744073709551616",
)
_CHARACTERS = (
    b"a",
    b'\\"',
    b"\\\\",
    b"\\n",
    b"\\u0000",
    b"\\ud800",
    b"\\ud83d\\ude00",
    b"\xff",
    "\u20ac".encode(),
    b" Inf ",
)


def _json_value(chance: random.Random, size: int) -> bytes:
    kind = chance.randrange(9)
    token = chance.choice(_TOKENS)
    if kind == 0:
        depth = chance.choice((2, 10, 64, 65, 300, 1000, size // 2))
        return b"[" * depth + token + b"]" * chance.choice((depth, depth, depth - 1, 0))
    if kind == 1:
        levels = chance.randint(2, 6)
        return ladder(levels, max(2, size // 2 // levels), chance.choice((b"1", token)))
    if kind == 2:
        return b"[" + _repeated(token + b",", size) + chance.choice((token, b'"x"', chance.choice(_TOKENS))) + b"]"
    if kind == 3:
        return (
            chance.choice((b"", b"-", b"0."))
            + _repeated(b"9", size)
            + chance.choice((b"", b".5", b"e-9", b"e" + b"9" * 9))
        )
    if kind == 4:
        return b'"' + _repeated(chance.choice(_CHARACTERS), size) + chance.choice((b'"', b'"', b""))
    if kind == 5:
        keys = (b'"%d":%b' % (chance.choice((number, 0)), token) for number in range(size // (len(token) + 6)))
        return b"{" + b",".join(keys) + b"}"
    if kind == 6:
        return b'["' + b"a" * (size // 2) + b'"' + _repeated(b"," + token, size // 2) + b"]"
    if kind == 7:
        piece = chance.choice((b" ", b"=", b"A", b"-_", b"\\u2003"))
        return b'{"b64":"' + _repeated(piece, size) + b'"}'
    return b'{"x":' * chance.choice((3, 300, size // 5)) + token


def _json_body(chance: random.Random, size: int) -> bytes:
    members = [b'"%b":%b' % (chance.choice((b"instances", b"inputs", b"x")), _json_value(chance, size))]
    if chance.random() < 0.3:
        members.append(b'"%b":%b' % (chance.choice((b"instances", b"inputs", b"instances")), _json_value(chance, 100)))
    name = chance.choice((b"", b"", b"strings", b"pick"))
    if name:
        members.insert(chance.randrange(2), b'"signature_name":"%b"' % name)
    return (
        b"{"
        + b",".join(members)
        + chance.choice((b"}", b"}", b"", b"} Inf", b",}"))
        + b" " * chance.choice((0, 0, 2048))
    )


def _json_examples(chance: random.Random, size: int) -> bytes:
    context = b'"context":{"x":%b},' % _json_value(chance, size) if chance.random() < 0.5 else b""
    example = b'{"x":%b}' % chance.choice((_json_value(chance, size // 8 + 1), b"1"))
    return b'{"signature_name":"classify",%b"examples":[%b]}' % (context, _repeated(example + b",", size)[:-1])


# Protobuf


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def tensor(dtype: int, shape: Sequence[int], values: bytes = b"") -> bytes:
    """A TensorProto of this DataType and shape, with fields for values that may not fit."""
    dims = b"".join(_field(2, b"\x08" + _varint(size & 2**64 - 1)) for size in shape)
    return b"\x08" + _varint(dtype) + _field(2, dims) + values


def predict(inputs: Mapping[str, bytes], name: str = "") -> bytes:
    """A PredictRequest of TensorProtos."""
    spec = _field(1, _field(1, b"m") + (_field(3, name.encode()) if name else b""))
    return spec + b"".join(_field(2, _field(1, alias.encode()) + _field(2, each)) for alias, each in inputs.items())


def _tensor(chance: random.Random, size: int) -> bytes:
    dtype = chance.choice((1, 1, 2, 3, 7, 7, 8, 9, 10, 14, 17, 19, 20, 23))
    shape = chance.choice(
        (
            [chance.choice((1, size, 10**6, 10**7, 10**8, 2**31, 2**62, -1))],
            [chance.choice((0, 1, 2, 3, 2**62)) for _ in range(chance.choice((2, 8, 64, 65, 255, size // 12)))],
            [0, 2**62],
            [],
            [size // 2],
        )
    )
    byte = chance.choice((b"\xff", b"\x80", b"\0", b"\1"))
    values = chance.choice(
        (
            b"",
            _field(5, b"\0\0\0\0"),
            _field(4, byte * size),
            _field(8, b"a" * size),
            _field(8, b"") * (size // 2),
            _field(10, byte * size),
            _field(7, b"\0" * size),
            b"\x2d\0\0\0\0" * (size // 5),
            _field(11, b"\1"),
        )
    )
    return tensor(dtype, shape, values)


def _predict_message(chance: random.Random, size: int) -> bytes:
    name = chance.choice(("", "strings", "pick", "classify"))
    aliases = {"": ["x"], "strings": ["s"], "pick": ["a", "b"], "classify": ["inputs"]}[name]
    if chance.random() < 0.2:
        aliases = [f"{chance.choice('xy')}{number}" for number in range(max(1, size // 60))]
        size = 30
    filters = _field(3, b"y") * chance.choice((0, 0, size // 3))
    return predict({alias: _tensor(chance, size) for alias in aliases}, name) + filters


def _classification_message(chance: random.Random, size: int) -> bytes:
    spec = _field(1, _field(1, b"m") + _field(3, b"classify"))
    listed = _repeated(_field(1, chance.choice((b"", _example(chance, 64)))), size)
    if chance.random() < 0.5:
        return spec + _field(2, _field(1, listed))
    return spec + _field(2, _field(2, listed + _field(2, _example(chance, size))))


def _example(chance: random.Random, size: int) -> bytes:
    values = chance.choice((_field(1, _repeated(_field(1, b""), size)), _field(2, _field(1, b"\0" * size)), b""))
    values = chance.choice((values, _field(1, _field(1, _image(chance, size))), _field(3, _field(1, b"\xff" * size))))
    feature = _field(1, _field(1, chance.choice((b"x", b"y" * size))) + _field(2, values))
    return _field(1, _repeated(feature, size) if chance.random() < 0.3 else feature)


# NumPy's files


def npy(header: bytes, content: bytes = b"", version: int = 1) -> bytes:
    """A .npy file of any header."""
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + content
    )


def _npy(chance: random.Random, size: int) -> bytes:
    shape = chance.choice(
        (
            b"(%d,)" % size,
            b"(" + b"1," * (size // 2) + b")",
            b"(0," + b"9" * min(size, 4000) + b")",
            b"(" * size,
            b"(" + b"0" * size + b",)",
            b"(-1,)",
            b"-" * size + b"1",
            b"1+" * (size // 2) + b"1",
            b"(%d, %d)" % (2**62, 0),
        )
    )
    descr = chance.choice((b"<f4", b"|S1", b"<U1", b"|S0", b"<U0", b"|V2", b"|O", b"|b1", b"|S%d" % size, b"<U9999999"))
    header = b"{'descr': '%b', 'fortran_order': False, 'shape': %b}" % (descr, shape)
    if chance.random() < 0.2:
        header = b"{" + b"'descr':1," * (size // 10) + header[1:]
    return npy(header, chance.choice((b"", b"\0" * size, b"\xff" * size)), chance.choice((1, 1, 2, 3)))


def npz(members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A .npz file of members by name, some of which may be called alike."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def _npz(chance: random.Random, size: int) -> bytes:
    number = chance.choice((1, 1, max(1, size // 120)))
    content = chance.choice(
        (
            _npy(chance, max(16, size // number)),
            npy(b"{'descr': '|b1', 'fortran_order': False, 'shape': (%d,)}" % size, bytes(size)),
            b"",
        )
    )
    return npz(
        [(f"{chance.choice('xy')}{each}.npy" if each else "x.npy", content) for each in range(number)],
        chance.choice((0, 8)),
    )


# Images

GIF = b"GIF89a" + struct.pack("<HH", 1, 1) + b"\0\0\0"


def gif_frame(width: int = 1, height: int = 1, blocks: bytes = b"\x01\x00") -> bytes:
    """A frame of a GIF."""
    return b"," + struct.pack("<HHHH", 0, 0, width, height) + b"\0\x02" + blocks + b"\0"


def _image(chance: random.Random, size: int) -> bytes:
    kind = chance.randrange(5)
    if kind == 0:
        piece = chance.choice(
            (b"\xff", b"\xff\xd0", b"\xff\xfe\0\2", b"\xff\xfe\0\0", b"\xff\0", b"\0", b"\xff\xff\xfe\0\2")
        )
        return b"\xff\xd8\xff" + _repeated(piece, size)
    if kind == 1:
        piece = chance.choice(
            (b"\x01\0", b"\x01a" * 4, b"!\xfe\x01a\0", b"!\xfe\0", gif_frame(), gif_frame(9, 9, b"\1a" * 9))
        )
        return GIF + chance.choice((b"", b"!\xfe", gif_frame()[:-1])) + _repeated(piece, size)
    if kind == 2:
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", chance.choice((1, 2**31)), 9) + bytes(size)
    if kind == 3:
        return b"RIFF\0\0\0\0WEBP" + chance.choice((b"VP8X", b"VP8L", b"VP8 ")) + bytes(14) + _repeated(b"ANMF", size)
    return b"BM" + bytes(8) + struct.pack("<III", 54, 40, 9) + bytes(size)


def _bytes_body(chance: random.Random, size: int) -> bytes:
    return chance.choice((_example, _image))(chance, size)


# Forms, compressed bodies, requests


def part(headers: bytes, content: bytes) -> bytes:
    """A part of a form whose boundary is b."""
    return b"--b\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


def _form(chance: random.Random, size: int) -> bytes:
    name = b'Content-Disposition: form-data; name="%b"' % chance.choice((b"x", b"s", b"signature_name", b"a" * 30))
    header = chance.choice(
        (
            name,
            name,
            name + b'; filename="f"',
            _repeated(b"a:b\r\n", size) + name,
            name + _repeated(b"; a=b", size),
            _repeated(b'Content-Disposition: x"\\"', size),
        )
    )
    content = chance.choice(
        (
            b"1",
            b"",
            _repeated(chance.choice((b"\r", b"\r\n", b"\r\n--", b"-", b"a", b"\r\n--b\r", b"[", b"9", b"\0")), size),
            _json_value(chance, size),
        )
    )
    whole = part(header, content)
    if chance.random() < 0.5:
        whole = _repeated(whole, size)
    return whole + chance.choice((b"--b--\r\n", b"--b--", b""))


def _compressed(compress: Callable[[bytes], bytes]) -> Callable[[random.Random, int], bytes]:
    def make(chance: random.Random, size: int) -> bytes:
        kind = chance.randrange(4)
        if kind == 0:
            return _repeated(compress(chance.choice((b"", b"[", b" "))), size)
        if kind == 1:
            return compress(b'{"instances":[' + b"0," * (32 * size) + b"0]}")
        if kind == 2:
            return _repeated(compress(bytes(2**17)), min(size, 2000))
        return compress(_json_body(chance, size))

    return make


def _requests(chance: random.Random, size: int) -> bytes:
    line = chance.choice(
        (
            b"POST /v1/models/m:predict HTTP/1.1\r\n",
            b"GET /%b HTTP/1.1\r\n" % (b"a" * size),
            b"\r\n" * 9,
            b"OPTIONS * HTTP/1.0\r\n",
        )
    )
    header = chance.choice(
        (
            b"a:\r\n",
            b"Host: x\r\n",
            b"a:" + b" " * size + b"\r\n",
            b"x: " + b"y" * size + b"\r\n",
            b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        )
    )
    headers = chance.choice((header, _repeated(header, size)))
    chunk = chance.choice((b"1\r\na\r\n", b"1;" + b"x" * 40 + b"\r\na\r\n", b"0" * 40 + b"1\r\na\r\n"))
    body = chance.choice(
        (
            b"\r\n",
            b"Content-Length: %d\r\n\r\n" % size + b"a" * size,
            b"Transfer-Encoding: chunked\r\n\r\n"
            + _repeated(chunk, size)
            + b"0\r\n"
            + chance.choice((b"", _repeated(b"a:b\r\n", size)))
            + b"\r\n",
        )
    )
    whole = line + headers + body
    return _repeated(whole, size) if chance.random() < 0.5 else whole


def _headers(chance: random.Random, size: int) -> bytes:
    item = chance.choice(
        (
            b",",
            b";",
            b"a,",
            b"*/*;q=0.1,",
            b"a;b=c;",
            b"gzip;q=1.,",
            b"q=",
            b'a="\\"',
            b"image/png,",
            b"=",
            b'"',
            b"\\",
            b"boundary=b;",
            b"a*0=b;",
            b"a*=utf-8''%41;",
        )
    )
    return _repeated(item, min(size, 65536))


def _address(chance: random.Random, size: int) -> bytes:
    start = chance.choice(
        (b"/v1/models/", b"/v1/models/m", b"/v1/models/m/versions/", b"/v1/models/m/labels/", b"/v1/")
    )
    piece = chance.choice((b"a", b"/", b"0", b"9", b"%41", b"%", b"/versions/1", b"/labels/a", b":predict", b"\xff"))
    query = chance.choice((b"a=1&", b"&", b";", b"%41", b"signature_name=", b"+"))
    end = chance.choice((b"", b":predict", b"/metadata", b":predict?" + _repeated(query, size)))
    return start + _repeated(piece, size) + end


_MAKERS: dict[str, Callable[[random.Random, int], bytes]] = {
    "JSON": _json_body,
    "JSON of examples": _json_examples,
    "PredictRequest": _predict_message,
    "ClassificationRequest": _classification_message,
    "npy": _npy,
    "npz": _npz,
    "image": _image,
    "tf.Example": _bytes_body,
    "form": _form,
    "gzip": _compressed(lambda data: gzip.compress(data, 6)),
    "deflate": _compressed(zlib.compress),
    "zstd": _compressed(zstd.compress),
    "requests": _requests,
    "requests in pieces": _requests,
    "headers": _headers,
    "address": _address,
}

_SIZE = 32768
_JSON_ROWS = b'{"signature_name":"pick","instances":[%b]}'
_QUOTED = b'{"instances":1,"inputs":%b}'
_PNG_BOMB = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 2**31, 2**31)

WORST: dict[str, tuple[str, bytes]] = {
    # The text of an array of the shape that the first elements suggest was as long as the product of their number.
    "product of sizes": ("JSON", (b'{"instances":%b}' % ladder(4, 80)).ljust(2048)),
    "products of sizes": (
        "JSON",
        (b'{"instances":[%b]}' % b",".join([b'{"x":%b}' % ladder(3, 150)] * 15)).ljust(2**15),
    ),
    "quotes in a string without end": ("JSON", b'{"Inf":"' + b'\\"' * (_SIZE // 2)),
    "quotes before a missing comma": ("JSON", b'{"a":"' + b'\\"' * (_SIZE // 2) + b'" 1'),
    "string beside many": ("JSON", b'{"instances":["' + b"a" * 20000 + b'"' + b',"b"' * 5000 + b"]}"),
    "many names": ("JSON", b'{"instances":[1],' + b",".join(b'"%d":1' % each for each in range(30000)) + b"}"),
    "name many times": ("JSON", b'{"inputs":[1]' + b',"inputs":[1]' * 3000 + b"}"),
    "one wrong row": ("JSON", b'{"instances":[' + b"1," * _SIZE + b'"x"]}'),
    "one wrong row with names": ("JSON", _JSON_ROWS % (b'{"a":1,"b":true},' * 1500 + b'{"a":1,"b":1}')),
    "brackets that are quoted": ("JSON", _QUOTED % (b"[" * 900 + b"]" * 900)),
    "lists that are quoted": ("JSON", _QUOTED % (b"[" + b"[1]," * 8000 + b"1]")),
    "numbers of another type": ("JSON", b'{"signature_name":"pick","instances":[%b0.5]}' % (b"1," * _SIZE)),
    "digits": ("JSON", b'{"instances":[' + b"9" * _SIZE + b"]}"),
    "decimals": ("JSON", b'{"instances":[NaN,0.' + b"9" * _SIZE + b"]}"),
    "surrogates": ("JSON", b'{"instances":[1],"a":"' + b"\\ud800" * 5000 + b'"}'),
    "bytes that are no text": ("JSON", b'{"instances":["' + b"\xff" * _SIZE + b'"]}'),
    "space in base64": ("JSON", b'{"signature_name":"strings","instances":[{"b64":"' + b" =" * (_SIZE // 2) + b'"}]}'),
    "context of many examples": (
        "JSON of examples",
        b'{"signature_name":"classify","context":{"x":"%b"},"examples":[{}%b]}' % (b"a" * 20000, b",{}" * 8000),
    ),
    "context of many messages": (
        "ClassificationRequest",
        _field(1, _field(1, b"m") + _field(3, b"classify"))
        + _field(2, _field(2, b"\x0a\0" * 10000 + _field(2, _field(1, _field(1, _field(1, b"y" * 20000)))))),
    ),
    "length without end": (
        "PredictRequest",
        predict({"s": tensor(7, [1], _field(4, b"\xff" * 300_000))}, "strings"),
    ),
    "tensors nobody asked for": (
        "PredictRequest",
        predict({f"x{each}": tensor(1, [2 * 10**7]) for each in range(3)}),
    ),
    "tensors that grow": ("PredictRequest", predict({"a": tensor(9, [10**7]), "b": tensor(10, [10**8])}, "pick")),
    "string that grows": ("PredictRequest", predict({"s": tensor(7, [10**6], _field(8, b"a" * 1000))}, "strings")),
    "dimensions": ("PredictRequest", predict({"x": tensor(1, [2**62] * 30000)})),
    "nested header": ("npy", npy(b"(" * 9999)),
    "header of many keys": ("npy", npy(b"{" + b"'descr':1," * 990 + b"}")),
    "arrays nobody asked for": (
        "npz",
        npz(
            [
                (f"{each}.npy", npy(b"{'descr':'|b1'," * 1 + b"'shape':(0,)," * 140 + b"'fortran_order':False}"))
                for each in range(900)
            ]
        ),
    ),
    "entries": ("npz", npz([(str(each), b"") for each in range(5000)])),
    "fill bytes": ("image", b"\xff\xd8" + b"\xff" * 400_000),
    "blocks of a byte": ("image", GIF + b"!\xfe" + b"\x01a" * 200_000),
    "strings that are none": ("PredictRequest", predict({"s": tensor(7, [15000], _field(8, b"") * 15000)}, "strings")),
    "images in an example": (
        "tf.Example",
        _field(1, _field(1, _field(1, b"x") + _field(2, _field(1, _field(1, b"\xff\xd8" + b"\xff" * 30) * 2000)))),
    ),
    "fields that name a signature": (
        "form",
        part(b'Content-Disposition: form-data; name="signature_name"', b"") * 2000
        + part(b'Content-Disposition: form-data; name="x"', b"") * 2000
        + b"--b--",
    ),
    "returns": ("form", part(b'Content-Disposition: form-data; name="x"', b"\r" * _SIZE) + b"--b--"),
    "gzip of zeros": ("gzip", gzip.compress(bytes(LARGEST_EXPANSION + 1), 1)),
    "gzip of lists": ("gzip", gzip.compress(b'{"inputs":[' + b"[]," * 200_000 + b"1]}", 1)),
    "gzip of as many lists as there may be": ("gzip", gzip.compress(b'{"inputs":[' + b"[]," * 349_000 + b"1]}", 1)),
    "gzip of too many lists": ("gzip", gzip.compress(b'{"inputs":[' + b"[]," * 8_000_000 + b"1]}", 1)),
    "gzip of as many numbers as there may be": (
        "gzip",
        gzip.compress(b'{"inputs":[' + b"1.5," * 1_048_000 + b"1]}", 1),
    ),
    "gzip of numbers with a wrong one": ("gzip", gzip.compress(b'{"instances":[' + b"1.5," * 1_048_000 + b'""]}', 1)),
    "gzip of numbers that only RapidJSON reads": (
        "gzip",
        gzip.compress(b'{"instances":[' + b"1.5," * 1_048_000 + b"NaN]}", 1),
    ),
    "gzip of pairs": ("gzip", gzip.compress(b'{"instances":[' + b"[1.5,1.5]," * 262_000 + b"1]}", 1)),
    "gzip of large numbers": ("gzip", gzip.compress(b'{"instances":[' + b"1,1e9," * 524_000 + b"1]}", 1)),
    "gzip of nothing": ("gzip", gzip.compress(b"") * 5000),
    "zstd of nothing": ("zstd", zstd.compress(b"") * 5000),
    "zstd of zeros": ("zstd", zstd.compress(bytes(2**20)) * 1001),
    "zeros of a version": ("address", b"/v1/models/m/versions/" + b"0" * 60_000 + b":predict"),
    "Accept": ("headers", b"a;q=0.1," * 8000),
    "requests without end": ("requests", b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" * 3000),
    "bytes one by one": (
        "requests in pieces",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 8000 + b"0\r\n\r\n",
    ),
}
