// The suite knows no tokens: loaded before it, this adds one to each of its requests.
import http from "node:http";
import { syncBuiltinESMExports } from "node:module";

const authorization = process.env.MCP_AUTHORIZATION;
if (authorization) {
    const fetched = globalThis.fetch;
    globalThis.fetch = (input, init = {}) => {
        const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
        headers.set("authorization", authorization);
        return fetched(input, { ...init, headers });
    };
    const requested = http.request;
    http.request = (...given) => {
        const request = requested(...given);
        request.setHeader("authorization", authorization);
        return request;
    };
    syncBuiltinESMExports();
}
