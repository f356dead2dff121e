"""The interpreter does what Windows PowerShell 5.1 documents, traps included."""

import json

import pytest

from lab.hyperv.powershell.builtins import builtin_commands
from lab.hyperv.powershell.runner import Result, run_script
from lab.hyperv.powershell.session import Session


def run(script: str, stdin: str = "") -> Result:
    return run_script(script, Session(builtin_commands(), standard_input=lambda: stdin))


def lines(script: str) -> list[str]:
    result = run(script)
    assert result.errors == "", result.errors
    return result.output.removesuffix("\r\n").split("\r\n")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("$x = 5GB; $x", "5368709120"),
        ("512MB + 1kb", "536871936"),
        ("0x1F; ", "31"),
        ("7 / 2", "3.5"),
        ("8 / 2", "4"),
        ("7 % 4", "3"),
        ("-5 + 2", "-3"),
        ("'a' + 1", "a1"),
        ("'ab' * 2", "abab"),
        ("[int]'5' + 1", "6"),
        ("[int64]5.5", "6"),
        ("[string]$true", "True"),
        ("[bool]''", "False"),
        ("[string[]]@(1,2) -join '-'", "1-2"),
        ("'it''s'", "it's"),
        ("'it\u2018\u2019s'", "it\u2019s"),
        ('"q`"t`tn"', 'q"t\tn'),
        ('$a=1; "$a $($a+1) `$a ${a}"', "1 2 $a 1"),
        ("$a=1; '$a'", "$a"),
        ("@(1).Count", "1"),
        ("@().Count", "0"),
        ("$null.Count", "0"),
        ("(1,2,3)[1]", "2"),
        ("(1,2,3)[-1]", "3"),
        ("(1..3) -join ','", "1,2,3"),
        ("'{0:N1}|{1}|{2,4}' -f 3.14159,'x',7", "3.1|x|   7"),
        ("@{ A = 1 }.a", "1"),
        ("$h=@{}; $h['x']=1; $h.y=2; $h.Count", "2"),
        ("$o=[pscustomobject]@{a=1}; $o.a=5; $o.A", "5"),
        ("'B' -eq 'b'", "True"),
        ("1 -eq '1'", "True"),
        ("(1,2,3 -ne 2) -join ','", "1,3"),
        ("'abc' -match 'B' -and -not $false", "True"),
        ("'web01' -like 'WEB*'", "True"),
        ("2 -in 1,2; ", "True"),
        ("(1,2 -contains 3) -or !$true", "False"),
        ("'a-b' -replace '-(.)','+$1'", "a+b"),
        ("if (0) {'x'} elseif ('') {'y'} else {'z'}", "z"),
        ("$x = if ($true) {'in'}; $x", "in"),
        ("foreach ($i in 1..5) { if ($i -eq 2) {continue}; if ($i -eq 4) {break}; $i }", "1|3"),
        ("$i=0; while ($i -lt 3) { $i++ }; $i", "3"),
        ("$i=0; do { $i++ } until ($i -ge 2); $i", "2"),
        ('function F($a,$b=5) { return "$a-$b" }; F 1; F -b 2 -a 3', "1-5|3-2"),
        ("& { param($q) $q * 2 } 4", "8"),
        ("$p = @{ Property = 'n' }; @(@{n=2},@{n=1}) | Sort-Object @p | % { $_.n }", "1|2"),
        ("1..4 | Where-Object { $_ -gt 1 } | Select-Object -First 2", "2|3"),
        ("(1..4 | Measure-Object -Sum).Sum", "10"),
        ("@(@{n='x'},@{n='y'}).n -join ''", "xy"),
        ("@(@{n='x'}) | Select-Object -ExpandProperty n", "x"),
        ("[string]::IsNullOrEmpty('')", "True"),
        ("'a,b'.Split(',')[1].ToUpper()", "B"),
        ("[guid]::Empty.ToString()", "00000000-0000-0000-0000-000000000000"),
        ("iex '1+1'; & ([scriptblock]::Create('2+2'))", "2|4"),
        ("(Get-Date).ToUniversalTime().ToString('o').Length", "28"),
        ("$a,$b = 1,2; $b", "2"),
        ("@'\nhere $x\n'@", "here $x"),
        ('$x=1; @"\nhere $x\n"@', "here 1"),
        ("try { throw 'bad' } catch { $_.Exception.Message } finally { 'f' }", "bad|f"),
        ("try { Get-Nothing } catch [System.Exception] { $_.FullyQualifiedErrorId }", "Comma*"),
        ("'out' | Out-Null; $null = 5; 'x'", "x"),
        ("# comment\n'x' # more", "x"),
    ],
)
def test_an_expression_or_statement_gives_what_powershell_gives(script: str, expected: str) -> None:
    found = "|".join(lines(script))
    if expected.endswith("*"):
        assert found.startswith(expected[:-1])
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("@(1) | ConvertTo-Json -Compress", 1),
        ("ConvertTo-Json -InputObject @(1) -Compress", [1]),
        ("@{a=@(1)} | ConvertTo-Json -Compress", {"a": [1]}),
        (
            "@{a=@{b=@{c=@{d=1}}}} | ConvertTo-Json",
            {"a": {"b": {"c": "System.Collections.Hashtable"}}},
        ),
        ("@{e=[Microsoft.HyperV.PowerShell.OnOffState]::Off} | ConvertTo-Json", {"e": 1}),
        ("@{t=$null;b=$true} | ConvertTo-Json", {"t": None, "b": True}),
        ("@('a','b') | ForEach-Object { @{n=$_} } | ConvertTo-Json", [{"n": "a"}, {"n": "b"}]),
    ],
)
def test_json_collapses_single_items_and_numbers_enumerations(
    script: str, expected: object
) -> None:
    assert json.loads(run(script).output) == expected


