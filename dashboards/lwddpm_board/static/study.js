// A search: trials as points, lines and rows; any of them shows what the trial draws.

import { ask, element, number } from "./board.js";
import { lines, parallel, scatter, shares } from "./charts.js";
import { filmstrip } from "./filmstrip.js";

const EVERY_MS = 5000;
const page = document.querySelector("[data-study]");
const chart = (name) => page.querySelector(`[data-chart="${name}"]`);
const [across, up] = [page.querySelector("[data-x]"), page.querySelector("[data-y]")];
const address = `/api/searches/${encodeURIComponent(JSON.parse(page.dataset.study).name)}`;
let study = JSON.parse(page.dataset.study);
let picked = null;
let ranked = -1;

/** Measures that trials can be laid out by: name -> function of a trial. */
function measures() {
  const found = {};
  study.objectives.forEach((objective, index) => { found[objective.name] = (trial) => trial.values?.[index] ?? null; });
  for (const trial of study.trials) for (const name of Object.keys(trial.measured)) found[name] ??= (one) => one.measured[name] ?? null;
  for (const axis of study.axes) if (!axis.choices) found[axis.key] ??= (trial) => trial.params[axis.key] ?? null;
  found["seconds"] = (trial) => trial.seconds;
  found["trial"] = (trial) => trial.number;
  return found;
}

function choices() {
  const names = Object.keys(measures());
  for (const [field, preferred] of [[across, study.objectives[1]?.name ?? "trial"], [up, study.objectives[0].name]]) {
    const before = field.value || preferred;
    field.replaceChildren(...names.map((name) => element("option", { value: name, selected: name === before }, name)));
    field.onchange = draw;
  }
}

const full = () => study.trials.filter((trial) => trial.values !== null && trial.state === "complete");
const says = (trial) => [`trial ${trial.number}`, ...study.objectives.map((objective, index) => `${objective.name} ${number(trial.values?.[index])}`)];

/** Trials that no other beats in both shown measures; where the measures are objectives it is the study's own front. */
function front(points, xName, yName) {
  const sign = (name) => (study.objectives.find((objective) => objective.name === name)?.more_is_better ? -1 : 1);
  const areObjectives = [xName, yName].every((name) => study.objectives.some((objective) => objective.name === name));
  if (!areObjectives || xName === yName) return new Set(study.objectives.length > 1 ? study.front : study.ranking.slice(0, 1));
  const [sx, sy] = [sign(xName), sign(yName)];
  return new Set(points.filter((one) => !points.some((two) => two !== one && sx * two.x <= sx * one.x && sy * two.y <= sy * one.y && (two.x !== one.x || two.y !== one.y))).map((point) => point.id));
}

function draw() {
  const all = measures();
  const [xName, yName] = [across.value, up.value];
  const points = full().map((trial) => ({ id: trial.number, x: all[xName](trial), y: all[yName](trial), text: says(trial) }));
  const best = front(points, xName, yName);
  for (const point of points) Object.assign(point, { front: best.has(point.id), look: best.has(point.id) ? "front-point" : "beaten" });
  scatter(chart("scatter"), points, { xName, yName, onPick: pick, picked, height: innerWidth > 860 ? 430 : 300, emptyText: "No trial has reached the full budget yet." });

  const place = new Map(study.ranking.map((trial, index) => [trial, index]));
  const rows = full().filter((trial) => place.has(trial.number)).map((trial) => ({
    id: trial.number, values: trial.params, shade: place.get(trial.number) / Math.max(1, study.ranking.length - 1), best: place.get(trial.number) === 0, text: says(trial).join(", "),
  }));
  parallel(chart("parallel"), study.axes, rows, { onPick: pick, picked, emptyText: "Two trials at the full budget are needed." });

  const look = (trial) => (trial.number === study.ranking[0] ? "b strong" : trial.state === "complete" ? "a" : "pale");
  curves(look);
  table();
}

function curves(look) {
  const series = study.trials.filter((trial) => trial.curve.length).map((trial) => ({ name: `trial ${trial.number}`, points: trial.curve, look: look(trial), dots: true }));
  series.sort((one, two) => one.look.includes("strong") - two.look.includes("strong") || two.look.includes("pale") - one.look.includes("pale"));
  const entries = [["b", "best"], ["a", "full budget"], ["pale", "ended early"]].map(([look, name]) => ({ look, name }));
  lines(chart("curves"), series, { entries, mayBeLog: true, emptyText: "No trial has been measured yet." });
}

