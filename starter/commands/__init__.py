"""The commands of `failback`, one module per family. Each parses its options, calls what it needs
and prints; nothing here decides about a run."""