def test_json_escapes_and_dates_are_those_of_windows_powershell() -> None:
    output = run("@{s=\"it's <&>\"; d=[datetime]'2026-01-01T00:00:00'} | ConvertTo-Json -Compress")
    assert "it\\u0027s \\u003c\\u0026\\u003e" in output.output
    assert '"\\/Date(1767225600000)\\/"' in output.output


def test_errors_stop_or_do_not_stop_as_the_preference_says() -> None:
    on = run("Write-Error 'oops'; 'after'")
    assert on.output == "after\r\n"
    assert "oops" in on.errors
    assert on.errors.startswith("#< CLIXML\r\n")
    off = run("$ErrorActionPreference='Stop'; Write-Error 'oops'; 'after'")
    assert (off.output, off.exit_code) == ("", 1)
    assert run("Write-Error x -ErrorAction SilentlyContinue; $?").output == "False\r\n"
    assert run("Get-Nothing; 'after'").output == "after\r\n"
    assert run("throw 'x'; 'after'").output == ""


def test_exit_keeps_what_was_put_out_before_it() -> None:
    result = run("try { 'one'; & { 'two'; exit 7 } } finally { 'three' }")
    assert (result.output.split(), result.exit_code) == (["one", "two", "three"], 7)


@pytest.mark.parametrize(
    ("script", "identifier"),
    [
        ("Get-Nothing", "CommandNotFoundException"),
        ("ConvertTo-Json -Foo 1", "NamedParameterNotFound"),
        ("ConvertTo-Json -Dep 1 -Depth 2", "ParameterAlreadyBound"),
        ("Select-Object -Ex 1", "AmbiguousParameter"),
        ("Select-Object -Index 1 -First 1", "AmbiguousParameterSet"),
        ("Join-Path 'a'", "MissingMandatoryParameter"),
        ("Join-Path 'a' 'b' 'c'", "PositionalParameterNotFound"),
        ("ConvertTo-Json -Depth x", "ParameterArgumentTransformationError"),
        ("ConvertTo-Json -Depth", "MissingArgument"),
        ("[Foo.Bar]::Baz()", "TypeNotFound"),
        ("'a'.Baz()", "MethodNotFound"),
        ("$x.Baz()", "InvokeMethodOnNull"),
        ("[int]'abc'", "InvalidCastFromStringToInteger"),
        ("1 / 0", "RuntimeException"),
        ("switch (1) { 1 { 2 } }", "NotSupported"),
    ],
)
def test_what_is_wrong_is_refused_with_powershells_error_id(script: str, identifier: str) -> None:
    caught = run(f"try {{ {script} }} catch {{ $_.FullyQualifiedErrorId }}").output
    assert caught.split(",")[0].strip() == identifier


@pytest.mark.parametrize(
    "script", ["'unclosed", "'a\u2019b'", '"a\u201cb"', "if (", "@{ a = }", "foreach ($x of 1) {}"]
)
def test_a_script_that_does_not_parse_runs_nothing(script: str) -> None:
    result = run(f"'before'; {script}")
    assert (result.output, result.exit_code) == ("", 1)
    assert "ParserError" in result.errors


def test_standard_input_is_read_by_console_or_as_input() -> None:
    assert run("[Console]::In.ReadToEnd() | iex", stdin="1 + 2").output == "3\r\n"
    assert run("$l = @($input); $l.Count; -join $l", stdin="a\r\nb\r\n").output == "2\r\nab\r\n"


def test_endless_recursion_ends_with_an_error() -> None:
    result = run("function F { F }; F")
    assert "CallDepthOverflow" in result.errors
