"""Images are real: clean ext4, guest files where the layout says, users' disks kept."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.filesystem import ImageError, build_data_disk, import_disk
from lab.records import SLOT, empty_slot, read_layout
from tests.lab.images import MIB, file_system_is_clean, make_disks


def test_the_same_seed_gives_the_same_files_and_a_clean_file_system(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        image = tmp_path / f"{name}.raw"
        build_data_disk(
            image,
            size_bytes=64 * MIB,
            data_bytes=8 * MIB,
            machine="web01",
            seed=7,
            records_bytes=MIB,
            scratch_bytes=MIB,
        )
        assert file_system_is_clean(image)
        contents.append(_dump(image, "/srv/00/00000.bin", tmp_path))
    assert contents[0] == contents[1]
    assert len(contents[0]) >= 4 * MIB


def test_the_layout_points_into_the_real_files(tmp_path: Path) -> None:
    disk = make_disks(tmp_path)[0]
    layout = read_layout(disk)
    assert layout is not None
    disk.write(layout.slot_offset(3), b"M" * SLOT)
    log = _dump(disk.path, "/records.log", tmp_path)
    assert log[3 * SLOT : 4 * SLOT] == b"M" * SLOT
    assert log[4 * SLOT : 5 * SLOT] == empty_slot()
    scratch = b"".join(
        disk.read(*place) for place in layout.scratch.locate(0, layout.scratch.length)
    )
    assert scratch == _dump(disk.path, "/scratch.bin", tmp_path)
    assert file_system_is_clean(disk.path)


def test_data_that_does_not_fit_is_refused_with_the_tools_own_words(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="mke2fs failed"):
        build_data_disk(
            tmp_path / "disk.raw",
            size_bytes=16 * MIB,
            data_bytes=32 * MIB,
            machine="web01",
            records_bytes=MIB,
            scratch_bytes=MIB,
        )


def test_a_users_raw_image_is_copied_and_rounded_up_to_a_mebibyte(tmp_path: Path) -> None:
    source = tmp_path / "user.img"
    with source.open("wb") as file:
        file.truncate(3 * MIB + 512)
        file.seek(2 * MIB)
        file.write(b"data")
    assert import_disk(source, tmp_path / "copy.raw") == 4 * MIB
    copied = (tmp_path / "copy.raw").read_bytes()
    assert copied[: 3 * MIB + 512] == source.read_bytes()
    assert len(copied) == 4 * MIB


def test_a_fixed_vhd_loses_its_footer_and_other_formats_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "payload.raw"
    raw.write_bytes(bytes(range(256)) * (4 * MIB // 256))
    fixed = tmp_path / "user.vhd"
    fixed.write_bytes(raw.read_bytes() + b"conectix".ljust(512, b"\0"))
    assert import_disk(fixed, tmp_path / "copy.raw") == 4 * MIB
    assert (tmp_path / "copy.raw").read_bytes() == raw.read_bytes()
    (tmp_path / "user.vhdx").write_bytes(b"vhdxfile".ljust(MIB, b"\0"))
    with pytest.raises(ImageError, match="VHDX image; convert it first"):
        import_disk(tmp_path / "user.vhdx", tmp_path / "copy.raw")


def _dump(image: Path, name: str, folder: Path) -> bytes:
    program = shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin")
    assert program is not None
    out = folder / "dumped"
    subprocess.run([program, "-R", f"dump {name} {out}", image], capture_output=True, check=True)
    return out.read_bytes()
