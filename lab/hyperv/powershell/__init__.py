"""The part of Windows PowerShell 5.1 that management scripts use.

`run_script` in `runner` is the way in; the grammar is tree-sitter-powershell's. What a cmdlet does
is given by a `Session`; this package knows the language, the binding of parameters and the
pipeline cmdlets, and nothing of Hyper-V.
"""
