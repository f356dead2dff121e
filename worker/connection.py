"""The worker's connection to Temporal: the CLI's own profiles and variables, retried until it
holds."""

from __future__ import annotations

import asyncio
import logging

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from models.search import KEYWORDS

_RETRY_SECONDS = 1.0

log = logging.getLogger("failback.worker")


async def connect(stop: asyncio.Event) -> Client | None:
    """A connected client; `None` if the worker was told to stop before Temporal answered."""
    config = ClientConfig.load_client_connect_config()
    config.setdefault("target_host", "localhost:7233")
    said = False
    while not stop.is_set():
        try:
            return await Client.connect(
                **config,
                data_converter=pydantic_data_converter,
                interceptors=[TracingInterceptor()],
            )
        except (RuntimeError, RPCError) as error:
            if not said:
                log.warning("waits for Temporal at %s: %s", config["target_host"], error)
                said = True
            try:
                await asyncio.wait_for(stop.wait(), _RETRY_SECONDS)
            except TimeoutError:
                continue
    return None


async def register_search_attributes(client: Client) -> None:
    """Make the search attributes known; they may be already, or be an administrator's matter."""
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    request = AddSearchAttributesRequest(
        namespace=client.namespace, search_attributes=dict.fromkeys(KEYWORDS, keyword)
    )
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        log.warning("search attributes could not be registered: %s", error.message)
