// Sequential echo calls through one SDK client: latency.mjs ROUNDS NAME=URL… -- COMMAND…
// A last line has all samples as JSON. MCP_AUTHORIZATION is sent to the endpoint called `hosted`.
// Rounds alternate between the candidates, so that noise of the machine falls on all of them.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const split = process.argv.indexOf("--");
const [rounds, ...named] = process.argv.slice(2, split);
const [command, ...args] = process.argv.slice(split + 1);
const CALLS = 100;

const candidates = [["direct stdio", new StdioClientTransport({ command, args })]];
for (const one of named) {
  const at = one.indexOf("=");
  const headers = one.startsWith("hosted=") ? { Authorization: process.env.MCP_AUTHORIZATION } : {};
  candidates.push([one.slice(0, at), new StreamableHTTPClientTransport(new URL(one.slice(at + 1)), { requestInit: { headers } })]);
}
const ready = [];
for (const [name, transport] of candidates) {
  const client = new Client({ name: "latency", version: "1" });
  await client.connect(transport);
  ready.push({ name, client, transport, samples: [] });
}
for (let round = 0; round <= Number(rounds); round++) {
  for (const { client, samples } of ready) {
    for (let call = 0; call < CALLS; call++) {
      const begun = performance.now();
      await client.callTool({ name: "echo", arguments: { text: "hello" } });
      // The first round warms up.
      if (round > 0) samples.push(performance.now() - begun);
    }
  }
}
const at = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
const direct = at(ready[0].samples.sort((a, b) => a - b), 0.5);
console.log("| mcp echo | p50 ms | p99 ms | over direct, p50 ms |\n| --- | --- | --- | --- |");
for (const { name, samples, client, transport } of ready) {
  const sorted = samples.sort((a, b) => a - b);
  const [p50, p99] = [at(sorted, 0.5), at(sorted, 0.99)];
  console.log(`| ${name} | ${p50.toFixed(2)} | ${p99.toFixed(2)} | ${(p50 - direct).toFixed(2)} |`);
  await transport.terminateSession?.().catch(() => {});
  await client.close();
}
console.log(JSON.stringify(Object.fromEntries(ready.map(({ name, samples }) => [name, samples]))));
