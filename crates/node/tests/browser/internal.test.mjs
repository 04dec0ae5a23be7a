import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch, nodeUrl, SUITE_DEADLINE_MS } from "./browser.mjs";

/** Where the internal listener of the node is. */
const internalUrl = new URL(process.env.ROOMCAST_INTERNAL_URL ?? "http://127.0.0.1:3001/");

/** A name that its owner has given the address of this machine. */
const EVIL = "evil.example";

describe("the internal listener", { timeout: SUITE_DEADLINE_MS }, () => {
  let browser, page;

  before(async () => {
    browser = await launch([`--host-resolver-rules=MAP ${EVIL} 127.0.0.1`]);
    page = await (await browser.newContext({ bypassCSP: true })).newPage();
  });
  after(() => browser?.close());

  async function metric(series) {
    const text = await (await fetch(new URL("metrics", internalUrl))).text();
    return Number(text.split("\n").find((line) => line.startsWith(`${series} `))?.split(" ")[1] ?? 0);
  }

  const rejections = () => metric('roomcast_api_rejections_total{reason="browser"}');
  const publishes = () => metric('roomcast_publishes_total{outcome="ok"}');

  test("refuses what a page of another origin sends", async () => {
    await page.goto(Object.assign(new URL("/client.js", nodeUrl), { hostname: EVIL }).href);
    const before = [await rejections(), await publishes()];
    const events = new URL("v1/rooms/lobby/events/said", internalUrl).href;
    // The page may not read the response.
    await page.evaluate((url) => fetch(url, { method: "POST", mode: "no-cors", body: "forged" }), events);
    await page.evaluate((url) => fetch(url, { mode: "no-cors" }), new URL("v1/nodes", internalUrl).href);
    assert.deepEqual([await rejections(), await publishes()], [before[0] + 2, before[1]]);
  });

  test("refuses what a page sends whose name has been rebound", async () => {
    await page.goto(Object.assign(new URL("/healthz", internalUrl), { hostname: EVIL }).href);
    const before = await publishes();
    const statuses = await page.evaluate(async () => {
      const requests = [fetch("/v1/rooms/lobby/events/said", { method: "POST", body: "forged" }), fetch("/v1/nodes")];
      return (await Promise.all(requests)).map((response) => response.status);
    });
    assert.deepEqual([statuses, await publishes()], [[403, 403], before]);
  });

  test("answers a person who enters its address", async () => {
    const response = await page.goto(new URL("v1/nodes", internalUrl).href);
    assert.equal(response.status(), 200);
  });
});
