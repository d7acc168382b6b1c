// Charts as SVG: lines by optimizer step, points of two measures, lines across parallel axes.
// Colours come from the style sheet, so that light and dark are decided in one place.

import { element, number } from "./board.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { top: 10, right: 14, bottom: 38, left: 58 };

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Draw now, and again whenever the width changes. */
function drawn(place, draw) {
  place.redraw?.disconnect();
  let width = 0;
  place.redraw = new ResizeObserver(() => {
    const now = Math.floor(place.clientWidth);
    if (now > 0 && now !== width) {
      width = now;
      draw(now);
    }
  });
  place.redraw.observe(place);
}

/** A scale from values to pixels, with round ticks. */
function scale(low, high, from, to, log = false, most = 6) {
  if (log) {
    const [a, b] = [Math.log10(low), Math.log10(high)];
    const span = b - a || 1;
    const place = (value) => from + ((Math.log10(value) - a) / span) * (to - from);
    return { place, ticks: logTicks(low, high, most) };
  }
  const span = high - low || Math.abs(high) || 1;
  const base = high === low ? low - span / 2 : low;
  const place = (value) => from + ((value - base) / span) * (to - from);
  return { place, ticks: roundTicks(base, base + span, most) };
}

function roundTicks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high * (1 + 1e-9) + 1e-12; tick += 1) ticks.push(Number((tick * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high, most) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of [1, 2, 5]) {
      const tick = factor * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) found.push(tick);
    }
  }
  if (found.length < 2) return [low, high];
  return found.length <= most ? found : found.filter((tick) => /^1(?!\d*[1-9])/.test(tick.toExponential()));
}

const short = (value) => {
  const size = Math.abs(value);
  if (size >= 1e6) return `${number(Number((value / 1e6).toPrecision(3)))}M`;
  if (size >= 1e4) return `${number(Number((value / 1e3).toPrecision(3)))}k`;
  if (size !== 0 && size < 1e-3) return value.toExponential(0);
  return String(Number(value.toPrecision(4)));
};

function frame(place, width, height, label) {
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  place.querySelector("svg")?.remove();
  place.prepend(root);
  return root;
}

