import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { launch, newProfile, openBlank, socketUrl, SUITE_DEADLINE_MS, WAIT_DEADLINE_MS } from "./browser.mjs";

// What the tests below use inside the page.
const PAGE = `
import * as client from "/client.js";
const decoder = new TextDecoder();
Object.assign(window, {
  client,
  text: (bytes) => decoder.decode(bytes),
  newSocket: (options) => new client.SocketIo("${socketUrl}", options),

  /** A connected socket; what it sent and received is in its "frames". */
  connected: async (options) => {
    const socket = newSocket(options);
    socket.frames = [];
    socket.onframe = (frame) => socket.frames.push(frame);
    await socket.connect();
    return socket;
  },
  sent: (socket, kind) => socket.frames.filter((frame) => frame.direction === "out" && frame.kind === kind),

  /** Resolves when the socket has received this many notifications of an event. */
  received: (socket, event, count) =>
    new Promise((resolve) => {
      const look = () => {
        if (socket.frames.filter((frame) => frame.direction === "in" && frame.name === event).length >= count) resolve();
      };
      socket.onframe = (frame) => {
        socket.frames.push(frame);
        queueMicrotask(look);
      };
      look();
    }),

  /** The texts of an iterator's next events. */
  take: async (iterator, count) => {
    const texts = [];
    while (texts.length < count) texts.push(decoder.decode((await iterator.next()).value));
    return texts;
  },

  /** What a promise was rejected with, in a form that leaves the page. */
  failure: (promise) =>
    promise.then(
      () => "not rejected",
      (error) => (error instanceof Error ? { name: error.name, code: error.code, reason: error.reason, message: error.message } : error),
    ),

  /** Resolves when the node has no unfinished long task. */
  noneRunning: async (socket) => {
    while (decoder.decode(await socket.call("running")) !== "0");
  },

  /** A WebSocket class without a network: "latest" is the last one made, "sent" is what it was given. */
  FakeWebSocket: class FakeWebSocket extends EventTarget {
    OPEN = 1;
    readyState = 1;
    sent = [];
    constructor() {
      super();
      FakeWebSocket.latest = this;
      queueMicrotask(() => this.dispatchEvent(new Event("open")));
    }
    send(frame) {
      this.sent.push(frame);
    }
    close(...close) {
      this.closed = close;
    }
    receive(data) {
      this.dispatchEvent(new MessageEvent("message", { data: Array.isArray(data) ? Uint8Array.from(data).buffer : data }));
    }
  },
});
window.ready = true;
`;

