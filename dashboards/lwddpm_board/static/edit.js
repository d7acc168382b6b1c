// Painting a region on a slice, and having it drawn anew.

import { ask, element, number, onSend, values } from "./board.js";
import { asked as ofConditions, shown as askedFor } from "./asked.js";
import { cancel, draw, filled, stages } from "./drawing.js";
import { inBase64 } from "./upload.js";

const section = document.querySelector("[data-edit]");
const [choice, painting, list] = ["source", "paint", "edited"].map((name) => section.querySelector(`[data-${name}]`));
const canvas = section.querySelector("[data-canvas]");
const [progress, state] = ["progress", "state"].map((name) => section.querySelector(`[data-edit-${name}]`));
const stop = section.querySelector("[data-cancel]");
const erase = section.querySelector("[data-erase]");
const how = document.querySelector("[data-draw]");
const context = canvas.getContext("2d");
const SHADE = "rgb(240 148 77 / 55%)";
let source = null; // { id, size, image }
let mask = null; // Uint8Array, 1 where to draw anew
let last = null; // where the pointer was
let cursor = null; // where the arrow keys are
let running = null;

const kind = () => {
  const own = choice.elements.dataset.value === "";
  for (const field of choice.querySelectorAll("[data-row]")) field.hidden = own;
  for (const field of choice.querySelectorAll("[data-file]")) field.hidden = !own;
};
choice.elements.dataset.addEventListener("change", kind);
kind();

onSend(choice, async (wanted) => {
  const asked = { model: how.elements.model.value, dataset: wanted.dataset, split: wanted.split, row: wanted.row };
  if (wanted.dataset === "") {
    const file = choice.elements.file.files[0];
    if (!file) throw new Error("choose a file first");
    asked.picture = await inBase64(file);
    asked.crop_background = wanted.crop === "yes";
  }
  const found = await ask("/api/edit-sources", asked);
  const image = new Image();
  image.src = `/edit-sources/${found.id}.png`;
  await image.decode();
  source = { ...found, image };
  mask = new Uint8Array(found.size * found.size);
  canvas.width = canvas.height = found.size;
  cursor = null;
  painting.hidden = false;
  list.replaceChildren();
  show();
  if (found.brought) state.textContent = `Brought ${found.brought}. Nothing is painted yet.`;
});

function show() {
  context.drawImage(source.image, 0, 0);
  context.fillStyle = SHADE;
  mask.forEach((drawn, index) => { if (drawn) context.fillRect(index % source.size, Math.floor(index / source.size), 1, 1); });
  if (cursor) {
    context.fillStyle = "rgb(122 183 255 / 80%)";
    context.fillRect(cursor.x, cursor.y, 1, 1);
  }
  const painted = mask.reduce((sum, drawn) => sum + drawn, 0);
  state.textContent = painted ? `${number(painted)} of ${number(mask.length)} pixels are painted.` : "Nothing is painted yet.";
}

/** Paint (or erase) a square as wide as the brush around a pixel. */
function dab(x, y) {
  const brush = Math.max(1, Number(painting.elements.brush.value));
  const value = erase.getAttribute("aria-pressed") === "true" ? 0 : 1;
  const [left, top] = [x, y].map((place) => Math.round(place - (brush - 1) / 2));
  for (let row = Math.max(0, top); row < Math.min(source.size, top + brush); row += 1)
    for (let column = Math.max(0, left); column < Math.min(source.size, left + brush); column += 1)
      mask[row * source.size + column] = value;
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return { x: Math.floor((event.clientX - box.left) / box.width * source.size), y: Math.floor((event.clientY - box.top) / box.height * source.size) };
}

function stroke(to) {
  const from = last ?? to;
  const steps = Math.max(1, Math.abs(to.x - from.x), Math.abs(to.y - from.y));
  for (let step = 0; step <= steps; step += 1)
    dab(Math.round(from.x + (to.x - from.x) * step / steps), Math.round(from.y + (to.y - from.y) * step / steps));
  last = to;
  show();
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  cursor = null;
  last = null;
  stroke(place(event));
});
canvas.addEventListener("pointermove", (event) => { if (last) stroke(place(event)); });
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { last = null; });
canvas.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (!(event.key in moves) && event.key !== " ") return;
  event.preventDefault();
  cursor ??= { x: source.size >> 1, y: source.size >> 1 };
  const [x, y] = moves[event.key] ?? [0, 0];
  cursor = { x: Math.min(source.size - 1, Math.max(0, cursor.x + x)), y: Math.min(source.size - 1, Math.max(0, cursor.y + y)) };
  if (event.key === " ") dab(cursor.x, cursor.y);
  show();
});
erase.addEventListener("click", () => erase.setAttribute("aria-pressed", String(erase.getAttribute("aria-pressed") !== "true")));
section.querySelector("[data-clear]").addEventListener("click", () => { mask.fill(0); show(); });
stop.addEventListener("click", () => { if (running) cancel(running); });

let varies = false; // which of the two buttons was pressed
painting.addEventListener("submit", (event) => { varies = event.submitter?.value === "vary" || document.activeElement === painting.elements.strength; }, true);

onSend(painting, async (wanted) => {
  list.replaceChildren();
  stop.hidden = false;
  progress.hidden = false;
  progress.removeAttribute("value");
  const asked = { ...filled(how, values(how)), ...ofConditions(), count: wanted.results, nearest: false, source: source.id, ...(varies ? { strength: wanted.strength } : { mask: mask.join("") }) };
  try {
    const drawing = await draw(asked, (news) => {
      running = news.id;
      if (news.stage !== "starting") progress.value = news.done / Math.max(1, news.total);
      state.textContent = `${stages[news.stage]}: ${news.done} of ${news.total}, ${number(Math.round(news.seconds))} s`;
    }, "/api/edits");
    state.textContent = "";
    if (drawing.state === "failed") throw new Error(drawing.note);
    if (drawing.state === "cancelled") { state.textContent = "Cancelled."; return; }
    state.textContent = `${drawing.total} results in ${number(drawing.seconds)} s: ${drawing.how}. The files say that they are edited.`;
    const shown = [[`/edit-sources/${asked.source}.png`, "source"]];
    for (let index = 0; index < drawing.total; index += 1) shown.push([`/drawings/${drawing.id}/${index}.png`, [`result ${index}`, askedFor(drawing.asked?.[index])].filter(Boolean).join(", ")]);
    list.replaceChildren(...shown.map(([address, name]) =>
      element("li", {}, element("figure", {}, element("img", { src: address, alt: name }), element("figcaption", {}, name)))));
  } finally {
    stop.hidden = true;
    progress.hidden = true;
    running = null;
  }
});
