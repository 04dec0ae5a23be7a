import assert from "node:assert/strict";
import { afterEach, after, before, beforeEach, describe, test } from "node:test";
import { launch, newProfile, SUITE_DEADLINE_MS } from "./browser.mjs";

describe("the demo page", { timeout: SUITE_DEADLINE_MS }, () => {
  let browser, profile;

  before(async () => {
    browser = await launch();
  });
  after(() => browser?.close());
  beforeEach(async () => {
    profile = await newProfile(browser);
  });
  // Every test also asserts that nothing was logged as an error and that no other host was asked.
  afterEach(() => profile.finish());

  async function openDemo(name = "Ada") {
    const page = await profile.open("/");
    await shows(page, "connection-state", "Connected");
    await page.getByTestId("my-name").fill(name);
    return page;
  }

  const shows = (page, testId, text) => page.getByTestId(testId).filter({ hasText: text }).waitFor();
  const showsFrame = (page, ...texts) => {
    const row = texts.reduce((rows, hasText) => rows.filter({ hasText }), page.getByTestId("frames").locator("li"));
    return row.first().waitFor();
  };

  async function join(page, room) {
    await page.getByTestId("room-name").fill(room);
    await page.getByTestId("room-join").click();
    await page.getByRole("button", { name: room, exact: true }).waitFor();
  }

  async function say(page, text) {
    await page.getByTestId("chat-text").fill(text);
    await page.getByTestId("chat-send").click();
  }

  const said = (page, text) => page.getByTestId("chat-log").locator("li", { hasText: text }).waitFor();
  const freshRoom = () => `room-${Math.random().toString(36).slice(2, 8)}`;

  test("pings, and shows the round trip and its frames", async () => {
    const page = await openDemo();
    await page.getByTestId("ping-text").fill("are you there");
    await page.getByTestId("ping-send").click();
    await shows(page, "pong", "are you there");
    await shows(page, "ping-time", /^\d+(\.\d)? ms$/);
    await showsFrame(page, "↑", "notify", "ping", "19 B", "are you there");
    await showsFrame(page, "↓", "notify", "pong", "19 B", "are you there");
  });

  test("calls", async () => {
    const page = await openDemo();
    await page.getByTestId("call-text").fill("grüße");
    await page.getByTestId("call-uppercase").click();
    await shows(page, "call-result", "GRÜSSE");
    await page.getByTestId("call-echo").click();
    await shows(page, "call-result", "grüße");
    await page.getByTestId("call-myip").click();
    await shows(page, "call-result", /:\d+$/);
    await showsFrame(page, "↓", "response", "#2", "echo");
  });

  test("cancels the long task at its time-out, by hand, or not at all", async () => {
    const page = await openDemo();
    await page.getByTestId("task-timeout").fill("300");
    await shows(page, "task-timeout-text", "300 ms");
    await page.getByTestId("task-run").click();
    await shows(page, "task-result", "TimeOut!");
    await shows(page, "task-time", /^\d{3} ms$/);
    await showsFrame(page, "↑", "reset", "#1", "long_runing_task");

    await page.getByTestId("task-timeout").fill("4000");
    await page.getByTestId("task-run").click();
    await page.getByTestId("task-cancel").click();
    await shows(page, "task-result", "Cancelled manually");

    await page.getByTestId("task-run").click();
    await shows(page, "task-result", "done!");
    await shows(page, "task-time", /^3\d{3} ms$/);
  });

  test("broadcasts to everybody, and shows markup as text", async () => {
    const pages = [await openDemo(), await openDemo("Grace")];
    const text = `<img src="x" onerror="console.error('ran')"> ${freshRoom()}`;
    await pages[0].getByTestId("broadcast-text").fill(text);
    await pages[0].getByTestId("broadcast-send").click();
    for (const page of pages) {
      await page.getByTestId("messages").getByText(text, { exact: true }).waitFor();
      await showsFrame(page, "↓", "notify", "message", text);
      assert.equal(await page.locator("img").count(), 0);
    }
  });

  test("two tabs chat in a room", async () => {
    const [ada, grace] = [await openDemo("Ada"), await openDemo("Grace")];
    const room = freshRoom();
    await join(ada, room);
    await join(grace, room);
    await said(ada, "Grace joined");
    await shows(ada, "member-count", "2 members");
    await ada.getByTestId("member-count").click();
    assert.equal(await ada.getByTestId("member-list").locator("li").count(), 2);

    await say(ada, "<b>hello</b>");
    await said(grace, "<b>hello</b>");
    await say(grace, "hello to you");
    await said(ada, "hello to you");

    await grace.getByRole("button", { name: `Leave ${room}` }).click();
    await said(ada, "Grace left");
    await say(ada, "only me now");
    await said(ada, "only me now");
    await shows(grace, "room-chips", "");
    assert.equal(await grace.getByTestId("chat-log").getByText("only me now").count(), 0);
  });

  test("keeps rooms apart", async () => {
    const [ada, grace] = [await openDemo("Ada"), await openDemo("Grace")];
    const [shared, own] = [freshRoom(), freshRoom()];
    await join(ada, shared);
    await join(grace, shared);
    await join(grace, own);
    await say(ada, "for the shared room");
    await grace.locator(".chip.unread", { hasText: shared }).waitFor();
    assert.equal(await grace.getByTestId("chat-log").getByText("for the shared room").isVisible(), false);
    await grace.getByRole("button", { name: shared, exact: true }).click();
    await said(grace, "for the shared room");
  });

  test("disconnects, and comes back into its rooms", async () => {
    const [ada, grace] = [await openDemo("Ada"), await openDemo("Grace")];
    const room = freshRoom();
    await join(ada, room);
    await join(grace, room);
    await ada.getByTestId("connect").click();
    await shows(ada, "connection-state", "Disconnected");
    await shows(ada, "connection-detail", "1000");
    assert.equal(await ada.getByTestId("ping-send").isDisabled(), true);

    await ada.getByTestId("connect").click();
    await shows(ada, "connection-state", "Connected");
    await grace.getByTestId("chat-log").locator("li", { hasText: "Ada joined" }).waitFor();
    await say(grace, "welcome back");
    await said(ada, "welcome back");
  });

  test("pauses and clears its frames, which are bounded", async () => {
    const page = await openDemo();
    const rows = page.getByTestId("frames").locator("li");
    await page.evaluate(async () => {
      for (let call = 0; call < 150; call++) await rpc("echo", String(call));
    });
    await shows(page, "frame-counts", "150 out · 150 in");
    assert.equal(await rows.count(), 200);

    await page.getByTestId("frames-clear").click();
    await shows(page, "frame-counts", "0 out · 0 in");
    assert.equal(await rows.count(), 0);

    await page.getByTestId("frames-pause").click();
    await page.evaluate(() => rpc("echo", "unseen"));
    await shows(page, "frame-counts", "1 out · 1 in");
    assert.equal(await rows.count(), 0);
  });

  test("offers the tutorial's names to the console", async () => {
    const page = await openDemo();
    assert.equal(await page.evaluate(() => rpc("uppercase", "hi")), "HI");
    assert.equal(await page.evaluate(() => long_runing_task(200).catch((reason) => reason)), "TimeOut!");
    assert.equal(await page.evaluate(() => socket.status().state), "open");
  });

  test("fits a phone", async () => {
    const page = await openDemo();
    await page.setViewportSize({ width: 360, height: 740 });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.equal(overflow, 0);
  });
});
