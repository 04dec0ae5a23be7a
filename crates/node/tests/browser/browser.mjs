import assert from "node:assert/strict";
import { chromium } from "playwright-core";

/** Where a running `roomcast serve --demo` is. */
export const nodeUrl = new URL(process.env.ROOMCAST_URL ?? "http://127.0.0.1:3000/");
export const socketUrl = Object.assign(new URL("socket", nodeUrl), { protocol: nodeUrl.protocol.replace("http", "ws") }).href;

/** However slow the machine is, no suite and no single wait takes longer. */
export const SUITE_DEADLINE_MS = 240_000;
export const WAIT_DEADLINE_MS = 15_000;

/** @param {string[]} [args] further arguments for the browser */
export function launch(args = []) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...args,
    ],
  });
}

/**
 * A browser profile whose tabs keep what goes wrong in them.
 * @param {import("playwright-core").Browser} browser
 * @param {import("playwright-core").BrowserContextOptions} [options]
 */
export async function newProfile(browser, options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(WAIT_DEADLINE_MS);
  const troubles = [];
  const hosts = new Set();
  context.on("console", (message) => {
    // Browsers ask by themselves for the icon of a page that names none.
    const ownRequest = message.location().url.endsWith("/favicon.ico");
    if (message.type() === "error" && !ownRequest) troubles.push(message.text());
  });
  context.on("weberror", (error) => troubles.push(String(error.error())));
  context.on("request", (request) => hosts.add(hostOf(request.url())));
  context.on("page", (page) => page.on("websocket", (socket) => hosts.add(hostOf(socket.url()))));
  return {
    context,
    async open(path = "/") {
      const page = await context.newPage();
      await page.goto(new URL(path, nodeUrl).href);
      return page;
    },
    /** Asserts that no page logged an error or asked another host for anything, and ends the profile. */
    async finish() {
      await context.close();
      assert.deepEqual(troubles, []);
      assert.deepEqual([...hosts], [nodeUrl.host]);
    },
  };
}

/** A blob's host is that of the page which made it. */
function hostOf(url) {
  return new URL(new URL(url).origin).host;
}

/**
 * Opens a page of the node's origin that runs nothing but this module. It shows the source of the client, because pages that a
 * test invents have no network address, and browsers keep such pages away from servers on this machine.
 * The profile must bypass the node's content security policy.
 */
export async function openBlank(profile, module) {
  const page = await profile.open("/client.js");
  await page.addScriptTag({ type: "module", content: module });
  return page;
}
