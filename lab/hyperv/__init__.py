"""A Hyper-V host for the lab: WS-Man on the wire, PowerShell inside, real VHD files underneath."""
