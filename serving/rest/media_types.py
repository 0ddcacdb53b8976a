"""Media types over HTTP: what the headers of a request name, and what it is answered in."""

from collections.abc import Sequence

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"
PROTOBUF = "application/x-protobuf"
FORM = "multipart/form-data"
BYTES = "application/octet-stream"
IMAGE = "image/*"

_OTHER_NAMES = dict.fromkeys(("application/protobuf", "application/vnd.google.protobuf"), PROTOBUF)
_ANYTHING = (b"", b"*/*")


def media_type(content_type: bytes) -> str:
    """The type that a Content-Type header names, without its parameters; of images `IMAGE`."""
    name = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    return IMAGE if name.startswith("image/") else _OTHER_NAMES.get(name, name)


def choose_type(accept: bytes, offered: Sequence[str]) -> str:
    """The type of an answer: of those offered what an Accept header likes best, and the first where it names none."""
    if accept in _ANYTHING:
        return offered[0]
    listed = {_OTHER_NAMES.get(name, name): weight for name, weight in weights(accept).items()}

    def liking(name: str) -> tuple[float, int]:
        patterns = ("*/*", name.partition("/")[0] + "/*", name)
        return max(
            ((listed[each], rank) for rank, each in enumerate(patterns) if each in listed), key=_rank, default=(0.0, 0)
        )

    best = max(offered, key=liking)  # the first of those that are liked alike
    return best if liking(best)[0] > 0 else offered[0]


def weights(header: bytes) -> dict[str, float]:
    """What a header such as Accept lists, each with its weight (RFC 9110, section 12.4.2)."""
    listed = {}
    for item in header.decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        listed[name] = _weight(parameters)
    return listed


def _rank(liking: tuple[float, int]) -> int:
    return liking[1]  # what names a type exactly holds, whatever it says of others


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0 <= weight <= 1 else 0.0
    return 1.0
