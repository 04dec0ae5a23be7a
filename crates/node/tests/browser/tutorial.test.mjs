import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch, newProfile, openBlank, socketUrl, SUITE_DEADLINE_MS } from "./browser.mjs";

// The tutorial's last page, with its import and its address changed.
const TUTORIAL = `
import { SocketIo } from "/client.js";
const decodeText = (data) => new TextDecoder().decode(data);
window.socket = new SocketIo("${socketUrl}");
await socket.connect();
window.rpc = async (...args) => decodeText(await socket.call(...args));
window.long_runing_task = async (timeout) => {
  const c = new AbortController();
  setTimeout(() => c.abort("TimeOut!"), timeout);
  const start = performance.now();
  const output = await rpc("long_runing_task", [], { signal: c.signal });
  const end = performance.now();
  return \`\${output}: \${Math.round(end - start)}ms\`;
};
async function onMessage() {
  for await (const msg of socket.on("message")) {
    console.log("[Message]", decodeText(msg));
  }
}
async function onPong() {
  for await (const msg of socket.on("pong")) {
    console.log("[Pong]", decodeText(msg));
  }
}
[onPong, onMessage].forEach((fn) => fn().catch(console.error));
`;

describe("the tutorial's page", { timeout: SUITE_DEADLINE_MS }, () => {
  let browser, profile, page;

  before(async () => {
    browser = await launch();
    profile = await newProfile(browser, { bypassCSP: true });
    page = await openTutorial();
  });
  after(async () => {
    await profile?.finish();
    await browser?.close();
  });

  async function openTutorial() {
    const opened = await openBlank(profile, TUTORIAL);
    await opened.waitForFunction(() => window.long_runing_task && socket.status().events.length === 2);
    return opened;
  }

  /** Resolves when the page logs this line; ask for it before doing what causes it. */
  const logged = (tab, line) => tab.waitForEvent("console", (message) => message.text() === line);

  test("gets a pong for its ping", async () => {
    await Promise.all([logged(page, "[Pong] hello"), page.evaluate(() => socket.notify("ping", "hello"))]);
  });

  test("learns its address and gets text in upper case", async () => {
    assert.match(await page.evaluate(() => rpc("myip", [])), /^.+:\d+$/);
    assert.equal(await page.evaluate(() => rpc("uppercase", "straße")), "STRASSE");
  });

  test("cancels the long task after 500 ms, and the node stops it", async () => {
    const { reason, elapsed } = await page.evaluate(async () => {
      const start = performance.now();
      const reason = await long_runing_task(500).catch((reason) => reason);
      return { reason, elapsed: performance.now() - start };
    });
    assert.equal(reason, "TimeOut!");
    assert.ok(elapsed >= 490 && elapsed < 2900, `took ${elapsed} ms`);
    await page.waitForFunction(async () => (await rpc("running", [])) === "0", undefined, { polling: 50 });
  });

  test("gets the long task's result when the time-out is long", async () => {
    const output = await page.evaluate(() => long_runing_task(30_000));
    const [, elapsed] = output.match(/^done!: (\d+)ms$/) ?? assert.fail(output);
    assert.ok(Number(elapsed) >= 2990, output);
  });

  test("two tabs see each other's broadcasts", async () => {
    const other = await openTutorial();
    for (const [from, text] of [[page, "from the first"], [other, "from the second"]]) {
      const seen = [page, other].map((tab) => logged(tab, `[Message] ${text}`));
      await Promise.all([...seen, from.evaluate((text) => socket.notify("broadcast", text), text)]);
    }
  });
});
