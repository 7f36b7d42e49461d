// npm @modelcontextprotocol/sdk 1.x: sdk-v1.mjs URL TOOL ARGUMENTS EXPECTED
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, tool, args, expected] = process.argv.slice(2);
const client = new Client({ name: "sdk-v1", version: "1" }, { capabilities: {} });
const headers = process.env.MCP_AUTHORIZATION ? { Authorization: process.env.MCP_AUTHORIZATION } : {};
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
await client.connect(transport);
const { tools } = await client.listTools();
if (!tools.some((one) => one.name === tool)) throw new Error(`no ${tool} among ${tools.length} tools`);
const result = await client.callTool({ name: tool, arguments: JSON.parse(args) });
const text = JSON.stringify(result.content);
if (!text.includes(expected)) throw new Error(`no ${expected} in ${text}`);
if (transport.sessionId) await transport.terminateSession();
await client.close();
console.log(`legacy, ${tools.length} tools`);
