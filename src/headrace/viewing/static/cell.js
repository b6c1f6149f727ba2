// A record as it stands in a grid: its image, what is drawn over it, and a line or two about it.

import { el, many } from "./dom.js";
import { link } from "./address.js";
import { overCell } from "./overlay.js";
import { damaged, picture, thumbnail } from "./picture.js";

// Images in a row of a page, two beside each other on a phone.
export const beside = (size) => (innerWidth < 520 ? Math.min(size, Math.floor((innerWidth - 84) / 2)) : size);

const percent = (text) => (Number.isFinite(Number(text)) ? `${Math.round(100 * Number(text))}%` : "");

export function summary(cell, dataset) {
  if (cell.said) return judgement(cell);
  const parts = [];
  if (cell.labels?.length) parts.push(cell.labels.join(", "));
  else if (dataset.multi_label && cell.labels) parts.push("none of the classes");
  if (cell.value !== undefined) parts.push(String(Number(cell.value.toPrecision(5))));
  if (!parts.length && cell.objects !== undefined) parts.push(cell.objects ? many(cell.objects, dataset.has_boxes ? "box" : "object", dataset.has_boxes ? "boxes" : "objects") : "no boxes");
  return parts.join(" · ");
}

function judgement({ said, boxes }) {
  const [row] = said.rows;
  if (said.found) {
    const right = said.found.filter((one) => one[6]).length;
    return `${right}/${(boxes ?? []).length} found, ${said.found.length - right} false`;
  }
  if (row && "estimated" in row) {
    const same = row.observed === row.estimated;
    return `${row.observed || "none"}${same ? "" : ` → ${row.estimated || "none"}`}${row.probability ? ` ${percent(row.probability)}` : ""}`;
  }
  return said.wrong === null ? "" : `off by ${said.wrong.toPrecision(3)}`;
}

export function cellOf(cell, dataset, filters, size) {
  const scale = size / Math.max(cell.width, cell.height);
  const small = Math.max(cell.width, cell.height) < size / 2;
  const fit = el("div", { class: small ? "fit pixels" : "fit" });
  fit.style.width = `${Math.max(2, cell.width * scale)}px`;
  fit.style.height = `${Math.max(2, cell.height * scale)}px`;
  const text = summary(cell, dataset);
  if (dataset.kept) {
    fit.replaceChildren(el("div", { class: "damaged kept" }, el("strong", { text: "Numbers" }), el("span", { text: "kept as they are, no pixels" })));
    fit.style.width = fit.style.height = `${size}px`;
  } else {
    const image = picture(thumbnail(dataset, cell.row, size), cell.row, "", [cell.width, cell.height], (reason) => {
      fit.replaceChildren(damaged(reason.replaceAll(`${dataset.path}/`, "")));
      fit.style.width = fit.style.height = `${size}px`;
      fit.closest(".cell")?.classList.add("is-damaged");
    });
    const over = overCell(cell);
    fit.append(image);
    if (over) fit.append(over);
  }
  const right = cell.said ? (cell.said.right === true ? " right" : cell.said.right === false ? " wrong" : "") : "";
  return el("a", {
    class: `cell${right}`, href: link("record", { id: cell.id, ...filters }), "aria-label": [cell.id, text, cell.split].filter(Boolean).join(", "), draggable: "false",
  }, el("div", { class: "frame" }, fit), el("div", { class: "caption" },
    el("span", { class: "what", text: text || " " }), el("span", { class: "id", text: cell.id.replace(/^.*\/(?=.)/s, ""), title: cell.id })));
}
