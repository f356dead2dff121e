"""The page about errors is complete both ways: every code of the product has its place, and every
place is a code of the product."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from models.errors import all_error_classes
from platforms.hyperv.checks import PREFIX
from starter.exits import MEANING
from tests.docs.tables import DOCS, rows

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "workflows", "activities", "platforms", "transfer", "worker", "starter")
CODE = re.compile(r"FB-[A-Z]+(-[A-Z]+)*")
PAGE = "errors.md"
# Words in capitals in the Hyper-V package that are no codes of checks.
NOT_CODES = {"IDE", "SCSI", "VHD", "VHDX", "SERIALIZED", "UTF", "POST"}


def _strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _codes_in_the_code() -> set[str]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    written = {text for path in files for text in _strings(path)}
    codes = {text for text in written if CODE.fullmatch(text)}
    inspecting = ("existing.py", "planning.py", "inspect.py", "space.py")
    for name in inspecting:
        codes |= {PREFIX + code for code in _check_codes(ROOT / "platforms" / "hyperv" / name)}
    return codes | {error.code for error in all_error_classes()}


def _check_codes(path: Path) -> Iterator[str]:
    """The codes of a Hyper-V module, which are written without their prefix."""
    for text in _strings(path):
        if re.fullmatch(r"[A-Z]{3,}(-[A-Z]+)*", text) and text not in NOT_CODES:
            yield text


def _headings() -> set[str]:
    return set(re.findall(r"^### (FB-[A-Z-]+)$", (DOCS / PAGE).read_text(), re.MULTILINE))


def _checks() -> set[str]:
    found = re.findall(r'^\| <a id="(.+?)"></a>`(.+?)`', (DOCS / PAGE).read_text(), re.MULTILINE)
    assert all(anchor == code.lower() for anchor, code in found)
    assert len({code for _, code in found}) == len(found)
    return {code for _, code in found}


def test_every_error_has_its_place_and_every_place_is_an_error() -> None:
    assert _headings() == {code for code in _codes_in_the_code() if "-CHK" not in code}


def test_every_preflight_check_has_its_row_and_every_row_is_a_check() -> None:
    codes = {code for code in _codes_in_the_code() if "-CHK-" in code}
    assert _checks() == codes


def test_says_of_each_error_whether_a_run_repeats_the_step() -> None:
    text = (DOCS / PAGE).read_text()
    for error in all_error_classes():
        part = text.split(f"### {error.code}\n", 1)[1].split("\n#", 1)[0]
        if "*Repeated.*" in part or "*Parks.*" in part:
            assert ("*Repeated.*" in part) == error.retryable, error.code


def test_exit_statuses_are_those_of_the_command_line() -> None:
    listed = {int(row[0]): row[1] for row in rows(PAGE, 2) if row[0].isdigit()}
    assert listed == MEANING or {k: v.replace("`", "") for k, v in listed.items()} == {
        k: v.replace("`", "") for k, v in MEANING.items()
    }
