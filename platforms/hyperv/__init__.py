"""Hyper-V hosts over WinRM, as the on-premises platform of a failback."""

from platforms.hyperv.platform import HyperVPlatform
from platforms.hyperv.settings import HyperVHost, Secret

__all__ = ["HyperVHost", "HyperVPlatform", "Secret"]
