"""PyPI mcp 1.x: python_v1.py URL TOOL ARGUMENTS EXPECTED"""

import asyncio
import json
import os
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def main(url: str, tool: str, arguments: str, expected: str) -> None:
    token = os.environ.get("MCP_AUTHORIZATION")
    headers = {"Authorization": token} if token else None
    async with streamablehttp_client(url, headers) as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        tools = (await session.list_tools()).tools
        assert any(one.name == tool for one in tools), tools
        result = await session.call_tool(tool, json.loads(arguments))
        assert expected in str(result.content), result
        print(f"legacy, {len(tools)} tools")


asyncio.run(main(*sys.argv[1:]))
