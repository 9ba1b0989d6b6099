"""Archives of torch, written opcode by opcode, that ask for more than a state dict does."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Sequence

_BEGIN, _END = b"\x80\x02", b"."


def archives_of_torch() -> dict[str, bytes]:
    """Returns archives by what is wrong with them."""
    floats = bytes(16)
    return {
        "10^12 numbers": _of(_tensor(numbers=10**12, size=(10**12,)), floats),
        "a size of 10^10": _of(_tensor(size=(10**10,)), floats),
        "200 sizes of 3 · 10^8": _of(_tensor(size=(3 * 10**8,)), floats, times=200),
        "a stride of 0": _of(_tensor(size=(10**13,), stride=(0,)), floats),
        "a stride of -1": _of(_tensor(stride=(-1,)), floats),
        "a size of -1": _of(_tensor(size=(-1,)), floats),
        "an offset of 10^9": _of(_tensor(offset=10**9), floats),
        "data that are not there": _of(_tensor(key="1"), floats),
        "data out of the archive": _of(_tensor(key="../../../etc/passwd"), floats),
        "data cut short": _of(_tensor(), floats[:3]),
        "another device": _of(_tensor(device="cuda:0"), floats),
        "another kind of numbers": _of(_tensor(kind="QUInt8Storage"), floats),
        "an unknown kind of numbers": _of(_tensor(kind="XStorage"), floats),
        "10^10 bytes": _of(_call("builtins", "bytearray", _whole(10**10))),
        "a set of 10^9 bytes": _of(
            _call("builtins", "set", _call("builtins", "bytearray", _whole(10**9)))
        ),
        "10^8 sizes": _of(_call("torch", "Size", _call("builtins", "bytearray", _whole(10**8)))),
        "a storage of 10^10": _of(_call("torch.storage", "UntypedStorage", _whole(10**10))),
        "a call": _of(_call("os", "system", _text("true"))),
        "a name on the stack": _of(
            _text("os") + _text("system") + b"\x93(" + _text("true") + b"tR"
        ),
        "a number for a name": _packed(
            _BEGIN + b"}(" + _whole(5) + _tensor() + b"u" + _END, floats
        ),
        "lists in lists": _packed(_BEGIN + b"]" * 10**6 + b"a" * (10**6 - 1) + _END),
        "lists of lists of lists": _packed(_BEGIN + _laughs() + _END),
        "a text of 4 GB": _packed(_BEGIN + b"X\xff\xff\xff\xff" + _END),
        "no end": _packed(_BEGIN + b"}"),
        "nothing": _packed(b""),
        "another opcode": _packed(_BEGIN + b"\xff" + _END),
    }


def _packed(content: bytes, numbers: bytes = b"") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in (("data.pkl", content), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"w/{name}", data)
        archive.writestr("w/data/0", numbers)
    return stream.getvalue()


def _of(value: bytes, numbers: bytes = b"", times: int = 1) -> bytes:
    """Returns an archive of a dict with a value under some names."""
    items = b"".join(_text(f"w{i}") + value for i in range(times))
    return _packed(_BEGIN + b"}(" + items + b"u" + _END, numbers)


def _tensor(
    numbers: int = 4,
    size: Sequence[int] = (4,),
    stride: Sequence[int] = (1,),
    offset: int = 0,
    key: str = "0",
    device: str = "cpu",
    kind: str = "FloatStorage",
) -> bytes:
    stored = b"(" + _text("storage") + _name("torch", kind) + _text(key) + _text(device)
    shape = b"(" + b"".join(map(_whole, size)) + b"t(" + b"".join(map(_whole, stride)) + b"t"
    hooks = _name("collections", "OrderedDict") + b")R"
    values = stored + _whole(numbers) + b"tQ" + _whole(offset) + shape + b"\x89" + hooks
    return _call("torch._utils", "_rebuild_tensor_v2", values)


def _call(module: str, name: str, arguments: bytes) -> bytes:
    return _name(module, name) + b"(" + arguments + b"tR"


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _whole(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _laughs() -> bytes:
    """Returns a list of lists, each of which holds the one before fifty times."""
    levels = (b"](" + (b"h" + bytes([i])) * 50 + b"eq" + bytes([i + 1]) for i in range(40))
    return b"]q\x00" + b"".join(levels)
