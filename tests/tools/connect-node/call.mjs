// Calls of the Connect project's own clients. Takes the base64 of a FileDescriptorSet as its argument, then
// reads lines from stdin, each a JSON array of calls:
//   {url, transport, http, binary, get, service, method, requests, headers, timeout, cancelAfter}
// and answers each line by one with a JSON array of what came of each call, in order.
import { create, createFileRegistry, fromBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";
import { createInterface } from "node:readline";

const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, Buffer.from(process.argv[2], "base64")));

function transportOf(call) {
  const options = {
    baseUrl: call.url,
    httpVersion: call.http ?? "2",
    useBinaryFormat: call.binary ?? true,
    useHttpGet: call.get ?? false,
    acceptCompression: call.compression === undefined ? [] : undefined,
    // What fetch stands for here is the standard library's, as it is the browser's elsewhere.
    fetch: globalThis.fetch,
  };
  switch (call.transport) {
    case "connect": return createConnectTransport(options);
    case "grpc-web": return createGrpcWebTransport(options);
    case "grpc": return createGrpcTransport(options);
    case "browser-connect": return web.createConnectTransport(options);
    case "browser-grpc-web": return web.createGrpcWebTransport(options);
    default: throw new Error(`unknown transport ${call.transport}`);
  }
}

function pairs(headers) {
  return [...headers.entries()];
}

function failure(error) {
  const known = ConnectError.from(error);
  return {
    code: known.code,
    message: known.rawMessage,
    metadata: pairs(known.metadata),
    details: known.details.map((detail) => {
      const schema = detail.type && registry.getMessage(detail.type);
      return { type: detail.type, value: Buffer.from(detail.value ?? []).toString("base64"), known: Boolean(schema) };
    }),
  };
}

async function perform(call) {
  const service = registry.getService(call.service);
  const method = service.methods.find((each) => each.name === call.method);
  const client = createClient(service, transportOf(call));
  const abort = new AbortController();
  const result = { replies: [] };
  const options = {
    headers: call.headers ?? {},
    timeoutMs: call.timeout,
    signal: abort.signal,
    onHeader: (headers) => { result.headers = pairs(headers); },
    onTrailer: (trailers) => { result.trailers = pairs(trailers); },
  };
  const requests = (call.requests ?? [{}]).map((request) => messageOf(method.input, request));
  async function* stream() { yield* requests; }
  const take = (reply) => {
    const json = toJson(method.output, reply);
    if (json.payload && json.payload.length > 1000) json.payload = { base64Length: json.payload.length };
    result.replies.push(json);
    if (call.cancelAfter !== undefined && result.replies.length >= call.cancelAfter) abort.abort();
  };
  if (call.cancelAfter === 0) setTimeout(() => abort.abort(), 300);
  try {
    const run = client[method.localName];
    switch (method.methodKind) {
      case "unary": take(await run(requests[0], options)); break;
      case "client_streaming": take(await run(stream(), options)); break;
      case "server_streaming": for await (const reply of run(requests[0], options)) take(reply); break;
      case "bidi_streaming": for await (const reply of run(stream(), options)) take(reply); break;
    }
  } catch (error) {
    result.error = failure(error);
  }
  return result;
}

function messageOf(schema, request) {
  const { payloadSize, ...fields } = request;
  if (payloadSize) fields.payload = new Uint8Array(payloadSize).fill(120);
  return create(schema, fields);
}

for await (const line of createInterface({ input: process.stdin })) {
  const results = [];
  for (const call of JSON.parse(line)) results.push(await perform(call));
  process.stdout.write(JSON.stringify(results) + "\n");
}
process.exit(0);
