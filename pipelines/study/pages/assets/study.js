"use strict";
// The study's page: asks the server for the person's position, shows pairs for the declared time, resends answers until stored.
const $ = (id) => document.getElementById(id);
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const frame = () => new Promise((done) => requestAnimationFrame(done));
const GAP_MILLISECONDS = 500; // between two pairs
const REDIRECT_SECONDS = 10;
const LONGEST_PAUSE = 8000; // between two tries, milliseconds
let session = "", about = null, place = null;

class Refusal extends Error {
  constructor(answer) { super(answer.text ?? "The server did not understand the request."); this.code = answer.code; this.after = answer.retry_after; }
}

function notify(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// POST and wait for the answer, repeating it while the network or the server fails: only an answer means that it is stored.
async function post(path, body = {}) {
  for (let pause = 500; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
    try {
      const response = await fetch(path, {
        method: "POST", cache: "no-store", body: JSON.stringify(body),
        headers: {"Content-Type": "application/json", ...(session && {Authorization: `Bearer ${session}`})},
      });
      const answer = await response.json();
      if (response.ok) { notify(""); return answer; }
      if (response.status < 500 && response.status !== 429) throw new Refusal(answer);
      notify(`${answer.text ?? "The server has a problem."} We are trying again; please keep this page open.`);
    } catch (problem) {
      if (problem instanceof Refusal) throw problem;
      notify("The connection was lost. We are trying again; please keep this page open.");
    }
    await wait(pause);
  }
}

function show(id) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
  $("leave").hidden = id === "end" || id === "loading";
  $("progress").hidden = id === "end" || id === "loading" || id === "consent";
  scrollTo(0, 0);
  document.querySelector(`#${id} h1`)?.focus();
}

function count() {
  $("bar").max = place.num_positions;
  $("bar").value = place.position;
  $("count").textContent = `${Math.min(place.position + 1, place.num_positions)} of ${place.num_positions}`;
}

const pressed = (id) => new Promise((done) => $(id).addEventListener("click", done, {once: true}));

async function pause(title, text) {
  $("break-title").textContent = title;
  $("break-text").textContent = text;
  show("break");
  await pressed("continue");
}

// ------------------------------------------------------------------------------------------------ one pair
class Focus {
  constructor() {
    this.viewing = 0; this.answering = 0; this.phase = null; this.away = false;
    const lost = () => { if (!this.away && this.phase) this[this.phase] += 1; this.away = true; };
    addEventListener("blur", lost);
    addEventListener("focus", () => { this.away = document.hidden; });
    document.addEventListener("visibilitychange", () => { if (document.hidden) lost(); else this.away = false; });
  }
  start(phase) {
    if (phase === "viewing") { this.viewing = document.hasFocus() ? 0 : 1; this.answering = 0; }
    this.phase = phase;
  }
}
const focus = new Focus();

async function load(images) {
  const loaded = await Promise.all(Object.entries(images).map(async ([where, address]) => {
    const image = new Image();
    image.alt = {first: "image 1", second: "image 2", input: "low-resolution image"}[where];
    image.draggable = false;
    image.src = address;
    await image.decode();
    return [where, image];
  }));
  for (const [where, image] of loaded) document.querySelector(`[data-place=${where}] .frame`).replaceChildren(image);
}

const clear = () => { for (const box of document.querySelectorAll("#pair .frame")) box.replaceChildren(); };

// Visible from one frame's time stamp until the viewing time has passed, to the nearest frame.
async function expose(seconds) {
  while (document.hidden) await wait(100);
  const stamps = [];
  for (let index = 0; index < 4; index += 1) stamps.push(await frame());
  const half = (stamps[3] - stamps[0]) / 6;
  const start = await frame();
  $("pair").classList.add("shown");
  let now = start;
  while (now - start < 1000 * seconds - half) now = await frame();
  $("pair").classList.remove("shown");
  clear();
  return {seconds: (now - start) / 1000, hidden: performance.now()};
}

function choose() {
  const buttons = [...document.querySelectorAll(".choice")];
  for (const button of buttons) button.disabled = false;
  return new Promise((done) => {
    const controller = new AbortController(), {signal} = controller;
    const finish = (choice) => {
      controller.abort();
      for (const button of buttons) button.disabled = true;
      done(choice);
    };
    for (const button of buttons) button.addEventListener("click", () => finish(button.dataset.place), {signal});
    document.addEventListener("keydown", (event) => {
      if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || $("confirm").open) return;
      const keys = {1: "first", 2: "second", ArrowLeft: "first", ArrowRight: "second", ArrowUp: "first", ArrowDown: "second"};
      if (keys[event.key]) { event.preventDefault(); finish(keys[event.key]); }
    }, {signal});
  });
}

async function send(body) {
  for (;;) {
    try { return await post("api/answer", body); } catch (refusal) {
      if (refusal.code === "early") { await wait(1000 * refusal.after + 20); continue; }
      if (refusal.code === "expired") { await pause("Welcome back", refusal.message); return place; }
      if (refusal.code === "answered") return {position: place.position + 1}; // by the first attempt, whose acknowledgement was lost, or in another tab
      throw refusal;
    }
  }
}

