"""An emulator of the part of Azure that a failback talks to, at the wire.

Azure Resource Manager for compute, managed-disk export and a managed identity, each on a port of
its own on loopback. Run it with ``python -m lab.azure --dir DIR``; seed it with ``lab.azure.seed``.
"""
