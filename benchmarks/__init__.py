"""What the engine is measured against, as ratios: `make bench` or `python -m benchmarks`.

Contenders run alternately on the same disks in the same run; each leaves its target durable before
the clock stops. Figures are medians; ratios are paired within a round, so that a noisy machine
hits all.
"""
