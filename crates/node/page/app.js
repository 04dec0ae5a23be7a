import { RoomcastError, SocketIo } from "./client.js";

const MAX_FRAMES_SHOWN = 200;
const MAX_LINES_SHOWN = 200;
const MAX_ROUND_TRIPS_SHOWN = 24;
const PREVIEW_BYTES = 96;

const decodeText = (data) => new TextDecoder().decode(data);
const $ = (id) => document.getElementById(id);

const scheme = location.protocol === "https:" ? "wss" : "ws";
const socket = new SocketIo(`${scheme}://${location.host}/socket`);

// The console offers these under the names that the tutorial uses.
window.socket = socket;
window.rpc = async (...args) => decodeText(await socket.call(...args));
window.long_runing_task = async (timeout) => {
  const c = new AbortController();
  setTimeout(() => c.abort("TimeOut!"), timeout);
  const start = performance.now();
  const output = await rpc("long_runing_task", [], { signal: c.signal });
  const end = performance.now();
  return `${output}: ${Math.round(end - start)}ms`;
};

/** Creates an element. Its text may come from any client, so it is never parsed as HTML. */
function element(tag, className, text = "") {
  const created = document.createElement(tag);
  created.className = className;
  created.textContent = text;
  return created;
}

function milliseconds(duration) {
  return `${duration < 10 ? duration.toFixed(1) : Math.round(duration)} ms`;
}

/** Shows the outcome of a card's action and how long it took. `tone` is good, warn, bad or none. */
function showResult(card, tone, text, took) {
  const result = $(`${card}-result`);
  result.textContent = result.title = text;
  result.dataset.tone = tone;
  $(`${card}-time`).textContent = took === undefined ? "" : milliseconds(took);
}

/** Describes an error in words. The reason of an abort is the value that the page aborted with. */
function describe(error) {
  if (error instanceof RoomcastError) return `${error.code}: ${error.message}`;
  return error instanceof Error ? error.message : String(error);
}

function appendLine(list, line) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
  list.append(line);
  while (list.childElementCount > MAX_LINES_SHOWN) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function onSubmit(form, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    action(event);
  });
}

// Connection

const STATE_NAMES = { connecting: "Connecting", open: "Connected", closed: "Disconnected" };

function showConnection({ state, code, reason }) {
  const open = state === "open";
  document.body.dataset.state = state;
  $("connection-state").textContent = STATE_NAMES[state];
  $("connection-detail").textContent = state === "closed" ? [code, reason].filter(Boolean).join(" ") : location.host;
  $("connect").textContent = state === "closed" ? "Connect" : "Disconnect";
  for (const id of ["tools", "chat-tools", "chat-text", "chat-send"]) $(id).disabled = !open;
  if (!open) return;
  for (const listen of [onPong, onMessage]) listen().catch(console.error);
  for (const room of rooms.values()) enterRoom(room);
}

async function connect() {
  const connecting = socket.connect();
  showConnection(socket.status());
  // `onstatus` shows how it failed.
  await connecting.catch(() => {});
}

socket.onstatus = showConnection;
$("connect").addEventListener("click", () => (socket.status().state === "closed" ? connect() : socket.close()));

// Ping

const pingsSent = []; // { text, at }, in the order of sending, which is the order of the pongs
const roundTrips = [];

onSubmit($("ping-form"), () => {
  const text = $("ping-text").value;
  pingsSent.push({ text, at: performance.now() });
  socket.notify("ping", text);
});

async function onPong() {
  pingsSent.length = 0;
  for await (const msg of socket.on("pong")) {
    const text = decodeText(msg);
    console.log("[Pong]", text);
    const sent = pingsSent[0]?.text === text ? pingsSent.shift() : undefined; // A ping from the console has no time.
    const took = sent && performance.now() - sent.at;
    showResult("ping", "good", text || "(empty)", took);
    if (took !== undefined) showRoundTrip(took);
  }
}

function showRoundTrip(took) {
  roundTrips.push(took);
  if (roundTrips.length > MAX_ROUND_TRIPS_SHOWN) roundTrips.shift();
  const longest = Math.max(...roundTrips);
  const bars = roundTrips.map((duration, index) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = 2 + (16 * duration) / longest;
    const box = { x: index * 4, y: 18 - height, width: 2.4, height, rx: 1 };
    for (const [name, value] of Object.entries(box)) bar.setAttribute(name, value);
    return bar;
  });
  $("round-trips").setAttribute("viewBox", `0 0 ${MAX_ROUND_TRIPS_SHOWN * 4} 18`);
  $("round-trips").replaceChildren(...bars);
}

// Call

onSubmit($("call-form"), async ({ submitter }) => {
  const method = submitter?.value ?? "uppercase";
  const start = performance.now();
  const [tone, text] = await rpc(method, method === "myip" ? [] : $("call-text").value).then(
    (answer) => ["good", answer || "(empty)"],
    (error) => ["bad", describe(error)],
  );
  showResult("call", tone, text, performance.now() - start);
});

