// Saves a picture of the demo page with some activity on it, as seen by one of two tabs that chat:
//   node screenshot.mjs PATH [light|dark] [WIDTHxHEIGHT]
import { launch, nodeUrl } from "./browser.mjs";

const [path, colorScheme = "light", size = "1280x800"] = process.argv.slice(2);
if (!path) throw new Error("usage: node screenshot.mjs PATH [light|dark] [WIDTHxHEIGHT]");
const [width, height] = size.split("x").map(Number);

const browser = await launch();
try {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, deviceScaleFactor: 2 });
  context.setDefaultTimeout(10_000);
  const ada = await openTab(context, "Ada");
  const grace = await openTab(context, "Grace");
  for (const tab of [ada, grace]) await joinRoom(tab, "lobby");
  await joinRoom(ada, "design");
  await ada.getByRole("button", { name: "lobby", exact: true }).click();
  await ada.getByText("Grace joined").waitFor();

  await say(ada, grace, "Did the reset reach the server in time?");
  await say(grace, ada, "It did: the task was dropped at its next await point.");
  await say(ada, grace, "And the room is on both nodes?");
  await say(grace, ada, "Same order on every node. Try it with a third tab.");

  await ada.bringToFront();
  for (let round = 1; round <= 12; round++) {
    await ada.getByTestId("ping-send").click();
    await ada.locator(`#round-trips rect:nth-child(${round})`).waitFor();
  }
  await ada.getByTestId("call-uppercase").click();
  await ada.getByText("STRASSE").first().waitFor();
  await grace.getByTestId("broadcast-text").fill("Deploy at noon, nobody will notice");
  await grace.getByTestId("broadcast-send").click();
  await ada.getByTestId("messages").getByText("Deploy at noon").waitFor();
  await ada.getByTestId("task-run").click();
  await ada.getByTestId("task-result").getByText("TimeOut!").waitFor();
  await ada.screenshot({ path, fullPage: width < 1120 });
} finally {
  await browser.close();
}

async function openTab(context, name) {
  const page = await context.newPage();
  await page.goto(nodeUrl.href);
  await page.getByTestId("connection-state").getByText("Connected").waitFor();
  await page.getByTestId("my-name").fill(name);
  return page;
}

async function joinRoom(page, room) {
  await page.getByTestId("room-name").fill(room);
  await page.getByTestId("room-join").click();
  await page.getByRole("button", { name: room, exact: true }).waitFor();
}

async function say(from, to, text) {
  await from.getByTestId("chat-text").fill(text);
  await from.getByTestId("chat-send").click();
  await to.getByTestId("chat-log").getByText(text).waitFor();
}
