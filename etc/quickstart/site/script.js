// The buttons of the page: ask /api/whoami and count who answered; talk to /api/ws.
"use strict";

const counts = new Map();
const answer = document.getElementById("answer");
const instances = document.getElementById("instances");
const echo = document.getElementById("echo");

function showCounts() {
  const most = Math.max(...counts.values());
  instances.replaceChildren(...[...counts].sort((a, b) => a[0] - b[0]).map(([pid, count]) => {
    const row = document.createElement("li");
    row.style.setProperty("--share", `${(100 * count) / most}%`);
    const line = row.appendChild(document.createElement("span"));
    line.append(Object.assign(document.createElement("b"), {textContent: `process ${pid}`}),
                `${count} answered`);
    return row;
  }));
}

async function ask(url) {
  const began = performance.now();
  const response = await fetch(url, {cache: "no-store"});
  if (!response.ok) {
    throw new Error(`GET ${url}: ${response.status} ${(await response.text()).trim()}`);
  }
  const body = await response.json();
  counts.set(body.pid, (counts.get(body.pid) ?? 0) + 1);
  showCounts();
  const took = (performance.now() - began).toFixed(1);
  answer.textContent = `GET ${url}   ${took} ms\n${JSON.stringify(body, null, 1)}`;
}

for (const button of document.querySelectorAll("[data-ask]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    const url = button.dataset.slow ? `/api/slow?seconds=${button.dataset.slow}` : "/api/whoami";
    try {
      await Promise.all(Array.from({length: Number(button.dataset.ask)}, () => ask(url)));
    } catch (error) {
      answer.textContent = String(error.message ?? error);
    } finally {
      button.disabled = false;
    }
  });
}

let socket = null;

function say(line) {
  echo.textContent = [...echo.textContent.split("\n").slice(-3), line].join("\n");
}

document.getElementById("chat").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = document.getElementById("message").value;
  if (socket !== null && socket.readyState === WebSocket.OPEN) {
    socket.send(text);
    return;
  }
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/api/ws`);
  socket.onopen = () => { say("open"); socket.send(text); };
  socket.onmessage = (message) => {
    const body = JSON.parse(message.data);
    say(`${body.echo}   (process ${body.pid})`);
  };
  socket.onclose = (close) => say(`closed: ${close.code}`);
});

// The page may be here before the application is: narwhal answers 503 until an instance is READY.
async function firstAnswer() {
  for (let tries = 0; ; tries++) {
    try {
      return await ask("/api/whoami");
    } catch (error) {
      answer.textContent = String(error.message ?? error);
      if (tries === 20) {
        return undefined;
      }
    }
    await new Promise((resume) => setTimeout(resume, 500));
  }
}

firstAnswer();
