// A chat with moderation, and an assistant whose answers can be stopped. It needs only Node.js 20 or later.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const API = process.env.API_URL ?? "http://127.0.0.1:3001";
const API_KEY = process.env.API_KEY;
const SECRET = Buffer.from(process.env.SIGNING_SECRET.replace(/^whsec_/, ""), "base64");
if (!SECRET.length) throw new Error("SIGNING_SECRET is empty");
const PORT = Number(process.env.PORT ?? 8080);

const MAX_AGE = 300; // seconds; an older request may be a repeated one
const FORBIDDEN = ["darn", "heck"];
const ANSWER = "I am only an example , so I make up one word after another until I am done or you stop me .".split(" ");
const PAUSE = 300; // ms between two words

const running = new Set(); // the calls of assistant.ask that have not ended

/** The error that the caller gets. The node passes it on if the status is 4xx. */
class CallError extends Error {
  constructor(status, code, message, details) {
    super(message);
    this.status = status;
    this.body = JSON.stringify({ error: { code, message, details } });
  }
}

/** Whether one of the signatures is that of these parts. During a rotation of the secret, there are two. */
function isSigned(signatures = "", ...parts) {
  const mac = createHmac("sha256", SECRET);
  parts.forEach((part) => mac.update(part));
  const expected = Buffer.from(`v1,${mac.digest("base64")}`);
  const isExpected = (signature) => signature.length === expected.length && timingSafeEqual(signature, expected);
  return signatures.split(" ").map((text) => Buffer.from(text)).some(isExpected);
}

/** Whether a node sent this request. Without this, anybody could claim to be any user. */
function isFromNode({ method, url, headers }, body) {
  const { "webhook-id": id, "webhook-timestamp": timestamp } = headers;
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= MAX_AGE)) return false;
  const names = Object.keys(headers).filter((name) => name.startsWith("roomcast-") && name !== "roomcast-signature").sort();
  const lines = [id, timestamp, method, url, ...names.map((name) => `${name}:${headers[name]}`)];
  return (
    isSigned(headers["webhook-signature"], `${id}.${timestamp}.`, body) &&
    isSigned(headers["roomcast-signature"], Buffer.from(lines.map((line) => `${line}\n`).join(""), "latin1"))
  );
}

async function publish(room, event, data) {
  const response = await fetch(`${API}/v1/rooms/${room}/events/${event}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${API_KEY}` },
    body: JSON.stringify(data),
    signal: AbortSignal.timeout(5000),
  });
  if (!response.ok) throw new Error(`the node responded with status ${response.status}`);
}

function decode(body) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(body);
  } catch {
    throw new CallError(400, "INVALID_ARGUMENT", "the text is not UTF-8");
  }
}

const methods = {
  async "chat.send"(request, response, body) {
    const text = decode(body);
    const word = FORBIDDEN.find((word) => text.toLowerCase().split(/\s+/).includes(word));
    if (word) throw new CallError(400, "INVALID_ARGUMENT", `the word "${word}" is not allowed`, { word });
    await publish("chat", "message", { from: decodeURIComponent(request.headers["roomcast-user"] ?? "a guest"), text });
    response.writeHead(204).end();
  },

  /** Streams an answer, word by word. When the caller cancels the call, the node closes the connection. */
  async "assistant.ask"(request, response) {
    const call = request.headers["roomcast-call"];
    const cancelled = new AbortController();
    response.on("close", () => cancelled.abort());
    running.add(call);
    try {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      for (const word of ANSWER) {
        await sleep(PAUSE, undefined, { signal: cancelled.signal });
        // One space follows the colon. A second one belongs to the word.
        response.write(`data:  ${word}\n\n`);
      }
      response.end("event: end\n\n");
    } catch (error) {
      if (!cancelled.signal.aborted) throw error;
      console.log(`${call}: cancelled`);
    } finally {
      running.delete(call);
    }
  },

  async "assistant.running"(_request, response) {
    response.end(String(running.size));
  },
};

async function get(path, response) {
  const file = { "/": "page.html", "/client.js": "../../crates/node/page/client.js" }[path];
  if (!file) return response.writeHead(404).end();
  const type = file.endsWith("html") ? "text/html; charset=utf-8" : "text/javascript";
  response.writeHead(200, { "Content-Type": type }).end(await readFile(new URL(`../${file}`, import.meta.url)));
}

async function handle(request, response) {
  if (request.method === "GET") return get(request.url.split("?")[0], response);
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts);
  if (!isFromNode(request, body)) return response.writeHead(401).end();
  const method = request.url.replace(/^\/rpc\//, "");
  if (!Object.hasOwn(methods, method)) return response.writeHead(404).end();
  await methods[method](request, response, body);
}

function fail(response, error) {
  if (error instanceof CallError) {
    response.writeHead(error.status, { "Content-Type": "application/json" }).end(error.body);
    return;
  }
  console.error(error);
  if (response.headersSent) response.destroy();
  else response.writeHead(500).end();
}

const server = createServer((request, response) => handle(request, response).catch((error) => fail(response, error)));
server.listen(PORT, "127.0.0.1");
