// The same seeds drawn by two versions.

import { element, number, onSend } from "./board.js";
import { cancel, draw, stages } from "./drawing.js";

const form = document.querySelector("[data-draw-both]");
const [progress, state] = ["progress", "state"].map((name) => document.querySelector(`[data-${name}]`));
const stop = form.querySelector("[data-cancel]");
const models = [...form.querySelectorAll("[name=model]")].map((field) => field.value);
let running = null;

stop.addEventListener("click", () => { if (running) cancel(running); });

onSend(form, async ({ count, steps, seed }) => {
  stop.hidden = false;
  progress.hidden = false;
  const said = [];
  try {
    for (const [side, model] of models.entries()) {
      const drawing = await draw({ model, count, steps, seed, preset: "plain", nearest: false }, (news) => {
        running = news.id;
        progress.value = (side + news.done / Math.max(1, news.total)) / 2;
        state.textContent = `version ${news.model.version}: ${stages[news.stage]}, ${news.done} of ${news.total}, ${number(Math.round(news.seconds))} s`;
      });
      said.push(drawing.how);
      if (drawing.state === "failed") throw new Error(drawing.note);
      if (drawing.state === "cancelled") { state.textContent = "Cancelled."; return; }
      document.querySelector(`[data-drawn="${side}"]`).replaceChildren(...Array.from({ length: count }, (_, index) =>
        element("li", {}, element("img", { src: `/drawings/${drawing.id}/${index}.png`, alt: `Slice ${index} of seed ${seed}` }))));
    }
    state.textContent = `Slice i of both starts from the same noise: ${[...new Set(said)].join(" and ")}.`;
  } finally {
    stop.hidden = true;
    progress.hidden = true;
    running = null;
  }
});
