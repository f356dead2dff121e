"""Digests and comparisons of disks, against a simple model in memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lab.stack.evidence import DiskFile, digest, first_difference

MIB = 1 << 20


def _sparse_file(path: Path, rng: random.Random) -> bytearray:
    size = rng.randrange(1, 24) * 512 * 1024 + rng.choice([0, 512, 4096])
    content = bytearray(size)
    with path.open("wb") as file:
        file.truncate(size)
        for _ in range(rng.randrange(6)):
            offset = rng.randrange(size)
            data = rng.randbytes(min(size - offset, rng.randrange(1, 3 * MIB)))
            file.seek(offset)
            file.write(data)
            content[offset : offset + len(data)] = data
    return content


@pytest.mark.parametrize("seed", range(30))
def test_holes_and_zeros_are_the_same_and_a_single_bit_is_not(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    content = _sparse_file(tmp_path / "sparse", rng)
    size = len(content)
    # Behind the disk's end may be anything, such as a VHD's footer.
    (tmp_path / "dense").write_bytes(bytes(content) + b"footer" * 80)
    one, other = DiskFile(tmp_path / "sparse", size), DiskFile(tmp_path / "dense", size)
    assert digest(one) == digest(other)
    assert first_difference(one, other) is None
    at = rng.randrange(size)
    content[at] ^= 1 << rng.randrange(8)
    (tmp_path / "dense").write_bytes(content)
    assert digest(one) != digest(other)
    assert first_difference(one, other) == at
    assert first_difference(other, one) == at


def test_a_disk_of_another_size_differs(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(MIB))
    (tmp_path / "long").write_bytes(bytes(MIB + 512))
    short, long = DiskFile(tmp_path / "short", MIB), DiskFile(tmp_path / "long", MIB + 512)
    assert digest(short) != digest(long)
    assert first_difference(short, long) == MIB
