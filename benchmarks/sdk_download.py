"""The Azure SDK as a process of its own: `python -m benchmarks.sdk_download ADDRESS TARGET [CA]`.

Downloads the blob into an existing file with `download_blob`, the way its own samples do.
"""

from __future__ import annotations

import sys
from typing import Any

from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.storage.blob import BlobClient


class PlainRange(SansIOHTTPPolicy[Any, Any]):
    """Says the range in the standard header too, for servers that know no other."""

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Copy the header."""
        headers = request.http_request.headers
        if "x-ms-range" in headers:
            headers["Range"] = headers["x-ms-range"]


def main(address: str, target: str, ca_file: str = "") -> None:
    """Download with eight connections, as the engine has."""
    options: dict[str, Any] = {"connection_verify": ca_file} if ca_file else {}
    client = BlobClient.from_blob_url(
        address,
        _additional_pipeline_policies=[PlainRange()],
        max_single_get_size=4 * 1024 * 1024,
        max_chunk_get_size=4 * 1024 * 1024,
        **options,
    )
    with open(target, "r+b") as file:
        client.download_blob(max_concurrency=8).readinto(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
