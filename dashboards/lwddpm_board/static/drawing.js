// Asking for a drawing and waiting for it.

import { ask } from "./board.js";

const EVERY_MS = 500;
export const stages = { starting: "starting", drawing: "drawing", comparing: "looking for the nearest training slices" };

/** Start a drawing and call onNews with its state until it has ended; returns the last state. */
export async function draw(wanted, onNews, address = "/api/drawings") {
  let drawing = await ask(address, wanted);
  for (;;) {
    onNews(drawing);
    if (drawing.state !== "running") return drawing;
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    drawing = await ask(`/api/drawings/${drawing.id}`);
  }
}

/** Of a form's values those that were filled in: what is left empty is as the preset has it. */
export const filled = (form, values) =>
  Object.fromEntries(Object.entries(values).filter(([name]) => form.elements[name].value !== ""));

export const cancel = (id) => ask(`/api/drawings/${id}/cancel`, {});
