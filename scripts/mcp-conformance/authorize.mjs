// The suite knows no tokens: loaded before it, this adds one to each of its requests, whichever way it makes them.
import http from "node:http";
import { createRequire, syncBuiltinESMExports } from "node:module";

const authorization = process.env.MCP_AUTHORIZATION;
if (authorization) {
    const fetched = globalThis.fetch;
    globalThis.fetch = (input, init = {}) => {
        const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
        headers.set("authorization", authorization);
        return fetched(input, { ...init, headers });
    };
    const asked = http.request;
    http.request = (...given) => {
        const request = asked(...given);
        request.setHeader("authorization", authorization);
        return request;
    };
    syncBuiltinESMExports();
    const undici = createRequire(process.argv[1])("undici");
    const requested = undici.getGlobalDispatcher();
    undici.setGlobalDispatcher(
        requested.compose((dispatch) => (options, handler) => {
            const plain = options.headers && Object.getPrototypeOf(options.headers) === Object.prototype;
            const given = plain && !Object.keys(options.headers).some((name) => name.toLowerCase() === "authorization");
            return dispatch(given ? { ...options, headers: { ...options.headers, authorization } } : options, handler);
        }),
    );
}