// Cancel

let taskController;

$("task-timeout").addEventListener("input", () => {
  $("task-timeout-text").textContent = `${$("task-timeout").value} ms`;
});
$("task-cancel").addEventListener("click", () => taskController.abort("Cancelled manually"));

onSubmit($("task-form"), async () => {
  const controller = (taskController = new AbortController());
  const { signal } = controller;
  const timer = setTimeout(() => controller.abort("TimeOut!"), $("task-timeout").valueAsNumber);
  const start = performance.now();
  const elapsed = () => performance.now() - start;
  const stopProgress = showTaskProgress(elapsed);
  showResult("task", "", "Running");
  const [tone, text] = await rpc("long_runing_task", [], { signal }).then(
    (answer) => ["good", answer],
    (error) => [signal.aborted ? "warn" : "bad", describe(error)],
  );
  clearTimeout(timer);
  stopProgress(tone);
  showResult("task", tone, text, elapsed());
});

function showTaskProgress(elapsed) {
  const progress = $("task-progress");
  let animation;
  const step = () => {
    progress.value = elapsed();
    animation = requestAnimationFrame(step);
  };
  const setRunning = (running) => {
    $("task-run").disabled = running;
    $("task-cancel").disabled = !running;
  };
  progress.dataset.tone = "";
  setRunning(true);
  step();
  return (tone) => {
    cancelAnimationFrame(animation);
    progress.value = elapsed();
    progress.dataset.tone = tone;
    setRunning(false);
  };
}

// Broadcast

onSubmit($("broadcast-form"), () => {
  socket.notify("broadcast", $("broadcast-text").value);
  $("broadcast-text").value = "";
});

async function onMessage() {
  for await (const msg of socket.on("message")) {
    const text = decodeText(msg);
    console.log("[Message]", text);
    appendLine($("messages"), element("li", "", text || "(empty)"));
  }
}

// Rooms. A notification does not contain the name of its room, so the name of the event does.

/** @type {Map<string, { name: string, chip: HTMLElement, log: HTMLElement }>} */
const rooms = new Map();
let activeRoom;
const myTab = Math.random().toString(36).slice(2);
const chatEvent = (room) => `chat.${room.name}`;
const pick = (words) => words[Math.floor(Math.random() * words.length)];
$("my-name").value = `${pick(["Amber", "Coral", "Indigo", "Jade", "Olive", "Silver"])} ${pick(["Crane", "Finch", "Heron", "Lark", "Otter", "Wren"])}`;

function showRoomError(error) {
  $("room-error").textContent = error ? describe(error) : "";
  $("room-error").hidden = !error;
}

/** Runs an action of the rooms panel, and shows the error there if it fails. */
async function attempt(action) {
  showRoomError(undefined);
  try {
    await action();
  } catch (error) {
    showRoomError(error);
  }
}

const tellRoom = (room, message) =>
  socket.publish(room.name, chatEvent(room), JSON.stringify({ tab: myTab, from: $("my-name").value || "Somebody", ...message }));

onSubmit($("join-form"), () => {
  const name = $("room-name").value.trim();
  if (rooms.has(name)) return showRoom(rooms.get(name));
  return enterRoom({ name, log: element("ol", "log"), chip: element("span", "chip") });
});

async function enterRoom(room) {
  await attempt(async () => {
    await socket.join(room.name);
    if (!rooms.has(room.name)) addRoom(room);
    if (rooms.get(room.name) !== room) return; // The user joined the room twice.
    onChat(room).catch(console.error);
    await tellRoom(room, { kind: "joined" });
  });
}

function addRoom(room) {
  rooms.set(room.name, room);
  room.log.setAttribute("role", "log");
  room.log.setAttribute("aria-label", `Chat in ${room.name}`);
  room.log.tabIndex = 0;
  const open = element("button", "chip-name", room.name);
  open.type = "button";
  open.addEventListener("click", () => showRoom(room));
  const leave = element("button", "chip-leave", "×");
  leave.type = "button";
  leave.setAttribute("aria-label", `Leave ${room.name}`);
  leave.addEventListener("click", () => leaveRoom(room));
  room.chip.append(open, leave);
  $("room-chips").append(room.chip);
  $("logs").append(room.log);
  showRoom(room);
}

async function leaveRoom(room) {
  await attempt(async () => {
    await tellRoom(room, { kind: "left" });
    await socket.leave(room.name);
    socket.removeEvent(chatEvent(room));
    rooms.delete(room.name);
    room.chip.remove();
    room.log.remove();
    if (activeRoom === room) showRoom([...rooms.values()].at(-1));
  });
}

