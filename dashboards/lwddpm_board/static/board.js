// What every page needs: requests, forms that answer at once, and the page that waits for MLflow.

export async function ask(url, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(url, options);
  } catch {
    throw new Error("the board does not answer");
  }
  const value = await answer.json().catch(() => ({}));
  if (answer.status === 401) location.reload();
  if (!answer.ok) throw new Error(value.error ?? `the board answered ${answer.status}`);
  return value;
}

/** Values of a form by name; numbers where the field is one. */
export function values(form) {
  return Object.fromEntries([...form.elements].filter((field) => field.name).map((field) =>
    [field.name, field.type === "number" ? Number(field.value) : field.value.trim()]));
}

/** Run an action when a form is sent, and show what went wrong beside it. */
export function onSend(form, action) {
  const place = form.querySelector("[data-error]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    place.hidden = true;
    const buttons = form.querySelectorAll("button:not([type=button])");
    for (const button of buttons) button.disabled = true;
    try {
      await action(values(form));
    } catch (error) {
      place.textContent = error.message;
      place.hidden = false;
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  });
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** A number as the pages write it. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  if (size < 1e-3) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

for (const field of document.querySelectorAll("[data-submit]")) {
  field.addEventListener("change", () => field.form.requestSubmit());
}

for (const form of document.querySelectorAll("[data-pick-two]")) {
  const boxes = [...form.querySelectorAll("input[type=checkbox]")];
  const button = form.querySelector("[data-compare]");
  const note = form.querySelector("[data-picked]");
  const said = note.textContent;
  const update = () => {
    const picked = boxes.filter((box) => box.checked).length;
    button.disabled = picked !== 2;
    note.textContent = picked === 0 ? said : picked === 1 ? "Tick one more." : picked === 2 ? "" : "Two at a time: untick some.";
  };
  form.addEventListener("change", update);
  window.addEventListener("pageshow", update); // boxes that the browser remembers
  update();
}

for (const bar of document.querySelectorAll("[data-interval]")) {
  const [low, value, high] = bar.dataset.interval.split(" ").map(Number);
  const range = element("i");
  range.style.left = `${100 * low}%`;
  range.style.width = `${100 * (high - low)}%`;
  const point = element("b");
  point.style.left = `${100 * value}%`;
  bar.append(range, point);
}

const waiting = document.querySelector("[data-retry]");
if (waiting) {
  let attempts = 0;
  const again = async () => {
    attempts += 1;
    const answer = await fetch("/api/health").catch(() => null);
    if (answer?.ok) location.reload();
    else {
      waiting.querySelector("[data-attempts]").textContent = `Asked ${attempts} time${attempts === 1 ? "" : "s"}.`;
      setTimeout(again, 3000);
    }
  };
  setTimeout(again, 3000);
}
