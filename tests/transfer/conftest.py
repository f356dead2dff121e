"""Tests that need root are collected where there is root, and loop devices to use."""

import os
from pathlib import Path

_CAN_USE_LOOP_DEVICES = os.geteuid() == 0 and Path("/dev/loop-control").exists()
collect_ignore = [] if _CAN_USE_LOOP_DEVICES else ["test_block_device.py"]
