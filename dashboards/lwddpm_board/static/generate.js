// Slices on demand, each beside the training slice that it resembles most.

import { element, number, onSend } from "./board.js";
import { cancel, draw, filled, stages } from "./drawing.js";

const form = document.querySelector("[data-draw]");
const [progress, state, list] = ["progress", "state", "drawn"].map((name) => document.querySelector(`[data-${name}]`));
const stop = form.querySelector("[data-cancel]");
let running = null;

stop.addEventListener("click", () => { if (running) cancel(running); });
const choose = () => {
  const known = form.elements.model.selectedOptions[0]?.dataset.presets.split(" ").filter(Boolean) ?? [];
  form.elements.preset.replaceChildren(...[...known, "plain"].map((name) => element("option", {}, name)));
  form.elements.preset.value = known.includes("evaluated") ? "evaluated" : "plain";
};
form.elements.model.addEventListener("change", choose);
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
  const wanted = filled(form, values);
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
  const near = drawing.nearest?.[index];
  if (!near) return element("li", {}, made);
  const real = element("figure", {},
    element("img", { src: `/datasets/${drawing.dataset}/train/${near.index}.png`, alt: `Nearest training slice, ${near.label}`, class: near.mirrored ? "mirrored" : null, title: near.source }),
    element("figcaption", {}, near.label));
  return element("li", {}, made, real, element("small", {}, `SSIM ${near.ssim.toFixed(3)}${near.mirrored ? ", mirrored" : ""}`));
}
