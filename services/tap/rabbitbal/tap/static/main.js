// The page: what comes from the tap is kept, and drawn when the browser draws next.

import { Chart, History } from "./charts.js";
import { follow } from "./feed.js";
import { Panels } from "./panels.js";
import { Requests } from "./requests.js";
import { Story } from "./story.js";
import { clock, count, duration, put, rate, took } from "./text.js";

const LATE = 2; // seconds that the tap may be behind before the page says so
const BEHIND = 2000; // messages, more than it takes at a time
const find = id => document.getElementById(id);
const root = document.documentElement;
const history = new History();
const charts = [
  new Chart(find("rate-chart"), find("rate-legend"), history, {
    scale: "linear", series: ["rate", "failed"], filled: ["rate"], show: count,
  }),
  new Chart(find("latency-chart"), find("latency-legend"), history, {
    scale: "log", series: ["p50", "p95", "p99"], show: took,
  }),
];
const panels = new Panels(find("panels"));
const story = new Story(find("story"));
const requests = new Requests({
  list: find("list"), empty: find("empty"), sampled: find("sampled"), filter: find("filter"), status: find("status"), form: find("filters"),
});
const figures = Object.fromEntries([...document.querySelectorAll("[data-figure]")].map(node => [node.dataset.figure, node]));

let newest = null, tap = null, drawing = 0, paused = false, drawn = 0, up = null;

// --- what comes

function receive(snapshot, whole) {
  if (whole || snapshot.tap !== tap) history.clear();
  history.take(snapshot.series);
  requests.take(snapshot.newest, whole);
  newest = snapshot;
  tap = snapshot.tap;
  story.books = Boolean(snapshot.panels.books && !snapshot.panels.books.error);
  drawing ||= requestAnimationFrame(draw);
}

function draw() {
  drawing = 0;
  if (!newest) return;
  if (paused) return note(newest);
  const { recent } = newest;
  figure("rate", [rate(recent.rate), "/s"]);
  ["p50", "p95", "p99"].forEach((name, i) => figure(name, duration(recent.total[i])));
  figure("wait", duration(recent.queue[1]));
  figure("failed", [rate(recent.failed), "/s"]);
  figures.failed.parentElement.parentElement.classList.toggle("bad", recent.failed > 0);
  charts.forEach(chart => chart.draw());
  panels.show(newest);
  note(newest);
  if (++drawn % 20 === 1) charts.forEach(chart => chart.describe());
}

function figure(name, [value, unit]) {
  put(figures[name], value);
  put(figures[name].nextElementSibling, unit);
}

/** What is not as it should be, in one line. */
function note({ lag, connected, bad, panels }) {
  const told = [];
  if (connected === false) told.push("The tap has lost the broker");
  if (lag > LATE) told.push(`The tap lags ${lag.toFixed(1)} s behind`);
  if (panels.queues?.log > BEHIND) told.push(`${count(panels.queues.log)} messages wait for the tap`);
  if (bad) told.push(`${count(bad)} bad messages`);
  put(find("note"), told.join(" · "));
}

function link(state) {
  const changed = up !== state.up;
  up = state.up;
  root.dataset.link = up ? (paused ? "paused" : "live") : "lost";
  if (up) return changed ? put(find("link-text"), paused ? "Paused" : "Live") : undefined;
  const what = newest ? "The figures are from then." : "Nothing has come yet.";
  put(find("link-text"), `Disconnected since ${clock(state.since)}${state.why ? ` (${state.why})` : ""}. ${what} Trying again…`);
}

// --- what people do

function pause(wanted) {
  paused = wanted;
  requests.pause(paused);
  find("pause").setAttribute("aria-pressed", String(paused));
  put(find("pause"), paused ? "Go on" : "Pause");
  if (up) {
    root.dataset.link = paused ? "paused" : "live";
    put(find("link-text"), paused ? `Paused at ${clock(Date.now())}` : "Live");
  }
  drawing ||= requestAnimationFrame(draw);
}

const THEMES = ["auto", "dark", "light"];

function theme(wanted) {
  root.dataset.theme = wanted;
  put(find("theme"), `Theme: ${wanted}`);
  try {
    localStorage.setItem("theme", wanted);
  } catch {
    // A browser that keeps nothing: the choice lasts as long as the page.
  }
  charts.forEach(chart => chart.draw());
}

function remembered() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null;
  }
}

const another = () => theme(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]);
const help = () => (find("keys").open ? find("keys").close() : find("keys").showModal());

find("pause").addEventListener("click", () => pause(!paused));
find("theme").addEventListener("click", another);
find("help").addEventListener("click", help);
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  // A click beside it.
  dialog.addEventListener("click", event => event.target === dialog && dialog.close());
}
find("story").addEventListener("close", () => {
  // Without a step back, a shared address would lead away from the page.
  if (location.hash.startsWith("#request=")) globalThis.history.replaceState(null, "", location.pathname);
  story.follow();
});
addEventListener("hashchange", () => story.follow());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(chart => chart.draw()));

addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input, select, textarea");
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (requests.searching) requests.clear();
    document.activeElement?.blur();
    return;
  }
  if (typing || find("story").open) return;
  const act = { p: () => pause(!paused), t: another, "?": help, "/": () => find("filter").focus() }[event.key];
  if (act && (!find("keys").open || event.key === "?")) {
    event.preventDefault();
    act();
  } else if (["ArrowDown", "ArrowUp"].includes(event.key) && event.target === document.body && !find("keys").open) {
    event.preventDefault();
    requests.move(0);
  }
});

put(find("try"), `curl http://${location.hostname}:8080/whoami`);
theme(THEMES.includes(remembered()) ? remembered() : "auto");
requests.render();
follow(receive, link);
story.follow();
