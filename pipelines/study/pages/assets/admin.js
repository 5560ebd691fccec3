"use strict";
// The administrator's page: the secret is in the URL after #, a part that is sent to no server or proxy.
const $ = (id) => document.getElementById(id);
const EVERY = 2000; // milliseconds
let secret = decodeURIComponent(location.hash.slice(1));

function row(cells, style) {
  const line = document.createElement("tr");
  line.className = style ?? "";
  cells.forEach((content, index) => {
    const cell = document.createElement(index ? "td" : "th");
    if (!index) cell.scope = "row";
    cell.append(content);
    line.append(cell);
  });
  return line;
}

function bar(done, wanted) {
  const element = document.createElement("progress");
  element.max = wanted; element.value = done;
  element.setAttribute("aria-label", `${done} of ${wanted}`);
  return element;
}

function ago(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

function draw(found) {
  const sum = (key) => found.groups.reduce((total, group) => total + group[key], 0);
  $("state").textContent = `Task ${found.task}: ${sum("done")} of ${sum("wanted")} places done, ${sum("active")} active, ${found.num_answers} answers stored. As of ${new Date().toLocaleTimeString()}.`;
  $("groups").replaceChildren(...found.groups.map((g) => row([g.name, g.done, g.wanted, g.active, g.silent, g.excluded, bar(g.done, g.wanted)])));
  $("people").replaceChildren(...found.participants.map((p) => row([p.id, p.state, `${p.answered} of ${found.num_positions}`, p.failed_checks, p.focus_lost, ago(p.seconds_since)], p.state)));
  $("content").hidden = false;
}

async function look() {
  try {
    const response = await fetch("api/progress", {cache: "no-store", headers: {Authorization: `Bearer ${secret}`}});
    if (response.ok) { $("ask").hidden = true; draw(await response.json()); }
    else { $("state").textContent = (await response.json()).text; $("ask").hidden = response.status !== 401; if (response.status === 401) return; }
  } catch { $("state").textContent = "The server does not answer; trying again."; }
  setTimeout(look, EVERY);
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); secret = $("secret").value; look(); });
if (secret) look(); else { $("ask").hidden = false; $("secret").focus(); }
