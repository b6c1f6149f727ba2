// Bars and lines as SVG and lists, whose bars are links.

import { count, el, svg } from "./dom.js";

export function names({ bars }, hrefOf, { most = 40 } = {}) {
  const top = Math.max(1, ...bars.map((bar) => bar.count));
  const made = (bar) => el("li", {}, el("a", { href: hrefOf(bar), "aria-label": `${bar.name}: ${count(bar.count)}`, class: bar.count ? "" : "zero" },
    el("span", { class: "name", text: bar.name, title: bar.name }),
    el("span", { class: "bar" }, el("i", { style: { width: `${100 * bar.count / top}%` } })), el("span", { class: "n", text: count(bar.count) })));
  const list = el("ul", { class: "bars" }, ...bars.slice(0, most).map(made));
  const rest = bars.length > most && el("button", { type: "button", class: "more", text: `and ${count(bars.length - most)} more`, onclick: () => { list.append(...bars.slice(most).map(made)); rest.remove(); } });
  return el("div", {}, list, rest);
}

const short = (number) => (Math.abs(number) >= 10000 ? `${Number((number / 1000).toPrecision(3))}k` : String(Number(number.toPrecision(4))));

export function numbers({ bars, unit }, hrefOf) {
  if (bars.length === 1) {
    return el("a", { class: "single", href: hrefOf(bars[0]) }, el("b", { text: bars[0].name }), el("span", { class: "soft", text: `all ${count(bars[0].count)} ${unit}` }));
  }
  const top = Math.max(1, ...bars.map((bar) => bar.count));
  const columns = bars.map((bar) => el("a", { href: hrefOf(bar), class: bar.count ? "column" : "column zero", "aria-label": `${bar.name}: ${count(bar.count)} ${unit}`, "data-tip": `${bar.name}: ${count(bar.count)}` },
    el("i", { style: { height: `${Math.max(bar.count ? 1.5 : 0, 100 * bar.count / top)}%` } })));
  const marks = [bars[0].low, bars[Math.floor(bars.length / 2)].low, bars[bars.length - 1].high].map(short);
  const whole = bars.every((bar) => bar.name === String(bar.low));
  if (whole) marks[marks.length - 1] = bars[bars.length - 1].name;
  return el("div", { class: "histogram" }, el("span", { class: "top", text: count(top) }), el("div", { class: "columns" }, ...columns),
    el("div", { class: "marks" }, ...marks.map((mark) => el("span", { text: mark }))));
}

// Curves over epochs: { name: [values] } of one measure.
export function curves(title, lines, width = 320, height = 150) {
  const values = Object.values(lines).flat().filter(Number.isFinite);
  if (!values.length) return null;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const n = Math.max(...Object.values(lines).map((line) => line.length));
  const x = (i) => 8 + (n > 1 ? i / (n - 1) : 0.5) * (width - 16);
  const y = (value) => height - 10 - (high > low ? (value - low) / (high - low) : 0.5) * (height - 24);
  const drawn = Object.entries(lines).map(([name, line], k) => svg("g", { class: `line line-${k}` },
    svg("path", { d: line.map((value, i) => (Number.isFinite(value) ? `${i && Number.isFinite(line[i - 1]) ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}` : "")).join("") }),
    ...(n <= 40 ? line.map((value, i) => Number.isFinite(value) && svg("circle", { cx: x(i), cy: y(value), r: 2.2 }, svg("title", { text: `${name}, epoch ${i + 1}: ${value}` }))) : [])));
  return el("figure", { class: "curves" },
    el("figcaption", {}, el("b", { text: title }), ...Object.entries(lines).map(([name, line], k) => el("span", { class: `key line-${k}`, text: `${name} ${Number(line[line.length - 1]?.toPrecision(4))}` }))),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} over ${n} epochs, ${Number(low.toPrecision(4))} to ${Number(high.toPrecision(4))}` },
      svg("line", { class: "axis", x1: 0, x2: width, y1: height - 4, y2: height - 4 }), ...drawn,
      svg("text", { x: 0, y: 10, "aria-hidden": "true" }, short(high)), svg("text", { x: 0, y: height - 8, "aria-hidden": "true" }, short(low))));
}
