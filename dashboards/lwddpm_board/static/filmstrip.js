// Sample grids by epoch: one large, a slider, and the row of all of them.

import { element, number } from "./board.js";

/** Fill a filmstrip. samples: [{epoch, url}]; stays at the newest one while it is there, and follows as more come. */
export function filmstrip(place, samples) {
  const [image, caption, slider, strip] = ["frame", "caption", "slider", "strip"].map((name) => place.querySelector(`[data-${name}]`));
  const last = samples.length - 1;
  const follows = place.samples === undefined || Number(slider.value) === place.samples.length - 1;
  const known = place.samples?.map((sample) => sample.url).join() ?? "";
  place.samples = samples;
  if (!samples.length || known === samples.map((sample) => sample.url).join()) return;

  const show = (index) => {
    const sample = samples[index];
    image.src = sample.url;
    image.alt = `Samples at epoch ${number(sample.epoch)}`;
    caption.textContent = `epoch ${number(sample.epoch)}`;
    slider.value = index;
    slider.setAttribute("aria-valuetext", `epoch ${number(sample.epoch)}`);
    [...strip.children].forEach((item, at) => item.firstChild.setAttribute("aria-current", at === index ? "true" : "false"));
  };
  slider.max = last;
  slider.disabled = last < 1;
  slider.oninput = () => show(Number(slider.value));
  strip.replaceChildren(...samples.map((sample, index) => {
    const button = element("button", { type: "button", "aria-label": `Epoch ${number(sample.epoch)}` },
      element("img", { src: sample.url, alt: "", loading: "lazy", width: 56, height: 56 }), element("small", {}, number(sample.epoch)));
    button.addEventListener("click", () => show(index));
    return element("li", {}, button);
  }));
  show(follows ? last : Math.min(Number(slider.value), last));
}
