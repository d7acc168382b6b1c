// One run, followed while it trains.

import { ask, number } from "./board.js";
import { lines } from "./charts.js";
import { filmstrip } from "./filmstrip.js";

const EVERY_MS = 5000;
const page = document.querySelector("[data-run]");
const chart = (name) => page.querySelector(`[data-chart="${name}"]`);
const heard = page.querySelector("[data-heard]");

function draw(run) {
  const curves = Object.entries(run.curves);
  const isLoss = (name) => name.endsWith("/loss") || name.includes("loss_") || name.includes("_loss");
  const looks = ["a", "b", "c", "d"];
  const label = { "train/loss": "training", "val/loss": "validation" };
  const losses = curves.filter(([name]) => isLoss(name));
  lines(chart("loss"), losses.map(([name, points], index) => ({ name: label[name] ?? name, points, look: looks[index % 4] })), { mayBeLog: true });
  lines(chart("throughput"), curves.filter(([name]) => name === "train/images_per_s").map(([, points]) => ({ name: "images/s", points, look: "c" })));
  const others = curves.filter(([name]) => !isLoss(name) && name !== "train/images_per_s");
  page.querySelector("[data-more]").hidden = others.length === 0;
  const more = chart("more");
  for (const [name, points] of others) {
    let place = [...more.children].find((child) => child.dataset.curve === name);
    if (!place) {
      place = document.createElement("div");
      place.dataset.curve = name;
      const title = document.createElement("h3");
      title.textContent = name.replace("train/", "").replaceAll("_", " ");
      const inner = document.createElement("div");
      place.append(title, inner);
      more.append(place);
    }
    lines(place.lastChild, [{ name: name.replace("train/", ""), points, look: "d" }], { height: 170 });
  }
  page.querySelector("[data-samples]").hidden = run.samples.length === 0;
  if (run.samples.length) filmstrip(page.querySelector("[data-filmstrip]"), run.samples);
  for (const place of page.querySelectorAll("[data-latest]")) {
    const name = place.dataset.latest;
    place.textContent = number(name === "step" ? run.step : run.latest[name]);
  }
  const progress = page.querySelector("[data-progress]");
  progress.hidden = run.status !== "RUNNING" || run.progress === null;
  if (run.progress !== null) progress.value = run.progress;
  const badge = document.querySelector("[data-status] .badge");
  badge.textContent = run.status.toLowerCase();
  badge.className = `badge ${run.status.toLowerCase()}`;
}

async function follow() {
  try {
    const run = await ask(`/api/runs/${page.dataset.run}`);
    heard.hidden = true;
    draw(run);
    if (run.status === "RUNNING") setTimeout(follow, EVERY_MS);
    else location.reload(); // it has ended: evaluation, figures and files are there now
  } catch (error) {
    heard.hidden = false;
    heard.textContent = `No news: ${error.message}. Asking again.`;
    setTimeout(follow, EVERY_MS);
  }
}

const first = JSON.parse(page.dataset.live);
draw(first);
if (first.status === "RUNNING") setTimeout(follow, EVERY_MS);
