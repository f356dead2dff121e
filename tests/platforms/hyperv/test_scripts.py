"""Scripts as PowerShell reads them: whole, of existing cmdlets, and closed to injection."""

from __future__ import annotations

import pytest

from models.errors import InvalidSpec
from platforms.hyperv import literals, scripts
from tests.platforms.hyperv.powershell import CMDLETS, bodies, broken, nodes, parse, uses

NASTY = [
    "web01",
    "web 01 (old)",
    "it's",
    "'; Remove-VM -Name * -Force; '",
    "'' + (Stop-Computer) + ''",
    "$(Stop-Computer)",
    "`$env:TEMP",
    'say "no"',
    "a\u2018b\u2019c\u201ad\u201b",
    "Wärmepumpe 東京 🖥",
    "[abc]*?",
    "%BODY% %MARK%",
    "line one\nline two",
    "} catch { exit 0 } #",
]


@pytest.mark.parametrize("name", bodies("x"))
def test_every_script_parses_and_uses_only_cmdlets_and_parameters_that_exist(name: str) -> None:
    root = parse(scripts.wrap(bodies("web 01")[name]))
    assert broken(root) == []
    found = uses(root)
    assert found
    for use in found:
        assert use.command in CMDLETS, use
        assert set(use.parameters) <= set(CMDLETS[use.command]), use


def test_the_bootstrap_parses() -> None:
    root = parse(scripts.BOOTSTRAP)
    assert broken(root) == []
    assert [use.command for use in uses(root)] == ["Invoke-Expression"]
    assert len(scripts.BOOTSTRAP) < scripts.COMMAND_LINE_LIMIT


@pytest.mark.parametrize("word", NASTY)
def test_no_word_a_person_chooses_becomes_code(word: str) -> None:
    for name, body in bodies(word).items():
        plain = parse(scripts.wrap(bodies("web01")[name]))
        root = parse(scripts.wrap(body))
        assert broken(root) == [], name
        assert uses(root) == uses(plain), name
        assert len(nodes(root, "string_literal")) == len(nodes(plain, "string_literal")), name


@pytest.mark.parametrize("word", NASTY)
def test_a_literal_is_closed_by_no_quote_that_powershell_knows(word: str) -> None:
    inside = literals.text(word)[1:-1]
    for quote in "'\u2018\u2019\u201a\u201b":
        inside = inside.replace(quote * 2, "")
    assert not set(inside) & set("'\u2018\u2019\u201a\u201b")


def test_a_place_holder_in_a_name_stays_what_it_is() -> None:
    assert "'%BODY% %MARK%'" in scripts.wrap(scripts.set_notes("id", "%BODY% %MARK%"))


def test_control_characters_are_refused() -> None:
    with pytest.raises(InvalidSpec, match="control character"):
        literals.text("a\x00b")


def test_scripts_are_named_by_id_so_that_a_name_is_never_a_pattern() -> None:
    for name, body in bodies("web*").items():
        for use in uses(parse(body)):
            if use.command in ("New-VM", "Add-VMNetworkAdapter"):
                continue  # their -Name is a new one
            assert not {"Name", "VMName"} & set(use.parameters), name
