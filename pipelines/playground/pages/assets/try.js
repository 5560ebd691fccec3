"use strict";
// The page of `sr3 try`: sends a picture, watches it being enlarged, and compares the samples with interpolation.
const $ = (id) => document.getElementById(id);
const STEPS = [1, 4, 10, 25, 50, 100, 250];
const PAUSE = 400; // ms between two looks at the progress
let picture = null; // the chosen file
let current = null; // the status of what was sent last
let shown = 0;      // number of the sample that is compared

function tell(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Does sr3 try still run?");
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.text ?? "The server refused these numbers.");
  return content;
}

function choose(file) {
  if (!file) return;
  picture = file;
  $("dropped").textContent = `${file.name} (${Math.ceil(file.size / 1000)} kB)`;
  $("start").disabled = false;
  tell("");
}

function clock(seconds) {
  const whole = Math.ceil(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function say() {
  const {state, before, fraction, seconds_left: left, finished, seeds} = current;
  const many = seeds.length > 1 ? `, ${finished} of ${seeds.length} samples` : "";
  $("bar").value = fraction;
  if (state === "waiting") $("said").textContent = `waiting for ${before} other ${before === 1 ? "picture" : "pictures"}`;
  else $("said").textContent = left === null ? "beginning" : `${clock(left)} left${many}`;
}

async function send(event) {
  event.preventDefault();
  const values = {seed: $("seed").value, samples: $("samples").value};
  if ($("schedule").value) values.schedule = $("schedule").value;
  tell("");
  $("start").disabled = true;
  $("result").hidden = true;
  try {
    current = await ask(`api/pictures?${new URLSearchParams(values)}`, {method: "POST", body: picture});
    $("working").hidden = false;
    await watch();
  } catch (problem) {
    tell(problem.message);
  }
  $("working").hidden = true;
  $("start").disabled = false;
}

async function watch() {
  let drawn = 0;
  while (true) {
    say();
    if (current.finished > drawn) {
      if (!drawn) begin();
      for (; drawn < current.finished; drawn++) add(drawn);
    }
    if (current.state === "failed") throw new Error(`The model failed: ${current.error}`);
    if (current.state === "cancelled" || current.state === "done") return;
    await new Promise((wake) => setTimeout(wake, PAUSE));
    current = await ask(`api/pictures/${current.id}`);
  }
}

const source = (number) => `api/pictures/${current.id}/${number}.png`;

function begin() {
  $("all").replaceChildren();
  $("before").src = `api/pictures/${current.id}/interpolated.png`;
  $("size").textContent = [`${current.width} x ${current.height}`, ...current.notes].join("; ");
  $("result").hidden = false;
  compare(0);
}

function compare(number) {
  shown = number;
  $("after").src = source(number);
  $("download").href = source(number);
  $("download").download = `${picture.name.replace(/\.[^.]*$/, "")}-seed-${current.seeds[number]}.png`;
  $("which").textContent = `the model, seed ${current.seeds[number]}`;
  for (const [index, button] of [...$("all").children].entries()) button.setAttribute("aria-pressed", index === shown);
}

function add(number) {
  if (current.seeds.length === 1) return; // the comparison shows it
  const button = document.createElement("button"), image = document.createElement("img");
  button.type = "button";
  image.src = source(number);
  image.alt = "";
  button.append(image, `seed ${current.seeds[number]}`);
  button.setAttribute("aria-pressed", number === shown);
  button.addEventListener("click", () => compare(number));
  $("all").append(button);
}

async function start() {
  const model = await ask("api/model");
  const times = `${Number(model.magnification.toFixed(2))} times larger`;
  $("model").textContent = `${model.title}, ${times}, on ${model.device === "cpu" ? "the CPU" : "a GPU"}`;
  $("schedule").options[0].textContent = `the model's own (${model.schedules.join("; ")})`;
  for (const steps of STEPS.filter((steps) => steps <= model.most_steps)) {
    $("schedule").add(new Option(`${steps} ${steps === 1 ? "step" : "steps"}`, steps));
  }
  $("samples").max = model.limits.samples;
}

$("file").addEventListener("change", () => choose($("file").files[0]));
$("controls").addEventListener("submit", send);
$("cancel").addEventListener("click", () => ask(`api/pictures/${current.id}`, {method: "DELETE"}).catch(() => {}));
$("slider").addEventListener("input", () => $("stage").style.setProperty("--at", `${$("slider").value}%`));
$("pixels").addEventListener("change", () => $("stage").classList.toggle("pixels", $("pixels").checked));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files[0]);
  });
}
start().catch((problem) => tell(problem.message));
