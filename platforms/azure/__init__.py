"""Azure, the cloud that machines come home from."""

from platforms.azure.platform import AzurePlatform
from platforms.azure.settings import AzureSettings

__all__ = ["AzurePlatform", "AzureSettings"]
