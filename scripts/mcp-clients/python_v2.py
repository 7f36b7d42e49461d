"""PyPI mcp 2.x, choosing the era itself: python_v2.py URL TOOL ARGUMENTS EXPECTED"""

import asyncio
import json
import sys

from mcp import Client


async def main(url: str, tool: str, arguments: str, expected: str) -> None:
    async with Client(url) as client:
        tools = (await client.list_tools()).tools
        assert any(one.name == tool for one in tools), tools
        result = await client.call_tool(tool, json.loads(arguments))
        assert expected in str(result.content), result
        print(f"{client.protocol_version}, {len(tools)} tools")


asyncio.run(main(*sys.argv[1:]))