function table() {
  const place = new Map(study.ranking.map((trial, index) => [trial, index]));
  const order = [...study.trials].sort((a, b) => (place.get(a.number) ?? 1e9) - (place.get(b.number) ?? 1e9) || b.step - a.step || a.number - b.number);
  const keys = study.axes.map((axis) => axis.key);
  const head = ["Trial", "State", "Budget", ...study.objectives.map((objective) => objective.name), ...keys.map((key) => key.split(".").at(-1)), "Time"];
  const cell = (value, label, numeric = true) => element("td", { class: numeric ? "num" : null, "data-label": label }, value);
  const list = page.querySelector("[data-trials]");
  list.tHead.replaceChildren(element("tr", {}, ...head.map((name, index) => element("th", { scope: "col", class: index > 1 ? "num" : null }, name))));
  list.tBodies[0].replaceChildren(...order.map((trial) => {
    const button = element("button", { class: "link", type: "button" }, `trial ${trial.number}`);
    button.addEventListener("click", () => pick(trial.number));
    const state = element("td", { "data-label": "State" }, element("span", { class: `badge ${trial.state}` }, trial.state));
    if (trial.reason) state.append(" ", element("small", {}, trial.reason));
    const param = (key) => { const value = trial.params[key]; return value === undefined ? "–" : value === null ? "none" : Array.isArray(value) ? value.join(" ") : typeof value === "number" ? number(value) : String(value); };
    return element("tr", { class: trial.number === picked ? "picked" : null },
      element("th", { scope: "row" }, button), state, cell(`${number(trial.step)}${study.max_steps ? ` / ${number(study.max_steps)}` : ""}`, "Budget"),
      ...study.objectives.map((objective, index) => cell(trial.values ? number(trial.values[index]) : trial.last === null || index > 0 ? "–" : `(${number(trial.last)})`, objective.name)),
      ...keys.map((key) => cell(param(key), key)), cell(trial.seconds ? `${number(Math.round(trial.seconds))} s` : "–", "Time"));
  }));
  for (const count of page.querySelectorAll("[data-count]")) {
    const state = count.dataset.count;
    count.textContent = number(state === "all" ? study.trials.length : study.trials.filter((trial) => trial.state === state).length);
  }
}

async function pick(trialNumber) {
  picked = trialNumber;
  draw();
  const trial = study.trials.find((one) => one.number === trialNumber);
  const panel = page.querySelector("[data-panel]");
  const about = panel.querySelector("[data-about]");
  panel.querySelector("[data-hint]").hidden = true;
  panel.querySelector("[data-shown]").hidden = false;
  about.replaceChildren(element("b", {}, `Trial ${trial.number}`), ` ${trial.state}${trial.values ? `, ${says(trial).slice(1).join(", ")}` : ""}. `);
  if (trial.run_id) about.append(element("a", { href: `/runs/${trial.run_id}` }, "its run"));
  const strip = panel.querySelector("[data-filmstrip]");
  strip.hidden = true;
  if (!trial.run_id) { about.append("It has no run in MLflow."); return; }
  try {
    const { samples } = await ask(`/api/trials/${trial.run_id}/samples`);
    if (picked !== trialNumber) return;
    strip.hidden = samples.length === 0;
    strip.samples = undefined;
    if (samples.length) filmstrip(strip, samples);
    else about.append(". It has drawn no samples.");
  } catch (error) {
    about.append(`. ${error.message}.`);
  }
  if (panel.getBoundingClientRect().top > innerHeight || panel.getBoundingClientRect().bottom < 0) panel.scrollIntoView({ block: "nearest" });
}

async function importance() {
  if (study.ranking.length === ranked) return;
  ranked = study.ranking.length;
  try {
    const found = await ask(`${address}/importance`);
    shares(chart("importance"), found.shares, `At least four different trials at the full budget are needed; there are ${found.num_ranked}.`);
  } catch (error) {
    chart("importance").replaceChildren(element("p", { class: "quiet" }, `${error.message}.`));
  }
}

async function follow() {
  try {
    study = await ask(address);
    choices();
    draw();
    importance();
  } catch { /* the stores are silent for a moment: ask again */ }
  if (study.trials.some((trial) => trial.state === "running")) setTimeout(follow, EVERY_MS);
}

choices();
draw();
importance();
if (study.trials.some((trial) => trial.state === "running")) setTimeout(follow, EVERY_MS);
