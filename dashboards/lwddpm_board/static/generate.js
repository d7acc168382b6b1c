// Slices on demand, each beside the training slice that it resembles most.

import { ask, element, number, onSend } from "./board.js";
import { asked, counted, fields, shown } from "./asked.js";
import { cancel, draw, filled, stages } from "./drawing.js";
import { gridOf } from "./grid.js";

const form = document.querySelector("[data-draw]");
const [progress, state, list] = ["progress", "state", "drawn"].map((name) => document.querySelector(`[data-${name}]`));
const stop = form.querySelector("[data-cancel]");
let running = null;

stop.addEventListener("click", () => { if (running) cancel(running); });
const told = form.querySelector("[data-told]");
const away = form.querySelector("[data-away]");
const byConditions = form.querySelector("[data-by-conditions]");
let model = { presets: {} }; // what the board says of the model that is chosen
const preset = () => { told.textContent = model.presets[form.elements.preset.value] ?? ""; };
const count = () => {
  const sum = counted();
  form.elements.count.readOnly = sum !== null;
  if (sum !== null) form.elements.count.value = sum;
};
const choose = async () => {
  const chosen = form.elements.model.value;
  const known = form.elements.model.selectedOptions[0]?.dataset.presets.split(" ").filter(Boolean) ?? [];
  form.elements.preset.replaceChildren(...[...known, "plain"].map((name) => element("option", {}, name)));
  form.elements.preset.value = known.includes("evaluated") ? "evaluated" : "plain";
  const [name, number] = [chosen.slice(0, chosen.lastIndexOf("/")), chosen.slice(chosen.lastIndexOf("/") + 1)];
  const found = await ask(`/api/models/${encodeURIComponent(name)}/${number}`).catch((error) => ({ error: error.message, conditions: [], away_from: {}, presets: {} }));
  if (form.elements.model.value !== chosen) return; // another one was chosen meanwhile
  model = found;
  form.classList.toggle("gan", Boolean(found.gan));
  preset();
  if (found.error) told.textContent = found.error;
  const ways = Object.entries(found.away_from);
  form.elements.guidance_from.replaceChildren(element("option", { value: "" }, "of the preset"), ...ways.map(([value, word]) => element("option", { value }, word)));
  away.hidden = byConditions.hidden = ways.length < 2;
  fields(found.conditions, count);
  gridOf(found);
};
form.elements.model.addEventListener("change", choose);
form.elements.preset.addEventListener("change", preset);
choose();
const eta = form.querySelector("[data-eta]");
const only = () => { eta.hidden = !["", "ddim"].includes(form.elements.sampler.value); };
form.elements.sampler.addEventListener("change", only);
only();
const between = form.querySelectorAll("[data-between]");
const guided = () => { for (const field of between) field.hidden = Number(form.elements.guidance.value) <= 1; };
form.elements.guidance.addEventListener("input", guided);
guided();

onSend(form, async (values) => {
  const wanted = { ...filled(form, values), ...asked() };
  list.replaceChildren();
  stop.hidden = false;
  progress.hidden = false;
  progress.removeAttribute("value");
  try {
    const drawing = await draw({ ...wanted, nearest: true }, (news) => {
      running = news.id;
      if (news.stage !== "starting") progress.value = news.done / Math.max(1, news.total);
      state.textContent = `${stages[news.stage]}: ${news.done} of ${news.total}, ${number(Math.round(news.seconds))} s`;
    });
    state.textContent = "";
    if (drawing.state === "failed") throw new Error(drawing.note);
    if (drawing.state === "cancelled") { state.textContent = "Cancelled."; return; }
    state.textContent = `${drawing.total} slices in ${number(drawing.seconds)} s: ${drawing.how}. ${drawing.note || "On the left the synthetic slice, on the right its nearest training slice by SSIM."}`;
    list.replaceChildren(...Array.from({ length: drawing.total }, (_, index) => pair(drawing, index)));
  } finally {
    stop.hidden = true;
    progress.hidden = true;
    running = null;
  }
});

function pair(drawing, index) {
  const made = element("figure", {}, element("img", { src: `/drawings/${drawing.id}/${index}.png`, alt: `Synthetic slice ${index}` }), element("figcaption", {}, "synthetic"));
  const wanted = shown(drawing.asked?.[index]);
  const near = drawing.nearest?.[index];
  if (!near) return element("li", {}, made, wanted ? element("small", {}, wanted) : "");
  const real = element("figure", {},
    element("img", { src: `/datasets/${drawing.dataset}/train/${near.index}.png`, alt: `Nearest training slice, ${near.label}`, class: near.mirrored ? "mirrored" : null, title: near.source }),
    element("figcaption", {}, near.label));
  return element("li", {}, made, real, element("small", {}, wanted ? element("span", { class: "below" }, wanted) : "", `SSIM ${near.ssim.toFixed(3)}${near.mirrored ? ", mirrored" : ""}`));
}
