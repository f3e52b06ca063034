"""Damage for bytes and texts, drawn from one generator."""

from __future__ import annotations

import random

#: What parsers stumble over.
TOKENS = [
    *[
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\n",
        b"\r\n",
        b"\t",
        b" ",
        b"..",
        b"../",
        b"/",
        b"//etc/passwd",
        b"\\",
    ],
    *[
        b"-1",
        b"99999999999999999999",
        b"1e999",
        b"nan",
        b"{",
        b"}}",
        b"[",
        b"(((((",
        b"&a [*a]",
        b"%s%n",
        b"\xc3\x28",
    ],
    *[
        b"!!python/object/apply:os.system",
        "\u202e\u00b2".encode(),
        b"_BASE_: ",
        b"<<: *x",
        b"~",
        b"'",
        b'"',
        b"#",
    ],
    *[b":", b"PK\x05\x06"],
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """``data`` with one to four faults: flipped bits, cut, lost, doubled, zeroed or foreign bytes."""
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(FAULTS)(data, rng)
    return data


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(start + rng.choice((1, 2, 8, 100, 4096)), len(data))


def _lose(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _double(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] + data[end:]


def _zero(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def _foreign(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice(TOKENS) + data[start:]


FAULTS = (_flip, _cut, _lose, _double, _zero, _foreign)
