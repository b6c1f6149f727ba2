// A record as it stands in a grid: its image, what is drawn over it, and a line or two about it.

import { el, many } from "./dom.js";
import { link } from "./address.js";
import { overCell } from "./overlay.js";
import * as draft from "./draft.js";
import { held } from "./mend.js";
import { damaged, picture, thumbnail } from "./picture.js";

// Images in a row of a page, two beside each other on a phone.
export const beside = (size) => (innerWidth < 520 ? Math.min(size, Math.floor((innerWidth - 84) / 2)) : size);

const percent = (text) => (Number.isFinite(Number(text)) ? `${Math.round(100 * Number(text))}%` : "");

export function summary(cell, dataset) {
  if (cell.said && !cell.mine) return judgement(cell);
  const parts = [];
  if (cell.labels?.length) parts.push(cell.labels.join(", "));
  else if (dataset.multi_label && cell.labels) parts.push("none of the classes");
  if (cell.value !== undefined) parts.push(String(Number(cell.value.toPrecision(5))));
  if (!parts.length && cell.objects !== undefined) parts.push(cell.objects ? many(cell.objects, dataset.has_boxes ? "box" : "object", dataset.has_boxes ? "boxes" : "objects") : "no boxes");
  return parts.join(" · ");
}

function judgement({ said, boxes, labels }) {
  const [row] = said.rows;
  if (row && "estimated" in row && labels && row.observed && !labels.includes(row.observed)) return `${labels.join(", ")}, was ${row.observed}`; // mended since
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

// `at`: of another version than the one that is looked at, in which it may not be.
export function cellOf(cell, dataset, filters, size, { at = null } = {}) {
  if (dataset.edit && at === null) draft.seen(cell, dataset.multi_label);
  const anchor = el("a", { class: "cell", href: at === null || at === dataset.version ? link("record", { id: cell.id, ...filters }) : null, draggable: "false" });
  const box = fitted(cell, dataset, size, at, anchor);
  let drawn = null;
  const fill = () => {
    const now = dataset.edit && at === null ? draft.drawn(cell, dataset) : cell;
    const text = summary(now, dataset), gone = Boolean(now.mine?.drop), was = now.mine && "label" in now.mine ? cell.labels?.join(", ") ?? "no label" : null;
    const right = cell.said && !now.mine ? (cell.said.right === true ? " right" : cell.said.right === false ? " wrong" : "") : "";
    anchor.className = `cell${right}${now.mine ? " mended" : ""}${gone ? " gone" : ""}${anchor.classList.contains("is-damaged") ? " is-damaged" : ""}`;
    anchor.setAttribute("aria-label", [cell.id, text, now.split, gone && "dropped", now.mine && "not saved yet"].filter(Boolean).join(", "));
    drawn?.remove();
    drawn = dataset.kept || box.querySelector(".damaged") ? null : overCell(now.mine?.boxes ? { ...now, said: null } : now);
    if (drawn) box.append(drawn);
    anchor.replaceChildren(el("div", { class: "frame" }, box, gone && el("b", { class: "flag", text: "dropped" }), now.mine && "split" in now.mine && el("b", { class: "flag", text: `to ${now.split}` })),
      el("div", { class: "caption" },
        el("span", { class: "what", title: was }, was !== null && !gone && el("s", { text: was }), was !== null && !gone && " ", text || " "),
        el("span", { class: "id", text: cell.id.replace(/^.*\/(?=.)/s, ""), title: cell.id })));
  };
  fill();
  return dataset.edit && at === null ? held(cell.id, anchor, fill) : anchor;
}

function fitted(cell, dataset, size, at, anchor) {
  const scale = size / Math.max(cell.width, cell.height);
  const small = Math.max(cell.width, cell.height) < size / 2;
  const fit = el("div", { class: small ? "fit pixels" : "fit" });
  fit.style.width = `${Math.max(2, cell.width * scale)}px`;
  fit.style.height = `${Math.max(2, cell.height * scale)}px`;
  if (dataset.kept) {
    fit.replaceChildren(el("div", { class: "damaged kept" }, el("strong", { text: "Numbers" }), el("span", { text: "kept as they are, no pixels" })));
    fit.style.width = fit.style.height = `${size}px`;
  } else {
    fit.append(picture(thumbnail(dataset, cell.row, size, at), cell.row, "", [cell.width, cell.height], (reason) => {
      fit.replaceChildren(damaged(reason.replaceAll(`${dataset.path}/`, "")));
      fit.style.width = fit.style.height = `${size}px`;
      anchor.classList.add("is-damaged");
    }));
  }
  return fit;
}
