// The same seeds drawn by two versions: class by class where both know classes, else as they come.

import { ask, element, number, onSend } from "./board.js";
import { words } from "./asked.js";
import { cancel, draw, stages } from "./drawing.js";

const form = document.querySelector("[data-draw-both]");
const [progress, state, why, halves, byClass] = ["progress", "state", "why", "halves", "classes"].map((name) => document.querySelector(`[data-${name}]`));
const [choice, all, each] = ["choice", "all", "each"].map((name) => form.querySelector(`[data-${name}]`));
const rows = byClass.querySelector("tbody");
const stop = form.querySelector("[data-cancel]");
const models = [...form.querySelectorAll("[name=model]")].map((field) => field.value);
let running = null;
let known = { condition: null, classes: [] }; // what both can be asked for

stop.addEventListener("click", () => { if (running) cancel(running); });

const asksForClasses = () => known.classes.length > 0 && form.elements.by.value === "class";

function arrange() {
  choice.hidden = known.classes.length === 0;
  all.hidden = halves.hidden = asksForClasses();
  each.hidden = byClass.hidden = !asksForClasses();
  for (const label of [all, each]) label.querySelector("input").disabled = label.hidden; // else it is checked, unseen
}
form.elements.by.addEventListener("change", arrange);

function empty() {
  for (const list of document.querySelectorAll("[data-drawn]")) list.replaceChildren();
  rows.replaceChildren(...known.classes.map((name) => element("tr", {}, element("th", { scope: "row" }, words(name)),
    ...models.map((_, side) => element("td", {}, element("ol", { class: "slices", "data-of": name, "data-side": side }))))));
}

function slice(drawing, index, of, seed) {
  return element("li", {}, element("img", { src: `/drawings/${drawing.id}/${index}.png`, alt: of ? `Slice ${index} of seed ${seed}, asked for ${words(of)}` : `Slice ${index} of seed ${seed}` }));
}

function place(drawing, side, seed) {
  if (!asksForClasses()) {
    document.querySelector(`[data-drawn="${side}"]`).replaceChildren(...Array.from({ length: drawing.total }, (_, index) => slice(drawing, index, null, seed)));
    return;
  }
  for (const list of rows.querySelectorAll(`[data-side="${side}"]`)) {
    list.replaceChildren(...drawing.asked.flatMap((asked, index) => (asked[known.condition] === list.dataset.of ? [slice(drawing, index, list.dataset.of, seed)] : [])));
  }
}

onSend(form, async ({ count, each: ofEach, steps, seed }) => {
  const wanted = asksForClasses()
    ? { count: ofEach * known.classes.length, conditions: { [known.condition]: Object.fromEntries(known.classes.map((name) => [name, 1])) } }
    : { count };
  const fields = [...form.querySelectorAll("input, select")];
  for (const field of fields) field.disabled = true; // what is drawn is what is asked for above it
  stop.hidden = false;
  progress.hidden = false;
  empty();
  const said = [];
  try {
    for (const [side, model] of models.entries()) {
      const drawing = await draw({ model, ...wanted, steps, seed, preset: "plain", nearest: false }, (news) => {
        running = news.id;
        progress.value = (side + news.done / Math.max(1, news.total)) / 2;
        state.textContent = `version ${news.model.version}: ${stages[news.stage]}, ${news.done} of ${news.total}, ${number(Math.round(news.seconds))} s`;
      });
      said.push(drawing.how);
      if (drawing.state === "failed") throw new Error(drawing.note);
      if (drawing.state === "cancelled") { state.textContent = "Cancelled."; return; }
      place(drawing, side, seed);
    }
    state.textContent = `${asksForClasses() ? "In a row slice i of both was asked for the same class and starts" : "Slice i of both starts"} from the same noise: ${[...new Set(said)].join(" and ")}. Every slice is synthetic, and its file says so.`;
  } finally {
    for (const field of fields) field.disabled = false;
    arrange();
    stop.hidden = true;
    progress.hidden = true;
    running = null;
  }
});

known = await ask(`/api/versions/classes?${new URLSearchParams(models.map((model) => ["version", model]))}`).catch(() => known);
form.elements.each.max = Math.max(1, Math.min(16, Math.floor(256 / Math.max(1, known.classes.length))));
why.textContent = known.why ?? "";
why.hidden = !known.why;
empty();
arrange();
form.querySelector("[data-go]").disabled = false;
