// Judging the flagged pairs of an audit one by one; how they grow with the number drawn; what its slices teach.

import { ask, element, number } from "./board.js";
import { lines } from "./charts.js";

const growth = document.querySelector("[data-growth]");
lines(growth, JSON.parse(growth.dataset.growth), { unit: "slices drawn", step: "slices drawn:", emptyText: "Nothing was drawn." });

for (const place of document.querySelectorAll("[data-utility]")) {
  lines(place, JSON.parse(place.dataset.utility), { unit: "real slices", step: "real slices:", height: 300 });
}

const section = document.querySelector("[data-pairs]");
const pairs = JSON.parse(section.dataset.pairs);
const tally = document.querySelector("[data-tally]");
const WORDS = { confirmed: "copy", rejected: "no copy", open: "open" };
const LOOKS = { confirmed: "failed", rejected: "finished", open: "" };

const badge = (decision) => element("span", { class: `badge ${LOOKS[decision]}` }, WORDS[decision]);
const count = (decision) => pairs.filter((pair) => pair.decision === decision).length;

function sum() {
  tally.textContent = pairs.length ? `${pairs.length - count("open")} of ${pairs.length}` : "none";
  if (!pairs.length) return;
  const copies = count("confirmed");
  tally.append(" ", element("small", {}, `${number(copies)} cop${copies === 1 ? "y" : "ies"}, ${number(count("rejected"))} not, ${number(count("open"))} open`));
}
sum();
if (section.querySelector("[data-list]")) judge();

function judge() {
  const [drawn, training, place, decided, facts, by, alert, list] =
    ["drawn", "training", "place", "decided", "facts", "by", "error", "list"].map((name) => section.querySelector(`[data-${name}]`));
  const kept = "lwddpm-name";
  try { by.value = localStorage.getItem(kept) || ""; } catch { /* no storage: asked each time */ }
  let at = Math.max(0, pairs.findIndex((pair) => pair.decision === "open"));
  let sending = false;

  const thumbs = pairs.map((pair, index) => {
    const button = element("button", { type: "button", class: "thumb", "aria-label": `Pair ${index + 1}` },
      element("img", { src: pair.drawn, alt: "", loading: "lazy" }), pair.training ? element("img", { src: pair.training, alt: "", loading: "lazy" }) : "");
    button.addEventListener("click", () => { at = index; show(); });
    const said = element("small", {});
    list.append(element("li", {}, button, said));
    return { button, said };
  });

  function show() {
    const pair = pairs[at];
    drawn.src = pair.drawn;
    drawn.alt = `Drawn slice ${pair.index}`;
    training.hidden = !pair.training;
    section.querySelector("[data-no-training]").hidden = Boolean(pair.training);
    if (pair.training) training.src = pair.training;
    training.alt = `Training slice ${pair.source}`;
    place.textContent = `Pair ${at + 1} of ${pairs.length}`;
    decided.replaceChildren(badge(pair.decision), ...(pair.decision === "open" ? [] : [" ", element("small", {}, `by ${pair.by}, ${pair.at.slice(0, 16).replace("T", " ")} UTC`)]));
    const told = { "drawn slice": `number ${pair.index}`, "training slice": pair.source, ...(pair.subject ? { subject: pair.subject } : {}), correlation: pair.correlation, features: pair.features, "flagged by": pair.by_what, "moved onto it": pair.moved };
    facts.replaceChildren(...Object.entries(told).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    thumbs.forEach(({ button, said }, index) => {
      button.setAttribute("aria-current", String(index === at));
      said.replaceChildren(badge(pairs[index].decision));
    });
    section.querySelector('[data-step="-1"]').disabled = at === 0;
    section.querySelector('[data-step="1"]').disabled = at === pairs.length - 1;
    section.querySelector('[data-decide="open"]').disabled = pair.decision === "open";
    sum();
  }

  function go(by) {
    at = Math.min(pairs.length - 1, Math.max(0, at + by));
    show();
  }

  async function decide(decision) {
    const pair = pairs[at];
    if (sending || (decision === "open" && pair.decision === "open")) return;
    alert.hidden = true;
    if (!by.value.trim()) {
      alert.textContent = "Say who you are first: the name is kept with the decision.";
      alert.hidden = false;
      by.focus();
      return;
    }
    sending = true;
    try { localStorage.setItem(kept, by.value.trim()); } catch { /* asked again next time */ }
    try {
      const { name, version, audit } = section.dataset;
      Object.assign(pair, await ask("/api/registry/judge", { name, version: Number(version), audit, index: pair.index, decision, by: by.value.trim() }));
      const next = decision === "open" ? -1 : pairs.findIndex((one, index) => index > at && one.decision === "open");
      if (next >= 0) at = next;
      show();
    } catch (error) {
      alert.textContent = `Not kept: ${error.message}.`;
      alert.hidden = false;
    } finally {
      sending = false;
    }
  }

  for (const button of section.querySelectorAll("[data-decide]")) button.addEventListener("click", () => decide(button.dataset.decide));
  for (const button of section.querySelectorAll("[data-step]")) button.addEventListener("click", () => go(Number(button.dataset.step)));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest("input, select, textarea, .chart")) return;
    const key = event.key.toLowerCase();
    const action = { c: () => decide("confirmed"), r: () => decide("rejected"), u: () => decide("open"), arrowleft: () => go(-1), arrowright: () => go(1) }[key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  show();
}
