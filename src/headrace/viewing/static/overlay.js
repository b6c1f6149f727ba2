// What is known of an image, drawn over it as SVG: boxes, points, masks, and what a run found.

import { el, svg } from "./dom.js";

export const COLOURS = ["#12c781", "#ff9f1a", "#3d9bff", "#ff4d5e", "#ffd60a", "#b86bff", "#19d3da", "#ff86c3", "#c08552", "#a6d93a"];
const NONE = "#d0d5d9";
export const colour = (label) => (label >= 0 ? COLOURS[label % COLOURS.length] : NONE);

const box = ([x0, y0, x1, y1], kind, stroke, index) => {
  const place = { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) };
  return [
    kind.endsWith("missed") ? "" : svg("rect", { ...place, class: "edge" }),
    svg("rect", { ...place, class: kind, stroke, "data-object": index }),
  ];
};

const dot = ([x, y, v], stroke) => v > 0
  ? [svg("path", { d: `M${x} ${y}h.001`, class: "dot-edge" }), svg("path", { d: `M${x} ${y}h.001`, class: v === 1 ? "dot hidden" : "dot", stroke })]
  : [];

function layer(width, height, ...children) {
  return svg("svg", { class: "overlay", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...children);
}

// Of a cell of the gallery.
export function overCell(cell) {
  const boxes = cell.boxes ?? [];
  if (cell.said?.found) return overSaid(cell.width, cell.height, boxes, cell.said);
  const points = (cell.points ?? []).flatMap((set) => set.flatMap((point, k) => dot(point, COLOURS[k % COLOURS.length])));
  if (!boxes.length && !points.length) return null;
  return layer(cell.width, cell.height, ...boxes.flatMap((one, i) => box(one, "box", colour(one[4]), i)), ...points);
}

// Boxes that a run found: right ones, false ones, and those that it missed.
export function overSaid(width, height, boxes, said) {
  const missed = new Set(said.missed);
  return layer(width, height,
    ...boxes.flatMap((one, i) => (missed.has(i) ? box(one, "box missed", null, i) : [])),
    ...said.found.flatMap((one) => box(one, one[6] ? "box matched" : "box false", null, null)));
}

// Of a record with all that is known of it.
export function overRecord(record, { withSaid, mends = false }) {
  const { width, height, objects } = record;
  if (withSaid && record.said?.found) {
    return [overSaid(width, height, objects.filter((one) => one.box).map((one) => one.box), record.said)];
  }
  const areas = objects.flatMap((one, i) => (one.polygons ?? []).map((part) => svg("path", {
    d: `M${part.reduce((text, number, k) => text + (k ? (k % 2 ? "," : "L") : "") + number, "")}Z`, class: "mask", fill: colour(one.label ?? i), stroke: colour(one.label ?? i),
  })));
  const boxes = mends ? [] : objects.flatMap((one, i) => (one.box ? box(one.box, "box", colour(one.label), i) : []));
  const points = objects.flatMap((one) => (one.points ?? []).flatMap((point, k) => dot(point, COLOURS[k % COLOURS.length])));
  return [covered(record), layer(width, height, ...areas, ...boxes, ...points)];
}

// Masks that are runs of pixels, down one column after the other.
function covered({ width, height, objects }) {
  const some = objects.filter((one) => one.runs);
  if (!some.length || width * height > 5e7) return null;
  const canvas = el("canvas", { class: "runs", width, height, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (const one of some) {
    const number = parseInt(colour(one.label ?? 0).slice(1), 16);
    let at = 0;
    one.runs.forEach((run, k) => {
      for (let i = at; k % 2 && i < at + run; i++) {
        const to = 4 * ((i % height) * width + Math.floor(i / height));
        image.data[to] = number >> 16; image.data[to + 1] = (number >> 8) & 255; image.data[to + 2] = number & 255; image.data[to + 3] = 110;
      }
      at += run;
    });
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