function showRoom(room) {
  activeRoom = room;
  for (const other of rooms.values()) {
    other.log.hidden = other !== room;
    other.chip.classList.toggle("active", other === room);
    other.chip.firstElementChild.setAttribute("aria-pressed", String(other === room));
  }
  $("no-room").hidden = Boolean(room);
  $("members").hidden = $("chat-form").hidden = !room;
  if (!room) return;
  room.chip.classList.remove("unread");
  room.log.scrollTop = room.log.scrollHeight;
  attempt(showMembers);
}

async function showMembers() {
  const room = activeRoom;
  const { count, members } = JSON.parse(await rpc(`rooms/members/${room.name}`));
  if (room !== activeRoom) return;
  $("member-count").textContent = `${count} ${count === 1 ? "member" : "members"}`;
  const lines = members.map(({ connection, user }) => element("li", "mono", user ? `${user} (${connection})` : connection));
  $("member-list").replaceChildren(...lines);
}

$("members").addEventListener("toggle", () => $("members").open && attempt(showMembers));

async function onChat(room) {
  for await (const msg of socket.on(chatEvent(room))) {
    const message = readChat(msg);
    appendLine(room.log, message.kind === "said" ? chatBubble(message) : element("li", "notice", `${message.from} ${message.kind}`));
    if (room !== activeRoom) room.chip.classList.add("unread");
    else if (message.kind !== "said") attempt(showMembers);
  }
}

/** Any client may publish any event to a room, so events that this page did not send are shown as plain text. */
function readChat(payload) {
  const text = decodeText(payload);
  try {
    const { tab, from, kind, text: said } = JSON.parse(text);
    if (kind === "joined" || kind === "left") return { kind, from: String(from) };
    if (kind === "said") return { kind, from: String(from), text: String(said), mine: tab === myTab };
  } catch {
    // Published by another program.
  }
  return { kind: "said", from: "Somebody", text };
}

function chatBubble({ from, text, mine }) {
  const line = element("li", mine ? "said mine" : "said");
  const hue = [...from].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 6;
  const author = element("span", "author", mine ? "You" : from);
  author.dataset.hue = hue;
  line.append(author, element("p", "bubble", text));
  return line;
}

onSubmit($("chat-form"), () => {
  const text = $("chat-text").value;
  $("chat-text").value = "";
  attempt(() => tellRoom(activeRoom, { kind: "said", text }));
});

// Frames

const ARROWS = { in: "↓", out: "↑" };
const counts = { in: 0, out: 0 };
let paused = false;
let waiting = []; // The page adds rows once per screen refresh, for any number of frames.

socket.onframe = (frame) => {
  counts[frame.direction] += 1;
  if (!paused) waiting.push({ ...frame, time: new Date() });
  if (waiting.length > MAX_FRAMES_SHOWN) waiting.shift();
  if (waiting.length <= 1) requestAnimationFrame(showFrames);
};

function showFrames() {
  const list = $("frames");
  list.prepend(...waiting.map(frameRow).reverse());
  waiting = [];
  while (list.childElementCount > MAX_FRAMES_SHOWN) list.lastElementChild.remove();
  $("frame-counts").textContent = `${counts.out} out · ${counts.in} in`;
}

function frameRow({ direction, kind, id, name, size, payload, time }) {
  const row = element("li", "frame");
  row.dataset.direction = direction;
  row.dataset.kind = kind;
  const arrow = element("span", "arrow", ARROWS[direction]);
  arrow.setAttribute("aria-label", direction);
  arrow.setAttribute("role", "img");
  row.append(
    arrow,
    element("span", "kind", kind),
    element("span", "id", id === undefined ? "" : `#${id}`),
    element("span", "frame-name", name),
    element("span", "size", byteCount(size)),
    element("span", "preview", preview(payload)),
  );
  row.title = time.toLocaleTimeString();
  return row;
}

function byteCount(size) {
  return size < 1024 ? `${size} B` : `${(size / 1024).toFixed(1)} KiB`;
}

/** The start of a payload, as text if it is text, and otherwise as hexadecimal bytes. */
function preview(payload) {
  const start = payload.subarray(0, PREVIEW_BYTES);
  const more = payload.length > PREVIEW_BYTES ? "…" : "";
  try {
    // A streaming decoder accepts an incomplete character at the end.
    const text = new TextDecoder("utf-8", { fatal: true }).decode(start, { stream: true });
    if (!/[\0-\x08\x0e-\x1f\x7f]/.test(text)) return text + more;
  } catch {
    // Not text.
  }
  return [...start.subarray(0, 24)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ") + (payload.length > 24 ? "…" : "");
}

$("frames-pause").addEventListener("click", () => {
  paused = !paused;
  $("frames-pause").setAttribute("aria-pressed", String(paused));
  $("frames-pause").textContent = paused ? "Resume" : "Pause";
});
$("frames-clear").addEventListener("click", () => {
  counts.in = counts.out = 0;
  waiting = [];
  $("frames").replaceChildren();
  showFrames();
});

await connect();