describe("the client", { timeout: SUITE_DEADLINE_MS }, () => {
  let browser, profile, page;

  before(async () => {
    browser = await launch();
  });
  after(() => browser?.close());
  beforeEach(async () => {
    profile = await newProfile(browser, { bypassCSP: true });
    page = await openBlank(profile, PAGE);
    await page.waitForFunction(() => window.ready);
  });
  // Every test also asserts that no error escaped into the page's console.
  afterEach(() => profile.finish());

  /** A test of what a function returns when it runs in the page. */
  function inPage(name, run, expected) {
    test(name, { timeout: WAIT_DEADLINE_MS }, async () => assert.deepEqual(await page.evaluate(run), expected));
  }

  describe("events", () => {
    inPage(
      "reach every iterator from the moment of on()",
      async () => {
        const socket = await connected();
        const [first, second] = [socket.on("pong"), socket.on("pong")];
        for (const letter of "abc") socket.notify("ping", letter);
        await received(socket, "pong", 3);
        return [await take(first, 3), await take(second, 3)];
      },
      [["a", "b", "c"], ["a", "b", "c"]],
    );

    inPage(
      "that come before anybody listens go to the first listener, in order",
      async () => {
        const socket = await connected();
        for (const letter of "abc") socket.notify("ping", letter);
        await received(socket, "pong", 3);
        const [first, second] = [socket.on("pong"), socket.on("pong")];
        socket.notify("ping", "d");
        return [await take(first, 4), await take(second, 1)];
      },
      [["a", "b", "c", "d"], ["d"]],
    );

    inPage(
      "fill a bounded buffer, which forgets the oldest",
      async () => {
        const socket = await connected({ WebSocket: FakeWebSocket });
        const listener = socket.on("heard");
        for (const event of ["heard", "early"]) {
          for (let index = 0; index < 1100; index++) {
            FakeWebSocket.latest.receive([1, 5, ...new TextEncoder().encode(event + index)]);
          }
        }
        return [await take(listener, 1), await take(socket.on("early"), 1)];
      },
      [["76"], ["76"]],
    );

    inPage(
      "stop when a for await is left, and begin again with the next",
      async () => {
        const socket = await connected();
        const next = async () => {
          for await (const payload of socket.on("pong")) return text(payload);
        };
        const first = next();
        socket.notify("ping", "a");
        const heard = [await first, socket.status().events];
        socket.notify("ping", "unheard");
        await received(socket, "pong", 2);
        const second = next();
        socket.notify("ping", "b");
        return [...heard, await second];
      },
      ["a", [], "b"],
    );

    inPage(
      "end with removeEvent(), which says whether there was anything to remove",
      async () => {
        const socket = await connected();
        const [first, second] = [socket.on("pong").next(), socket.on("pong").next()];
        const removed = [socket.removeEvent("pong"), socket.removeEvent("pong"), socket.removeEvent("unknown")];
        return [removed, (await first).done, (await second).done];
      },
      [[true, false, false], true, true],
    );
  });

  describe("calls", () => {
    inPage(
      "take every kind of data",
      async () => {
        const socket = await connected();
        const bytes = Uint8Array.of(0, 1, 2, 253, 254, 255);
        const kinds = [bytes, bytes.buffer, bytes.subarray(2, 4), new DataView(bytes.buffer, 1, 3), Uint16Array.of(300), "ß", "", [], [7], undefined];
        const answers = await Promise.all(kinds.map((data) => socket.call("echo", data)));
        return answers.map((answer) => [...answer].join());
      },
      ["0,1,2,253,254,255", "0,1,2,253,254,255", "2,253", "1,2,253", "44,1", "195,159", "", "", "7", ""],
    );

    inPage(
      "that cannot be sent are rejected and forgotten",
      async () => {
        const socket = await connected();
        const bad = [socket.call("echo", {}), socket.call("echo", [256]), socket.call("n".repeat(256)), socket.join("a/b")];
        const names = (await Promise.all(bad.map(failure))).map(({ name }) => name);
        return [names, socket.status().pending, socket.frames.length];
      },
      [["TypeError", "TypeError", "RangeError", "TypeError"], [], 0],
    );

    test("of an unknown method are rejected with NOT_FOUND", { timeout: WAIT_DEADLINE_MS }, async () => {
      const { name, code, message } = await page.evaluate(async () => failure((await connected()).call("no-such-method")));
      assert.deepEqual([name, code], ["RoomcastError", "NOT_FOUND"]);
      assert.notEqual(message, "");
    });

    inPage(
      "resolve with what only looks like an error",
      async () => {
        const socket = await connected();
        const error = { code: "NOT_FOUND", message: "m" };
        const results = [{ error: null }, { error: { ...error, more: 1 } }, { error, more: 1 }, { error: { ...error, code: "MINE" } }, { error: { ...error, message: 1 } }, [error], "{"];
        const answers = await Promise.all(results.map((result) => socket.call("echo", JSON.stringify(result))));
        const same = answers.every((answer, index) => text(answer) === JSON.stringify(results[index]));
        const detailed = await socket.call("echo", JSON.stringify({ error: { ...error, details: { left: 3 } } })).catch((failed) => failed);
        return [same, (await failure(socket.call("echo", JSON.stringify({ error })))).code, detailed.code, detailed.details?.left];
      },
      [true, "NOT_FOUND", "NOT_FOUND", 3],
    );

    inPage(
      "sharing a signal are all aborted with its reason, and the signal stays the application's",
      async () => {
        const socket = await connected();
        const controller = new AbortController();
        const { signal } = controller;
        let notified = 0;
        signal.onabort = () => notified++;
        await socket.call("echo", "finished before", { signal });
        const calls = [1, 2].map(() => failure(socket.call("long", [], { signal })));
        controller.abort("enough");
        const reasons = await Promise.all(calls);
        await noneRunning(socket);
        return [reasons, notified, sent(socket, "reset").map(({ id, name }) => [id, name]), socket.status().pending];
      },
      [["enough", "enough"], 1, [[2, "long"], [3, "long"]], []],
    );

    inPage(
      "with an aborted signal are not sent",
      async () => {
        const socket = await connected();
        const reasons = [await failure(socket.call("echo", "x", { signal: AbortSignal.abort("too late") }))];
        reasons.push((await failure(socket.call("echo", "x", { signal: AbortSignal.abort() }))).name);
        return [reasons, socket.frames];
      },
      [["too late", "AbortError"], []],
    );

    inPage(
      "stop at their timeout",
      async () => {
        const socket = await connected();
        const { name } = await failure(socket.call("long", [], { timeout: 50 }));
        await noneRunning(socket);
        return [name, sent(socket, "reset").length, text(await socket.call("echo", "in time", { timeout: Infinity }))];
      },
      ["TimeoutError", 1, "in time"],
    );

    test("number themselves within 32 bits", { timeout: WAIT_DEADLINE_MS }, async () => {
      const ids = await page.evaluate(async () => {
        const source = await (await fetch("/client.js")).text();
        const nearTheEnd = source.replace("#lastId = 0;", "#lastId = 0xfffffffd;");
        const { SocketIo } = await import(URL.createObjectURL(new Blob([nearTheEnd], { type: "text/javascript" })));
        const socket = new SocketIo("", { WebSocket: FakeWebSocket });
        await socket.connect();
        for (let call = 0; call < 4; call++) failure(socket.call("m"));
        return FakeWebSocket.latest.sent.map((frame) => new DataView(frame.buffer).getUint32(1));
      });
      assert.deepEqual(ids, [0xfffffffe, 0xffffffff, 0, 1]);
    });
  });

  describe("rooms", () => {
    inPage(
      "bring their events to members only",
      async () => {
        const room = `room-${Math.random().toString(36).slice(2)}`;
        const [member, publisher] = [await connected(), await connected()];
        const events = member.on("news");
        await member.join(room);
        await publisher.publish(room, "news", "first");
        const first = await take(events, 1);
        await member.leave(room);
        await publisher.publish(room, "news", "unheard");
        await member.join(room);
        await publisher.publish(room, "news", "second");
        return [first, await take(events, 1), publisher.frames.filter(({ kind }) => kind === "notify").length];
      },
      [["first"], ["second"], 0],
    );
  });

  describe("the end of a connection", () => {
    inPage(
      "rejects pending calls, ends iterators, and can be followed by another connection",
      async () => {
        const socket = await connected();
        const statuses = [];
        socket.onstatus = (status) => statuses.push(status);
        const ends = [failure(socket.call("long")), socket.on("pong").next()];
        socket.close(3000, "bye");
        const [rejected, { done }] = await Promise.all(ends);
        const late = [await failure(socket.call("echo")), (await socket.on("pong").next()).done];
        await socket.connect();
        return [rejected.name, rejected.code, rejected.reason, done, late[0].code, late[1], text(await socket.call("echo", "again")), statuses];
      },
      ["ConnectionClosedError", 3000, "bye", true, 3000, true, "again", [{ state: "closed", code: 3000, reason: "bye" }, { state: "open" }]],
    );

    inPage(
      "offers the token as a subprotocol, a new one for each connect",
      async () => {
        const offered = [];
        class Offering extends FakeWebSocket {
          constructor(url, protocols) {
            super();
            offered.push(protocols);
          }
        }
        let calls = 0;
        const socket = newSocket({ WebSocket: Offering, token: () => `t${++calls}` });
        for (let connects = 0; connects < 2; connects++) {
          await socket.connect();
          socket.close();
        }
        await newSocket({ WebSocket: Offering, token: "fixed" }).connect();
        await newSocket({ WebSocket: Offering }).connect();
        return offered;
      },
      [
        ["websocket.io-rpc-v0.1", "roomcast.token.t1"],
        ["websocket.io-rpc-v0.1", "roomcast.token.t2"],
        ["websocket.io-rpc-v0.1", "roomcast.token.fixed"],
        "websocket.io-rpc-v0.1",
      ],
    );

    inPage(
      "rejects the connect also where an error while connecting is followed by no close event",
      async () => {
        class Failing extends EventTarget {
          constructor() {
            super();
            queueMicrotask(() => this.dispatchEvent(new Event("error")));
          }
        }
        const socket = newSocket({ WebSocket: Failing });
        const failures = [await failure(socket.connect()), await failure(socket.connect())];
        return [...failures.map(({ name, code }) => `${name} ${code}`), socket.status().state];
      },
      ["ConnectionClosedError 1006", "ConnectionClosedError 1006", "closed"],
    );

    test("tells the server's code and reason", { timeout: WAIT_DEADLINE_MS }, async () => {
      const { name, code, reason } = await page.evaluate(async () => {
        let webSocket;
        class Exposed extends WebSocket {
          constructor(...address) {
            super(...address);
            webSocket = this;
          }
        }
        const pending = (await connected({ WebSocket: Exposed })).call("long");
        webSocket.send("text is not allowed");
        return failure(pending);
      });
      assert.deepEqual([name, code], ["ConnectionClosedError", 1003]);
      assert.equal(typeof reason, "string");
    });

    inPage(
      "comes with every malformed frame, and without an escaped error",
      async () => {
        const malformed = [[], [1], [1, 3, 97], [1, 1, 0xff], [2, 0, 0, 0, 1, 0], [3, 0, 0, 0, 1], [4, 0, 0], [9], "text"];
        const outcomes = [];
        for (const data of malformed) {
          const socket = await connected({ WebSocket: FakeWebSocket });
          const pending = failure(socket.call("m"));
          FakeWebSocket.latest.receive(data);
          outcomes.push([(await pending).code, FakeWebSocket.latest.closed[0], socket.status().state].join());
        }
        return [...new Set(outcomes)];
      },
      ["4002,4002,closed"],
    );

    inPage(
      "is not caused by an answer that nobody waits for",
      async () => {
        const socket = await connected({ WebSocket: FakeWebSocket });
        FakeWebSocket.latest.receive([4, 0, 0, 0, 77, 1]);
        return socket.status().state;
      },
      "open",
    );

    inPage(
      "before its beginning rejects connect() and calls",
      async () => {
        const socket = newSocket();
        const early = await failure(socket.call("echo"));
        const connecting = failure(socket.connect());
        socket.close();
        return [early.name, (await connecting).name, socket.status()];
      },
      ["ConnectionClosedError", "ConnectionClosedError", { state: "closed", code: 1000, reason: "", pending: [], events: [] }],
    );
  });
});
