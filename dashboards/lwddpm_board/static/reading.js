// Judging slices one by one: a key for each answer, no word about right or wrong before the end.

import { ask } from "./board.js";

const page = document.querySelector("[data-reading]");
const base = page.dataset.reading;
const num = Number(page.dataset.num);
const image = page.querySelector("[data-slice]");
const alert = page.querySelector("[data-error]");
const buttons = [...page.querySelectorAll("[data-answer]")];
const back = page.querySelector("[data-back]");
let answered = Number(page.dataset.answered);
let position = answered;
let since = performance.now();
let sending = false;

const source = (index) => `${base}/${index}.png`;

function show() {
  page.querySelector("[data-place]").textContent = `${position + 1} of ${num}`;
  page.querySelector("[data-progress]").value = answered;
  back.disabled = position === 0;
  image.src = source(position);
  since = performance.now();
}

async function judge(button) {
  if (sending) return;
  sending = true;
  alert.hidden = true;
  for (const button of buttons) button.disabled = true;
  try {
    const news = await ask(`/api${base}`, { position, said: Number(button.dataset.answer), seconds: (performance.now() - since) / 1000 });
    if (news.finished) { location.reload(); return; }
    answered = news.answered;
    position += 1;
    show();
  } catch (error) {
    alert.textContent = `Not kept: ${error.message}. Try again.`;
    alert.hidden = false;
  } finally {
    sending = false;
    for (const button of buttons) button.disabled = false;
  }
}

function goBack() {
  if (position > 0 && !sending) { position -= 1; show(); }
}

for (const button of buttons) button.addEventListener("click", () => judge(button));
back.addEventListener("click", goBack);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  const chosen = buttons.find((button) => button.dataset.key === key);
  if (chosen) judge(chosen);
  else if (key === "b") goBack();
});
show();
