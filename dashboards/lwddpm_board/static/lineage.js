// Looking a subject, a file or a picture up. What is typed goes into a request's body: names of people are in no address.

import { ask, onSend } from "./board.js";
import { inBase64 } from "./upload.js";

const form = document.querySelector("[data-lineage]");
const [found, state] = ["found", "state"].map((name) => document.querySelector(`[data-${name}]`));
const { subject, file, picture } = form.elements;

onSend(form, async () => {
  const wanted = { subject: subject.value.trim(), file: file.value.trim() };
  if (picture.files.length) wanted.picture = await inBase64(picture.files[0]);
  found.replaceChildren();
  state.textContent = "Looking through all datasets …";
  try {
    found.innerHTML = (await ask("/api/lineage", wanted)).html; // from a template of ours, which escapes every value
    state.textContent = "";
  } catch (error) {
    state.textContent = "";
    throw error;
  }
});

/** Take a picture that was dropped or pasted, in place of what was typed. */
function take(files) {
  if (!files.length) return;
  subject.value = file.value = "";
  const list = new DataTransfer();
  list.items.add(files[0]);
  picture.files = list.files;
  form.requestSubmit();
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); take([...event.dataTransfer.files]); });
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) { event.preventDefault(); take([...event.clipboardData.files]); } });
for (const [field, others] of [[subject, [file, picture]], [file, [subject, picture]], [picture, [subject, file]]])
  field.addEventListener("input", () => { for (const other of others) other.value = ""; });

const named = new URLSearchParams(location.hash.slice(1)).get("subject"); // a link from a dataset's page; not sent
if (named) { subject.value = named; form.requestSubmit(); }
