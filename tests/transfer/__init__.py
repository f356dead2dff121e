"""Tests of the block engine, on real files, devices, sockets and processes."""