async function pair(shown) {
  clear();
  $("practice").classList.toggle("unseen", !shown.practice);
  $("say").textContent = "Look at the images…";
  if ($("trial").hidden) show("trial");
  try { await load(shown.images); } catch { notify("An image did not load. We are trying again."); await wait(1000); return shown; }
  notify("");
  await wait(GAP_MILLISECONDS);
  focus.start("viewing");
  const exposure = await expose(shown.viewing_seconds);
  focus.start("answering");
  $("say").textContent = "Image 1 or image 2?";
  const choice = await choose();
  const answered = performance.now();
  $("say").textContent = "";
  focus.start(null);
  return send({
    token: shown.token, choice, exposure_seconds: exposure.seconds, response_seconds: (answered - exposure.hidden) / 1000,
    focus_lost_viewing: focus.viewing, focus_lost_answering: focus.answering,
  });
}

// ------------------------------------------------------------------------------------------------ the whole visit
function describe() {
  const longest = Math.max(...about.viewing_seconds), several = about.viewing_seconds.length > 1;
  const time = `${several ? "for up to" : "for"} ${several || longest !== 1 ? `${longest} seconds` : "one second"}`;
  $("what-is-shown").textContent = `You see two images ${time}${about.task === 1 ? ", and between them a low-resolution image" : ""}.`;
  const pairs = (number) => `${number} ${number === 1 ? "pair" : "pairs"}`;
  $("how-many").textContent = `${about.num_practice_trials ? `First ${pairs(about.num_practice_trials)} for practice, then ` : "There are "}`
    + `${pairs(about.num_trials)}. Some of them are easy: they show us that you are still paying attention.`;
  for (const element of document.querySelectorAll(".question")) element.textContent = about.question;
  $("pair").classList.toggle("with-input", about.task === 1);
  document.querySelector("#pair figure").hidden = about.task !== 1;
  const duration = `Taking part takes about ${about.minutes === 1 ? "one minute" : `${about.minutes} minutes`}.`;
  $("consent-text").replaceChildren(...[...about.consent, duration, about.contact && `Questions: ${about.contact}`].filter(Boolean).map((text) => {
    const paragraph = document.createElement("p");
    paragraph.textContent = text;
    return paragraph;
  }));
  $("end-contact").textContent = about.contact && `Questions: ${about.contact}`;
}

async function finish() {
  const done = place.state === "done";
  $("end-title").textContent = done ? "Thank you!" : "You have left the study";
  $("end-text").textContent = done ? "That was the last pair; all your answers are stored." : "Your answers were deleted. You can close this page.";
  $("completion").hidden = !done;
  if (done) {
    $("code").textContent = place.code;
    if (place.redirect) { $("redirect").href = place.redirect; $("redirect").hidden = false; }
  }
  show("end");
  if (!done || !place.redirect) return;
  for (let left = REDIRECT_SECONDS; left > 0; left -= 1) {
    if (left === REDIRECT_SECONDS) $("countdown").textContent = `You will be redirected in ${left} seconds.`;
    await wait(1000);
  }
  location.assign(place.redirect);
}

async function enter() {
  const address = new URL(location.href);
  const answer = await post("api/enter", {parameters: Object.fromEntries(address.searchParams)});
  ({session, about} = answer);
  if (!answer.known) { // so that a reload finds the person again, without a cookie
    address.searchParams.set(about.participant_parameters.at(-1), answer.participant);
    history.replaceState(null, "", address);
  }
  return answer;
}

async function visit() {
  place = await enter();
  describe();
  const returning = place.position > 0;
  if (place.state === "entered") {
    show("consent");
    await pressed("start");
    place = await post("api/consent");
  }
  if (place.state === "active" && returning) { count(); await pause("Welcome back", "You continue where you were."); }
  else if (place.state === "active") { count(); show("instructions"); await pressed("go"); }
  let practising = place.position < about.num_practice_trials;
  while (place.state === "active") {
    if (practising && place.position >= about.num_practice_trials) {
      practising = false;
      await pause("That was the practice", "From now on every pair counts.");
    }
    place = await post("api/next");
    if (place.state !== "active") break;
    count();
    place = {...place, position: (await pair(place)).position};
  }
  await finish();
}

function fail(problem) {
  notify("");
  $("end-title").textContent = {full: "No place is free", participant: "This address is not valid"}[problem.code] ?? "Something went wrong";
  $("end-text").textContent = problem instanceof Refusal ? problem.message : "Please open the study's link again; you will continue where you were.";
  show("end");
  if (!(problem instanceof Refusal)) throw problem;
}

$("agree").addEventListener("change", () => { $("start").disabled = !$("agree").checked; });
$("leave").addEventListener("click", () => $("confirm").showModal());
$("stay").addEventListener("click", () => $("confirm").close());
$("really").addEventListener("click", async () => {
  $("confirm").close();
  place = await post("api/leave");
  location.reload();
});
document.addEventListener("contextmenu", (event) => { if (event.target.closest("#pair")) event.preventDefault(); });
visit().catch(fail);
