// npm @modelcontextprotocol/client 2.x, choosing the era itself: client-v2.mjs URL TOOL ARGUMENTS EXPECTED
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const [url, tool, args, expected] = process.argv.slice(2);
const client = new Client({ name: "client-v2", version: "1" }, { versionNegotiation: { mode: "auto" } });
const headers = process.env.MCP_AUTHORIZATION ? { Authorization: process.env.MCP_AUTHORIZATION } : {};
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
await client.connect(transport);
const { tools } = await client.listTools();
if (!tools.some((one) => one.name === tool)) throw new Error(`no ${tool} among ${tools.length} tools`);
const result = await client.callTool({ name: tool, arguments: JSON.parse(args) });
const text = JSON.stringify(result.content);
if (!text.includes(expected)) throw new Error(`no ${expected} in ${text}`);
const session = transport.sessionId;
if (session) await transport.terminateSession();
await client.close();
console.log(`${session ? "legacy" : "modern"}, ${tools.length} tools`);
