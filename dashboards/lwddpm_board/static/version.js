// Promoting a version.

import { ask, onSend } from "./board.js";

const form = document.querySelector("[data-promote]");
const kept = "lwddpm-name";
try { form.elements.by.value = localStorage.getItem(kept) || form.elements.by.value; } catch { /* no storage: the default stands */ }

onSend(form, async ({ alias, reason, by, approver = "" }) => {
  try { localStorage.setItem(kept, by); } catch { /* asked again next time */ }
  await ask("/api/registry/promote", { name: form.dataset.name, version: Number(form.dataset.version), alias, reason, by, approver });
  location.reload();
});