function axes(root, width, height, x, y, xLabel, yLabel) {
  const bottom = height - MARGIN.bottom;
  for (const tick of y.ticks) {
    const at = y.place(tick);
    root.append(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }));
    root.append(svg("text", { class: "tick", x: MARGIN.left - 8, y: at + 4, "text-anchor": "end" }, short(tick)));
  }
  for (const tick of x.ticks) {
    const at = x.place(tick);
    root.append(svg("line", { class: "mark", x1: at, x2: at, y1: bottom, y2: bottom + 4 }));
    root.append(svg("text", { class: "tick", x: at, y: bottom + 17, "text-anchor": "middle" }, short(tick)));
  }
  root.append(svg("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }));
  root.append(svg("text", { class: "name", x: width - MARGIN.right, y: height - 4, "text-anchor": "end" }, xLabel));
  if (yLabel) root.append(svg("text", { class: "name", x: MARGIN.left, y: 10 }, yLabel));
}

function legend(place, entries) {
  place.querySelector(".legend")?.remove();
  if (entries.length < 2) return;
  place.append(element("ul", { class: "legend" }, ...entries.map(({ name, look }) => element("li", {}, element("i", { class: look }), name))));
}

function tip(place) {
  let found = place.querySelector(".tip");
  if (!found) {
    found = element("div", { class: "tip", hidden: true });
    place.append(found);
  }
  return found;
}

function show(box, place, x, y, lines) {
  box.replaceChildren(...lines.map((line) => element("div", {}, line)));
  box.hidden = false;
  const left = Math.min(Math.max(4, x + 12), place.clientWidth - box.offsetWidth - 4);
  box.style.left = `${left}px`;
  box.style.top = `${Math.max(4, y - box.offsetHeight - 8)}px`;
}

const LONGEST_SPAN = 20; // a measure that spans more is drawn on a logarithmic axis

/** Lines by optimizer step, or by what `unit` and `step` (one of it) say. series: [{name, points: [[step, value or null]] or with the ends of an interval [[step, value, low, high]], look, shift: pixels to the right, crosses: [[step, value]] that are marked instead of the points}]; entries: of the legend, where series have none of their own. */
export function lines(place, series, { height = 240, unit = "optimizer steps", step: word = "step", emptyText = "Nothing logged yet.", entries, mayBeLog = false } = {}) {
  const shown = series.map((one) => ({ ...one, points: one.points.filter(([, value]) => value !== null) })).filter((one) => one.points.length);
  place.classList.add("chart");
  if (!shown.length) {
    place.replaceChildren(element("p", { class: "quiet" }, emptyText));
    return;
  }
  place.querySelector("p")?.remove();
  const all = shown.flatMap((one) => one.points);
  const steps = all.map(([step]) => step);
  const values = all.flatMap(([, ...ends]) => ends);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const log = mayBeLog && low > 0 && high > LONGEST_SPAN * low;
  const label = shown.map((one) => `${one.name}: ${number(one.points.at(-1)[1])} at ${word} ${number(one.points.at(-1)[0])}`).join("; ");
  drawn(place, (width) => {
    const root = frame(place, width, height, label);
    const x = scale(Math.min(...steps), Math.max(...steps), MARGIN.left, width - MARGIN.right, false, width < 420 ? 4 : 7);
    const pad = log ? 0 : (high - low) * 0.06;
    const bottom = low >= 0 ? Math.max(0, low - pad) : low - pad;
    const y = scale(log ? low : bottom, log ? high : high + pad, height - MARGIN.bottom, MARGIN.top + 8, log, 5);
    axes(root, width, height, x, y, unit, "");
    for (const one of shown) {
      const across = (step) => x.place(step) + (one.shift ?? 0);
      const path = one.points.map(([step, value], at) => `${at ? "L" : "M"}${across(step).toFixed(1)} ${y.place(value).toFixed(1)}`).join("");
      root.append(svg("path", { class: `line ${one.look}`, d: path }));
      for (const [step, , from, to] of one.points) if (to !== undefined) root.append(svg("path", { class: `whisker ${one.look}`, d: `M${across(step)} ${y.place(from)}V${y.place(to)}m-3 0h6M${across(step) - 3} ${y.place(from)}h6` }));
      for (const [step, value] of one.crosses ?? []) root.append(svg("path", { class: "cross", d: `M${across(step) - 5} ${y.place(value) - 5}l10 10m0 -10l-10 10` }));
      if (one.crosses === undefined && (one.points.length < 40 || one.dots)) for (const [step, value] of one.points) root.append(svg("circle", { class: `dot ${one.look}`, cx: across(step), cy: y.place(value), r: one.points.length > 25 ? 1.8 : 2.6 }));
    }
    const cursor = svg("line", { class: "cursor", y1: MARGIN.top, y2: height - MARGIN.bottom, visibility: "hidden" });
    root.append(cursor);
    const box = tip(place);
    const allSteps = [...new Set(steps)].sort((a, b) => a - b);
    let at = allSteps.length - 1;
    const point = () => {
      const step = allSteps[at];
      cursor.setAttribute("x1", x.place(step));
      cursor.setAttribute("x2", x.place(step));
      cursor.setAttribute("visibility", "visible");
      const said = shown.map((one) => {
        const near = one.points.reduce((best, found) => (Math.abs(found[0] - step) < Math.abs(best[0] - step) ? found : best));
        const within = near.length > 2 ? ` (${number(near[2])} to ${number(near[3])})` : "";
        return `${one.name} ${number(near[1])}${within}${near[0] === step ? "" : ` (${word} ${number(near[0])})`}`;
      });
      show(box, place, x.place(step), MARGIN.top + 40, [`${word} ${number(step)}`, ...said]);
    };
    const leave = () => { box.hidden = true; cursor.setAttribute("visibility", "hidden"); };
    root.setAttribute("tabindex", "0");
    root.addEventListener("pointermove", (event) => {
      const where = event.clientX - root.getBoundingClientRect().left;
      at = allSteps.reduce((best, step, index) => (Math.abs(x.place(step) - where) < Math.abs(x.place(allSteps[best]) - where) ? index : best), 0);
      point();
    });
    root.addEventListener("pointerleave", leave);
    root.addEventListener("blur", leave);
    root.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      at = Math.min(allSteps.length - 1, Math.max(0, at + by));
      point();
    });
    legend(place, entries ?? shown);
  });
}

/** Points of two measures. points: [{x, y, id, look, text}]; onPick(id) when one is chosen. */
export function scatter(place, points, { xName, yName, onPick, picked, height = 300, emptyText }) {
  place.classList.add("chart");
  const shown = points.filter((point) => Number.isFinite(point.x) && Number.isFinite(point.y));
  if (!shown.length) {
    place.redraw?.disconnect();
    place.replaceChildren(element("p", { class: "quiet" }, emptyText));
    return;
  }
  place.querySelector("p")?.remove();
  const range = (key) => {
    const values = shown.map((point) => point[key]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const log = low > 0 && high > LONGEST_SPAN * low;
    if (log) return [low / 1.3, high * 1.3, true];
    const pad = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
    return [low - pad, high + pad, false];
  };
  drawn(place, (width) => {
    const root = frame(place, width, height, `${shown.length} trials: ${yName} against ${xName}`);
    root.setAttribute("role", "group");
    const [xl, xh, xLog] = range("x");
    const [yl, yh, yLog] = range("y");
    const x = scale(xl, xh, MARGIN.left, width - MARGIN.right, xLog, width < 420 ? 4 : 6);
    const y = scale(yl, yh, height - MARGIN.bottom, MARGIN.top + 12, yLog, 5);
    axes(root, width, height, x, y, xName, yName);
    const box = tip(place);
    const frontier = shown.filter((point) => point.front).sort((a, b) => a.x - b.x);
    if (frontier.length > 1) root.append(svg("path", { class: "front", d: frontier.map((point, at) => `${at ? "L" : "M"}${x.place(point.x).toFixed(1)} ${y.place(point.y).toFixed(1)}`).join("") }));
    for (const point of [...shown.filter((one) => !one.front), ...frontier]) {
      const dot = svg("circle", {
        class: `point ${point.look}${point.id === picked ? " picked" : ""}`, cx: x.place(point.x), cy: y.place(point.y), r: point.front ? 6 : 5,
        tabindex: "0", role: "button", "aria-label": point.text.join(", "), "data-trial": point.id,
      });
      const tell = () => show(box, place, x.place(point.x), y.place(point.y), point.text);
      dot.addEventListener("pointerenter", tell);
      dot.addEventListener("focus", tell);
      for (const away of ["pointerleave", "blur"]) dot.addEventListener(away, () => { box.hidden = true; });
      dot.addEventListener("click", () => onPick(point.id));
      dot.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); onPick(point.id); } });
      root.append(dot);
    }
  });
}

