"""PyPI mcp 2.x, choosing the era itself: python_v2.py URL TOOL ARGUMENTS EXPECTED"""

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, tool: str, arguments: str, expected: str) -> None:
    token = os.environ.get("MCP_AUTHORIZATION")
    http = httpx2.AsyncClient(headers={"Authorization": token} if token else None)
    async with Client(streamable_http_client(url, http_client=http)) as client:
        tools = (await client.list_tools()).tools
        assert any(one.name == tool for one in tools), tools
        result = await client.call_tool(tool, json.loads(arguments))
        assert expected in str(result.content), result
        print(f"{client.protocol_version}, {len(tools)} tools")


asyncio.run(main(*sys.argv[1:]))
