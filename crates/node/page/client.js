/**
 * Client for Roomcast's WebSocket protocol websocket.io-rpc-v0.1, with cancellable calls, notifications and rooms.
 * It runs in browsers and in Node.js, without dependencies or a build step.
 *
 * @typedef {Uint8Array | ArrayBuffer | ArrayBufferView | string | number[]} Data Bytes to send. A string is sent as UTF-8, and `[]` is empty.
 * @typedef {{ signal?: AbortSignal, timeout?: number }} CallOptions The unit of `timeout` is milliseconds.
 * @typedef {{ state: "idle" | "connecting" | "open" | "closed", code?: number, reason?: string }} Status The code and reason are those of the WebSocket close.
 * @typedef {"notify" | "request" | "reset" | "response"} FrameKind
 * @typedef {{ direction: "in" | "out", kind: FrameKind, id?: number, name?: string, size: number, payload: Uint8Array }} Frame
 *   `size` is the size of the whole frame in bytes. A reset or a response has the name of its call, if the call is in flight.
 */

const PROTOCOL = "websocket.io-rpc-v0.1";
const TOKEN_PREFIX = "roomcast.token."; // Browsers let a page set no other header for a WebSocket.
const OPCODES = { notify: 1, request: 2, reset: 3, response: 4 };
const MAX_NAME_BYTES = 255;
const MAX_BUFFERED_EVENTS = 1024; // for each iterator, and for all events without an iterator
const MAX_BUFFERED_BYTES = 16 * 1024 * 1024;
const LONGEST_TIMER_MS = 0x7fffffff; // A timer with a longer delay fires at once.
const CLOSE_LOST = 1006;
const CLOSE_MALFORMED_FRAME = 4002; // Browsers do not let a page send 1002.
const ERROR_CODES = new Set(
  ("CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED " +
    "FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED").split(" "),
);
const EMPTY = new Uint8Array(0);
const utf8 = new TextEncoder();
const strictText = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A call failed. `code` is the name of a gRPC code, such as NOT_FOUND. `details` is data of the application, if any. */
export class RoomcastError extends Error {
  name = "RoomcastError";
  constructor(code, message, details) {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/** The connection ended or was not open. `code` and `reason` are those of the WebSocket close. */
export class ConnectionClosedError extends Error {
  name = "ConnectionClosedError";
  constructor(code, reason) {
    super(`the connection is closed (${code}${reason && `: ${reason}`})`);
    this.code = code;
    this.reason = reason;
  }
}

export class SocketIo {
  /** Called with every frame sent or received. @type {((frame: Frame) => void) | undefined} */
  onframe;
  /** Called when the connection opens and when it ends. @type {((status: Status) => void) | undefined} */
  onstatus;
  #url;
  #WebSocket;
  #token;
  /** The current WebSocket: there is one from `connect()` until the connection ends. @type {WebSocket | undefined} */
  #ws;
  #opened; // What `connect()` returned for `#ws`,
  #failOpened; // and how to reject it.
  /** @type {Status} */
  #status = { state: "idle" };
  #lastId = 0;
  /** Calls in flight, by id. @type {Map<number, { method: string, settle(finish: "resolve" | "reject", value: unknown): void }>} */
  #calls = new Map();
  /** The iterators of each event on this connection, by event name. @type {Map<string, Set<EventStream>>} */
  #streams = new Map();
  /** Events without an iterator, because a server may send events before the page calls `on()`. */
  #early = new EventBuffer();

  /**
   * @param {string | URL} url
   * @param {{ WebSocket?: typeof WebSocket, token?: string | (() => string | undefined) }} [options] A WebSocket class, if there
   *   is no global one, as in Node.js 20. A token that authenticates the client, or a function that returns it for each connect.
   */
  constructor(url, { WebSocket = globalThis.WebSocket, token } = {}) {
    if (!WebSocket) throw new TypeError("there is no global WebSocket; pass a class, such as that of the package ws: new SocketIo(url, { WebSocket })");
    this.#url = url;
    this.#WebSocket = WebSocket;
    this.#token = token;
  }

  /** Opens the connection, and resolves when it is open. After the connection has ended, you can call this again. @returns {Promise<void>} */
  async connect() {
    if (!this.#ws) this.#openWebSocket();
    return this.#opened;
  }

  /** Closes the connection. All calls in flight are rejected, and all iterators end at once. */
  close(code = 1000, reason = "") {
    const ws = this.#ws;
    ws?.close(code, reason);
    this.#end(ws, code, reason);
  }

  /** The state of the connection, the ids of the calls in flight, and the names of the events that have iterators. */
  status() {
    const events = [...this.#streams.keys()].filter((event) => this.#streams.get(event).size > 0);
    return { ...this.#status, pending: [...this.#calls.keys()], events };
  }

  /**
   * Returns an iterator over the notifications with this event name. Each iterator of an event receives all of them. The first
   * one also receives those that arrived before. An iterator ends when the connection ends, when you call `removeEvent()`, or
   * when you leave its `for await` loop.
   * @param {string} event @returns {AsyncIterableIterator<Uint8Array>}
   */
  on(event) {
    const stream = new EventStream(() => this.#streams.get(event)?.delete(stream));
    for (const payload of this.#early.take(event)) stream.push(payload);
    if (this.#status.state === "closed") stream.end();
    else this.#streams.set(event, (this.#streams.get(event) ?? new Set()).add(stream));
    return stream;
  }

  /** Ends all iterators of an event. Returns true if there were any. @param {string} event */
  removeEvent(event) {
    this.#early.take(event);
    const streams = this.#streams.get(event) ?? new Set();
    const removed = streams.size > 0;
    for (const stream of streams) stream.end();
    streams.clear();
    return removed;
  }

  /** Sends a notification, which has no response. @param {string} event @param {Data} [data] */
  notify(event, data = EMPTY) {
    this.#send("notify", undefined, event, data);
  }

  /**
   * Calls a method. Rejects with a RoomcastError if the call fails, with a ConnectionClosedError if the connection ends first,
   * with the signal's reason on abort, and with a TimeoutError after `timeout`. An abort and a time-out also cancel the call on
   * the server.
   * @param {string} method @param {Data} [data] @param {CallOptions} [options] @returns {Promise<Uint8Array>}
   */
  call(method, data = EMPTY, { signal, timeout } = {}) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) throw signal.reason;
      const id = this.#nextId();
      const settle = (finish, value) => {
        this.#calls.delete(id);
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        (finish === "resolve" ? resolve : reject)(value);
      };
      const cancel = (reason) => {
        if (this.#isOpen()) this.#send("reset", id, method);
        settle("reject", reason);
      };
      const onAbort = () => cancel(signal.reason);
      const onTimeout = () => cancel(new DOMException(`${method} did not respond within ${timeout} ms`, "TimeoutError"));
      const timer = timeout <= LONGEST_TIMER_MS ? setTimeout(onTimeout, timeout) : undefined;
      signal?.addEventListener("abort", onAbort);
      this.#calls.set(id, { method, settle });
      try {
        this.#send("request", id, method, data);
      } catch (error) {
        settle("reject", error);
      }
    });
  }

  /** Joins a room. When the promise resolves, every later event of the room reaches this connection. @param {string} room @param {CallOptions} [options] */
  async join(room, options) {
    await this.call(`rooms/join/${segment(room)}`, EMPTY, options);
  }

  /** Leaves a room. @param {string} room @param {CallOptions} [options] */
  async leave(room, options) {
    await this.call(`rooms/leave/${segment(room)}`, EMPTY, options);
  }

  /** Publishes an event to all members of a room. @param {string} room @param {string} event @param {Data} [data] @param {CallOptions} [options] */
  async publish(room, event, data, options) {
    await this.call(`rooms/publish/${segment(room)}/${segment(event)}`, data, options);
  }

  #openWebSocket() {
    const token = typeof this.#token === "function" ? this.#token() : this.#token;
    const ws = new this.#WebSocket(this.#url, token ? [PROTOCOL, TOKEN_PREFIX + token] : PROTOCOL);
    ws.binaryType = "arraybuffer";
    this.#ws = ws;
    this.#early = new EventBuffer();
    this.#status = { state: "connecting" };
    this.#opened = new Promise((resolve, reject) => {
      this.#failOpened = reject;
      ws.addEventListener("open", () => {
        if (ws !== this.#ws) return;
        resolve();
        this.#setStatus({ state: "open" });
      });
    });
    ws.addEventListener("message", ({ data }) => ws === this.#ws && this.#receive(data));
    ws.addEventListener("close", ({ code, reason }) => this.#end(ws, code, reason));
    // After an open connection's error, a close follows. Some versions of Node.js fire none after an error while connecting.
    ws.addEventListener("error", () => this.#status.state === "connecting" && this.#end(ws, CLOSE_LOST, ""));
  }

  #end(ws, code, reason) {
    if (!ws || ws !== this.#ws) return; // An earlier WebSocket, whose end was already handled.
    this.#ws = undefined;
    const error = new ConnectionClosedError(code, reason);
    this.#failOpened(error);
    for (const call of this.#calls.values()) call.settle("reject", error);
    for (const streams of this.#streams.values()) for (const stream of streams) stream.end();
    this.#streams.clear();
    this.#setStatus({ state: "closed", code, reason });
  }

  #isOpen() {
    return this.#status.state === "open" && this.#ws.readyState === this.#ws.OPEN;
  }

  /** @param {FrameKind} kind @param {number | undefined} id @param {string} name @param {Data} data */
  #send(kind, id, name, data = EMPTY) {
    const payload = toBytes(data);
    const frame = kind === "reset" ? encodeFrame(kind, id) : encodeFrame(kind, id, name, payload);
    if (!this.#isOpen()) throw new ConnectionClosedError(this.#status.code ?? CLOSE_LOST, this.#status.reason ?? "not open");
    this.#ws.send(frame);
    this.#tell(this.onframe, { direction: "out", kind, id, name, size: frame.length, payload });
  }

  /** @param {ArrayBuffer | string} data */
  #receive(data) {
    let frame;
    try {
      frame = decodeFrame(data);
    } catch (error) {
      return this.close(CLOSE_MALFORMED_FRAME, `malformed frame: ${error.message}`);
    }
    const { kind, id, payload } = frame;
    const call = this.#calls.get(id);
    const name = frame.name ?? call?.method;
    this.#tell(this.onframe, { direction: "in", kind, id, name, size: data.byteLength, payload });
    if (kind === "notify") return this.#deliver(name, payload);
    const error = errorAnswer(payload);
    call?.settle(error ? "reject" : "resolve", error ?? payload); // There is no call if the response and the reset crossed on the wire.
  }

  #deliver(event, payload) {
    const streams = this.#streams.get(event);
    if (!streams) this.#early.push(payload, event);
    else for (const stream of streams) stream.push(payload);
  }

  #nextId() {
    do this.#lastId = (this.#lastId + 1) >>> 0;
    while (this.#calls.has(this.#lastId));
    return this.#lastId;
  }

  #setStatus(status) {
    this.#status = status;
    this.#tell(this.onstatus, status);
  }

  /** Runs a hook. If it throws, the error is reported but does not affect the connection. */
  #tell(hook, fact) {
    try {
      hook?.(fact);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

/** Events that wait to be read, in order. When the buffer is full, it drops the oldest events, because recent ones matter more. */
class EventBuffer {
  #entries = [];
  #bytes = 0;

  push(payload, event) {
    this.#entries.push({ event, payload });
    this.#bytes += payload.length;
    while (this.#entries.length > MAX_BUFFERED_EVENTS || this.#bytes > MAX_BUFFERED_BYTES) this.shift();
  }

  shift() {
    const payload = this.#entries.shift()?.payload;
    this.#bytes -= payload?.length ?? 0;
    return payload;
  }

  /** Removes one event's payloads and returns them. */
  take(event) {
    const taken = this.#entries.filter((entry) => entry.event === event).map(({ payload }) => payload);
    this.#entries = this.#entries.filter((entry) => entry.event !== event);
    for (const payload of taken) this.#bytes -= payload.length;
    return taken;
  }
}

/** An iterator of one event. After it has ended, you can still read the events that it had buffered. */
class EventStream {
  #buffer = new EventBuffer();
  #readers = [];
  #ended = false;
  #leave;
  constructor(leave) {
    this.#leave = leave;
  }

  async next() {
    const value = this.#buffer.shift();
    if (value || this.#ended) return { value, done: !value };
    return new Promise((resolve) => this.#readers.push(resolve));
  }

  async return(value) {
    this.#leave();
    this.#buffer = new EventBuffer();
    this.end();
    return { value, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  push(value) {
    const reader = this.#readers.shift();
    if (reader) reader({ value, done: false });
    else this.#buffer.push(value);
  }

  end() {
    this.#ended = true;
    for (const reader of this.#readers.splice(0)) reader({ value: undefined, done: true });
  }
}

/** A reset has no name, a notification no id. @param {FrameKind} kind @param {number} [id] @param {string} [name] @param {Uint8Array} [payload] */
function encodeFrame(kind, id, name, payload = EMPTY) {
  const nameBytes = utf8.encode(name);
  if (nameBytes.length > MAX_NAME_BYTES) throw new RangeError(`the name has ${nameBytes.length} bytes; use at most ${MAX_NAME_BYTES}`);
  const header = [OPCODES[kind]];
  if (id !== undefined) header.push(id >>> 24, (id >>> 16) & 255, (id >>> 8) & 255, id & 255);
  if (name !== undefined) header.push(nameBytes.length, ...nameBytes);
  const frame = new Uint8Array(header.length + payload.length);
  frame.set(header);
  frame.set(payload, header.length);
  return frame;
}

/** Decodes a frame from a server. Throws an error that describes a malformed one. @param {ArrayBuffer | string} data */
function decodeFrame(data) {
  if (typeof data === "string") throw new Error("a text message");
  const bytes = new Uint8Array(data);
  if (bytes.length === 0) throw new Error("empty");
  const nameEnd = 2 + bytes[1];
  if (bytes[0] === OPCODES.notify && nameEnd <= bytes.length) {
    return { kind: "notify", name: strictText.decode(bytes.subarray(2, nameEnd)), payload: bytes.slice(nameEnd) };
  }
  if (bytes[0] === OPCODES.response && bytes.length >= 5) {
    return { kind: "response", id: new DataView(data).getUint32(1), payload: bytes.slice(5) };
  }
  throw new Error(bytes[0] === OPCODES.notify || bytes[0] === OPCODES.response ? "truncated" : `opcode ${bytes[0]}`);
}

/** The error in a payload that is exactly `{"error":{"code","message"}}`, with or without `"details"`. Any other payload is a result. */
function errorAnswer(payload) {
  if (payload[0] !== 0x7b) return undefined; // Does not start with a brace.
  try {
    const answer = JSON.parse(strictText.decode(payload));
    const { code, message, details, ...rest } = answer.error;
    const exact = Object.keys(answer).length === 1 && Object.keys(rest).length === 0;
    if (exact && ERROR_CODES.has(code) && typeof message === "string") return new RoomcastError(code, message, details);
  } catch {
    // Not JSON, or no object in `error`.
  }
  return undefined;
}

/** @param {Data} data @returns {Uint8Array} */
function toBytes(data) {
  if (typeof data === "string") return utf8.encode(data);
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (Array.isArray(data) && data.every((byte) => Number.isInteger(byte) && byte >= 0 && byte <= 255)) return Uint8Array.from(data);
  throw new TypeError("the data is not bytes; pass a string, an ArrayBuffer, a view of one, or an array of bytes");
}

/** Checks the name of a room or event. A name with a slash would change the method that is called. */
function segment(name) {
  if (typeof name !== "string" || name === "" || name.includes("/")) throw new TypeError(`"${name}" is not the name of a room or event; use a string that is not empty and has no slash`);
  return name;
}
