// Two runs side by side.

import { lines } from "./charts.js";
import { filmstrip } from "./filmstrip.js";

const page = document.querySelector("[data-compared]");
const both = JSON.parse(page.dataset.compared);

for (const place of page.querySelectorAll("[data-chart]")) {
  lines(place, both.map((run, index) => ({ name: run.name === both[1 - index].name ? `${run.name} (${index + 1})` : run.name, points: run.curves[place.dataset.chart] ?? [], look: ["a", "b"][index] })), { mayBeLog: true });
}
for (const side of page.querySelectorAll("[data-side]")) {
  const strip = side.querySelector("[data-filmstrip]");
  const samples = both[side.dataset.side].samples;
  if (samples.length) filmstrip(strip, samples);
  else strip.replaceWith("No samples were drawn.");
}
