// A grid of drawings: a row for each class, a column for each strength of guidance towards the classes.

import { element, number, onSend, values } from "./board.js";
import { asked, words } from "./asked.js";
import { cancel, draw, filled, stages } from "./drawing.js";

const MOST_ROWS = 16;
const section = document.querySelector("[data-grid]");
const how = document.querySelector("[data-draw]");
const form = section.querySelector("[data-grid-form]");
const [progress, state, place] = ["progress", "state", "drawn"].map((name) => section.querySelector(`[data-grid-${name}]`));
const stop = form.querySelector("[data-cancel]");
let classes = null;
let byGuide = false; // guidance leads away from a guide, and condition_guidance towards the classes
let running = null;

/** The model that the grid is drawn by: as the board tells of it. */
export function gridOf({ conditions, away_from: ways }) {
  classes = conditions.find((condition) => condition.classes) ?? null;
  byGuide = "guide" in ways && "unconditional" in ways;
  section.hidden = classes === null;
  place.replaceChildren();
  state.textContent = "";
  const columns = form.querySelector("[data-columns]");
  columns.disabled = Object.keys(ways).length === 0;
  columns.value = columns.disabled ? "1" : byGuide ? "1, 3, 5" : "1, 1.5, 2, 3";
  columns.title = columns.disabled ? "this model can be led away from nothing" : "values of guidance from 1 on, up to 6";
}

stop.addEventListener("click", () => { if (running) cancel(running); });

onSend(form, async () => {
  const columns = [...new Set(form.querySelector("[data-columns]").value.split(/[, ]+/).filter(Boolean).map(Number))];
  if (!columns.length || columns.length > 6 || columns.some((guidance) => !(guidance >= 1 && guidance <= 100))) throw new Error("columns: one to six numbers from 1 to 100, such as 1, 1.5, 2, 3");
  const each = Number(form.querySelector("[data-cell]").value);
  const rows = classes.values.slice(0, MOST_ROWS).map((value) => value.name);
  const { conditions } = asked();
  const wanted = { ...filled(how, values(how)), count: rows.length * each, nearest: false, conditions: { ...conditions, [classes.name]: Object.fromEntries(rows.map((name) => [name, 1])) } };
  const weight = byGuide && !wanted.guidance_from?.includes("unconditional") ? "condition_guidance" : "guidance";
  const title = (value) => (weight === "guidance" ? (value === 1 ? "unguided" : `guidance ${value}`) : `of the conditions${value === 1 ? ": none" : ` ${value}`}`);
  const drawn = [];
  stop.hidden = progress.hidden = false;
  progress.value = 0;
  try {
    for (const [column, value] of columns.entries()) {
      const drawing = await draw({ ...wanted, [weight]: value }, (news) => {
        running = news.id;
        progress.value = (column + news.done / Math.max(1, news.total)) / columns.length;
        state.textContent = `${title(value)}: ${stages[news.stage]}, ${news.done} of ${news.total}`;
      });
      if (drawing.state === "failed") throw new Error(drawing.note);
      if (drawing.state === "cancelled") { state.textContent = "Cancelled."; return; }
      drawn.push({ title: title(value), drawing });
      show(rows, drawn);
    }
    const left = classes.values.length - rows.length;
    state.textContent = `${drawn[0].drawing.how.replace(/, guidance.*?(?=, \d)/, "").replace(/, \d+ network calls? a slice/, "")}.${left > 0 ? ` The first ${MOST_ROWS} of ${number(classes.values.length)} classes.` : ""} Every slice is synthetic, and its file says so.`;
  } finally {
    stop.hidden = progress.hidden = true;
    running = null;
  }
});

function show(rows, drawn) {
  const cell = (name, { drawing }) => element("td", {}, element("ol", { class: "slices" }, ...drawing.asked.flatMap((of, index) =>
    (of[classes.name] === name ? [element("li", {}, element("img", { src: `/drawings/${drawing.id}/${index}.png`, alt: `Synthetic slice ${index}, ${words(name)}` }))] : []))));
  const calls = (drawing) => drawing.how.match(/(\d+) network call/)?.[1];
  place.replaceChildren(element("table", { class: "grid" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, classes.name === "label" ? "class" : words(classes.name)), ...drawn.map(({ title, drawing }) =>
      element("th", { scope: "col" }, title, calls(drawing) ? element("small", { class: "below" }, `${calls(drawing)} calls`) : "")))),
    element("tbody", {}, ...rows.map((name) => element("tr", {}, element("th", { scope: "row" }, words(name)), ...drawn.map((one) => cell(name, one)))))));
}
