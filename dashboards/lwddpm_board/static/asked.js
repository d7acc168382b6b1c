// What a conditional model is asked for: a field for each of its conditions.

import { element, number } from "./board.js";

const place = document.querySelector("[data-asked]");
const [BALANCED, COUNTS, NOTHING] = ["=balanced", "=counts", "=nothing"]; // no class begins with "="
export const words = (name) => String(name).replaceAll("_", " ");

/** Show the fields of a model's conditions; `changed` is called when somebody asks for something else. */
export function fields(conditions, changed) {
  place.hidden = !conditions.length;
  place.replaceChildren(...conditions.map((condition) => (condition.values ? category(condition, changed) : quantity(condition))));
  changed();
}

function category({ name, values, classes }, changed) {
  const choice = element("select", { "data-condition": name },
    element("option", { value: "" }, classes ? "as among the training slices" : "as the training slices of the class"),
    ...(classes ? [element("option", { value: BALANCED }, "all, equally often")] : []),
    element("option", { value: COUNTS }, "so many of each"),
    ...values.map((value) => element("option", { value: value.name }, `${words(value.name)} (${number(value.count)} trained on)`)),
    element("option", { value: NOTHING }, "say nothing of it"));
  const counts = values.map((value) => element("label", { class: "of-each" }, words(value.name), element("input", { type: "number", min: 0, max: 256, value: 4, "data-count": value.name })));
  const box = element("div", { class: "counts", hidden: true }, ...counts);
  const update = () => { box.hidden = choice.value !== COUNTS; changed(); };
  choice.addEventListener("change", update);
  box.addEventListener("input", changed);
  return element("div", { class: "of-condition" }, element("label", {}, name === "label" ? "Class" : words(name), choice), box);
}

function quantity({ name, mean, spread }) {
  return element("div", { class: "of-condition" }, element("label", {}, words(name), element("input", { type: "number", step: "any", "data-condition": name, placeholder: "as in training", title: `on average ${number(mean)}, spread ${number(spread)}` })));
}

const each = (choice) => Object.fromEntries([...choice.closest(".of-condition").querySelectorAll("[data-count]")]
  .map((field) => [field.dataset.count, Number(field.value)]).filter(([, count]) => count > 0));

/** `conditions` and `like` of a request for a drawing. */
export function asked() {
  const conditions = {};
  let like = null;
  for (const field of place.querySelectorAll("[data-condition]")) {
    if (field.value === "") continue;
    if (field.value === BALANCED) like = "balanced";
    else if (field.value === NOTHING) conditions[field.dataset.condition] = null;
    else if (field.value === COUNTS) conditions[field.dataset.condition] = each(field);
    else conditions[field.dataset.condition] = field.type === "number" ? Number(field.value) : field.value;
  }
  return { conditions, like };
}

/** How many slices the counts come to; null where none are given. */
export function counted() {
  const choices = [...place.querySelectorAll("select[data-condition]")].filter((choice) => choice.value === COUNTS);
  return choices.length ? Object.values(each(choices[0])).reduce((sum, count) => sum + count, 0) : null;
}

/** What a slice was asked to show, in words; empty where it was asked for nothing. */
export function shown(of) {
  const values = Object.values(of ?? {}).filter((value) => value !== null).map((value) => (typeof value === "number" ? number(value) : words(value)));
  return values.length ? `asked for ${values.join(", ")}` : "";
}
