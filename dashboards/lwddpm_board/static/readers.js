// Setting a reader study up, and joining one.

import { ask, onSend } from "./board.js";

const setUp = document.querySelector("[data-new-study]");
if (setUp) {
  const { model, drawing } = setUp.elements;
  const fitting = () => {
    for (const option of drawing.options) option.hidden = option.disabled = Boolean(option.dataset.model) && option.dataset.model !== model.value;
    if (drawing.selectedOptions[0]?.disabled) drawing.value = "";
  };
  model.addEventListener("change", fitting);
  fitting();
  onSend(setUp, async (wanted) => { location.href = (await ask("/api/readers", wanted)).url; });
}

const join = document.querySelector("[data-join]");
if (join) onSend(join, async ({ name }) => { location.href = (await ask(`/api/readers/${join.dataset.join}/join`, { name })).url; });