const text = (value) => (value === null ? "none" : Array.isArray(value) ? value.join(" ") : typeof value === "number" ? short(value) : String(value));

/** Lines across parallel axes. axes: [{key, low, high, log} or {key, choices}]; rows: [{id, values, shade in [0, 1], best}]. */
export function parallel(place, axesGiven, rows, { onPick, picked, height = 260, emptyText }) {
  place.classList.add("chart", "parallel");
  if (rows.length < 2 || !axesGiven.length) {
    place.replaceChildren(element("p", { class: "quiet" }, emptyText));
    return;
  }
  place.querySelector("p")?.remove();
  drawn(place, (available) => {
    const width = Math.max(available, axesGiven.length * 92);
    const root = frame(place, width, height, `Parameters of ${rows.length} trials on ${axesGiven.length} axes`);
    root.setAttribute("role", "group");
    const [top, bottom, left, right] = [40, height - 14, 30, width - 70];
    const gap = axesGiven.length > 1 ? (right - left) / (axesGiven.length - 1) : 0;
    const columns = axesGiven.map((axis, index) => {
      const at = axesGiven.length > 1 ? left + index * gap : (left + right) / 2;
      if (axis.choices) {
        const names = axis.choices.map(text);
        const place = (value) => bottom - ((names.indexOf(text(value)) + 0.5) / names.length) * (bottom - top);
        return { ...axis, at, place, ticks: axis.choices };
      }
      const found = scale(axis.low, axis.high, bottom, top, axis.log, 4);
      return { ...axis, at, place: found.place, ticks: [...new Set([axis.low, axis.high])] };
    });
    for (const row of [...rows].sort((a, b) => (a.id === picked) - (b.id === picked) || a.best - b.best || b.shade - a.shade)) {
      const d = columns.filter((column) => row.values[column.key] !== undefined).map((column, at) => `${at ? "L" : "M"}${column.at.toFixed(1)} ${column.place(row.values[column.key]).toFixed(1)}`).join("");
      const path = svg("path", { class: `strand${row.best ? " best" : ""}${row.id === picked ? " picked" : ""}`, d, "data-trial": row.id });
      path.style.setProperty("--shade", row.shade);
      const wide = svg("path", { class: "strand-hit", d }, svg("title", {}, row.text));
      for (const line of [path, wide]) line.addEventListener("click", () => onPick(row.id));
      root.append(path, wide);
    }
    columns.forEach((column, index) => {
      root.append(svg("line", { class: "axis", x1: column.at, x2: column.at, y1: top, y2: bottom }));
      const [section, name] = column.key.includes(".") ? [column.key.slice(0, column.key.lastIndexOf(".")), column.key.slice(column.key.lastIndexOf(".") + 1)] : ["", column.key];
      const anchor = index === 0 ? "start" : "middle";
      root.append(svg("text", { class: "tick", x: index ? column.at : column.at - 24, y: 12, "text-anchor": anchor }, section));
      root.append(svg("text", { class: "name strong", x: index ? column.at : column.at - 24, y: 27, "text-anchor": anchor }, name));
      for (const tick of column.ticks) root.append(svg("text", { class: "tick halo", x: column.at + 7, y: column.place(tick) + 4 }, text(tick)));
    });
  });
}

/** Bars of shares in [0, 1]. groups: {objective: {key: share}}. */
export function shares(place, groups, emptyText) {
  const names = Object.keys(groups);
  if (!names.length) {
    place.replaceChildren(element("p", { class: "quiet" }, emptyText));
    return;
  }
  place.replaceChildren(...names.map((objective) => {
    const rows = Object.entries(groups[objective]).sort((a, b) => b[1] - a[1]).map(([key, share]) => {
      const bar = element("i");
      bar.style.width = `${100 * share}%`;
      return element("li", {}, element("span", {}, key), element("span", { class: "track" }, bar), element("b", {}, share.toFixed(2)));
    });
    return element("div", { class: "shares" }, names.length > 1 ? element("h3", {}, objective) : "", element("ol", {}, ...rows));
  }));
}
