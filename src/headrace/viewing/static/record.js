// One record: its image as large as one likes, and all that is known of it.

import { ask } from "./api.js";
import { asked, link } from "./address.js";
import { amount, count, el, empty } from "./dom.js";
import { chips } from "./filters.js";
import { Mender } from "./boxes.js";
import * as draft from "./draft.js";
import * as mend from "./mend.js";
import { colour, COLOURS, overRecord } from "./overlay.js";
import { damaged, picture } from "./picture.js";

const TAGS = 60; // names over boxes: of more none could be read

const PLACES = new Set(["x0", "y0", "x1", "y1"]); // of boxes, which are seen

const named = { format: "format", value: "value", captions: "captions", group_id: "group", origin: "origin", shard: "shard", offset: "record from byte", length: "record’s bytes",
  image_offset: "image from byte", image_length: "image’s bytes", channels: "channels", warning: "decoder’s warning", sha256: "sha256", file: "file" };

// `mender`: what mends its boxes, drawn in the place of those that only show them.
function stage(record, dataset, withSaid, mender) {
  const { width, height } = record;
  const image = picture(`image/${record.row}?v=${dataset.fingerprint}`, record.row, `${record.id}${record.labels?.length ? `, ${record.labels.join(", ")}` : ""}`, [width, height],
    (reason) => box.replaceChildren(damaged(reason)));
  const canvas = el("div", { class: "canvas" }, image, ...overRecord(record, { withSaid, mends: mender !== null }).filter(Boolean), mender?.layer ?? "");
  if (!mender && !(withSaid && record.said?.found)) {
    for (const one of record.objects.slice(0, TAGS)) {
      if (!one.box || !one.name || dataset.box_classes.length < 2) continue;
      const tag = el("span", { class: "tag", text: one.name });
      Object.assign(tag.style, { left: `${100 * one.box[0] / width}%`, top: `${100 * one.box[1] / height}%`, background: colour(one.label) });
      canvas.append(tag);
    }
  }
  const zoom = el("output", { class: "zoom" });
  const box = el("div", { class: "stage", tabindex: "0", role: "group", "aria-label": "image; plus and minus zoom, drag moves it" }, canvas);
  let scale = 1, x = 0, y = 0, fitted = true;

  const place = () => {
    Object.assign(canvas.style, { width: `${width * scale}px`, height: `${height * scale}px`, transform: `translate(${x}px, ${y}px)` });
    canvas.classList.toggle("pixels", scale >= 3);
    zoom.textContent = `${Math.round(scale * 100)}%`;
  };
  const fit = () => {
    const margin = innerWidth < 720 ? 16 : 48;
    scale = Math.min((box.clientWidth - margin) / width, (box.clientHeight - margin) / height, Math.max(2, 480 / Math.max(width, height)));
    scale = Math.max(scale, 0.01);
    x = (box.clientWidth - width * scale) / 2;
    y = (box.clientHeight - height * scale) / 2;
    fitted = true;
    place();
  };
  const by = (factor, cx = box.clientWidth / 2, cy = box.clientHeight / 2) => {
    const next = Math.max(0.02, Math.min(64, scale * factor));
    x = cx - (cx - x) * next / scale;
    y = cy - (cy - y) * next / scale;
    scale = next;
    fitted = false;
    place();
  };
  box.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { left, top } = box.getBoundingClientRect();
    by(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.clientX - left, event.clientY - top);
  }, { passive: false });
  const held = new Map();
  let apart = 0;
  box.addEventListener("pointerdown", (event) => {
    held.set(event.pointerId, [event.clientX, event.clientY]);
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    held.set(event.pointerId, [event.clientX, event.clientY]);
    if (held.size === 2) {
      const [[ax, ay], [bx, by_]] = [...held.values()];
      const now = Math.hypot(ax - bx, ay - by_);
      const { left, top } = box.getBoundingClientRect();
      if (apart) by(now / apart, (ax + bx) / 2 - left, (ay + by_) / 2 - top);
      apart = now;
      return;
    }
    x += event.clientX - before[0];
    y += event.clientY - before[1];
    fitted = false;
    place();
  });
  for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, (event) => { held.delete(event.pointerId); apart = 0; });
  box.addEventListener("dblclick", () => (fitted ? by(2) : fit()));
  const observer = new ResizeObserver(() => fitted && fit());
  observer.observe(box);
  return { box, zoom, fit, by, close: () => observer.disconnect(), mark: (i) => mark(canvas, i) };
}

function mark(canvas, i) {
  for (const shape of canvas.querySelectorAll("[data-object]")) {
    shape.classList.toggle("marked", Number(shape.getAttribute("data-object")) === i);
    shape.classList.toggle("faded", i !== null && Number(shape.getAttribute("data-object")) !== i);
  }
}

const text = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
const rows = (entries) => el("dl", { class: "facts" }, ...entries.map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", { text: text(value) }))));
const section = (title, ...children) => el("section", {}, el("h3", { text: title }), ...children);

function objects(record, dataset, shown) {
  if (!record.objects.length) return record.says_boxes ? section("Boxes", el("p", { class: "soft", text: "none: a negative" })) : null;
  const list = el("ol", { class: "objects" }, ...record.objects.slice(0, 500).map((one, i) => {
    const [x0, y0, x1, y1] = one.box ?? [0, 0, 0, 0];
    const also = Object.entries(one.attributes).filter(([, value]) => value !== 0).map(([name, value]) => (value === 1 ? name : `${name} ${text(value)}`));
    const item = el("li", { tabindex: "0" }, el("i", { class: "swatch", style: { background: colour(one.label ?? -1) } }),
      el("span", { class: "name", text: one.name ?? "object" }),
      one.box && el("span", { class: "n", text: `${Math.round(x1 - x0)} × ${Math.round(y1 - y0)}`, title: `x ${x0} to ${x1}, y ${y0} to ${y1}` }),
      also.length > 0 && el("span", { class: "soft more-of-it", text: also.join(", "), title: also.join(", ") }));
    for (const [on, value] of [["mouseenter", i], ["mouseleave", null], ["focus", i], ["blur", null]]) item.addEventListener(on, () => shown.mark(value));
    return item;
  }));
  return section(`${dataset.has_boxes ? "Boxes" : "Objects"} · ${count(record.objects.length)}`, list);
}

function points(record, dataset) {
  const sets = record.objects.filter((one) => one.points);
  if (!sets.length) return null;
  const state = ["absent", "hidden", "visible"];
  return section("Keypoints", ...sets.slice(0, 50).map((one, i) => el("details", { open: sets.length === 1 },
    el("summary", { text: `${one.name ?? "object"} ${i + 1}: ${one.points.filter(([, , v]) => v > 0).length} of ${one.points.length}` }),
    el("ul", { class: "points" }, ...one.points.map(([x, y, v], k) => el("li", { class: state[v] ?? "", title: state[v] },
      el("i", { class: "swatch", style: { background: COLOURS[k % COLOURS.length] } }), el("span", { class: "name", text: dataset.keypoint_names[k] ?? String(k) }),
      v === 1 && el("span", { class: "soft", text: "hidden" }), el("span", { class: "n", text: v ? `${Math.round(x)}, ${Math.round(y)}` : "absent" })))))));
}

function said(record) {
  if (!record.said) return null;
  const { rows: found, wrong, right } = record.said;
  const word = right === true ? "right" : right === false ? "wrong" : "";
  const names = [...new Set(found.flatMap((row) => Object.keys(row)))].filter((name) => !PLACES.has(name));
  const table = found.length > 0 && el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { text: name })))),
    el("tbody", {}, ...found.slice(0, 100).map((row) => el("tr", {}, ...names.map((name) => el("td", { text: row[name] ?? "" })))))));
  return section("The run says", el("p", { class: `verdict ${word}`, text: [word, wrong === null ? "" : `off by ${Number(wrong.toPrecision(4))}`].filter(Boolean).join(" · ") || "nobody knows the truth" }),
    record.said.missed?.length > 0 && el("p", { class: "soft", text: `${record.said.missed.length} missed` }), table || el("p", { class: "soft", text: "nothing found" }));
}

// Boxes as they are by now, with the number of the one before that each of them is.
function boxesOf(record) {
  return draft.get(record.id)?.boxes ?? record.objects.map((one, i) => ({ of: i, box: one.box, name: one.name ?? null, moved: false }));
}
const mine = (record) => JSON.stringify(boxesOf(record));

// Class, split, and whether it is dropped, as buttons.
function mends(record, dataset) {
  const now = draft.said(record.id), gone = Boolean(now.drop), names = Object.keys(dataset.classes);
  const parts = [];
  const press = (text, on, onclick, hint) => el("button", { type: "button", class: "toggle", "aria-pressed": String(on), disabled: gone, onclick }, el("span", { class: "name", text }), hint && el("kbd", { text: hint, "aria-hidden": "true" }));
  if (dataset.editable.label) {
    const has = [now.label ?? []].flat();
    const set = (name) => draft.change([record.id], { label: !dataset.multi_label ? name : has.includes(name) ? has.filter((one) => one !== name) : [...has, name] });
    parts.push(el("div", { class: "picks", role: "group", "aria-label": "class" }, ...names.slice(0, 9).map((name, i) => press(name, has.includes(name), () => set(name), String(i + 1))),
      ...has.filter((name) => !names.slice(0, 9).includes(name)).map((name) => press(name, true, () => mend.relabel())),
      el("button", { type: "button", class: "toggle", disabled: gone, "aria-label": "another class", title: "another class (L)", onclick: () => mend.relabel() }, "…")));
  }
  const splits = dataset.all_splits.slice(0, 6);
  parts.push(el("div", { class: "picks", role: "group", "aria-label": "split" }, ...splits.map((name) => press(name, now.split === name, () => draft.change([record.id], { split: name }))),
    now.split && !splits.includes(now.split) && press(now.split, true, () => mend.move()),
    el("button", { type: "button", class: "toggle", disabled: gone, "aria-label": "another split", title: "another split (M)", onclick: () => mend.move() }, "…"),
    el("button", { type: "button", class: "toggle danger", "aria-pressed": String(gone), onclick: () => mend.drop() }, gone ? "Dropped" : "Drop", el("kbd", { text: "X", "aria-hidden": "true" }))));
  return parts;
}

function list(section, mender, record, dataset) {
  const items = mender.objects.map((one, i) => {
    const [x0, y0, x1, y1] = one.box, also = one.of === null ? [] : Object.entries(record.objects[one.of].attributes).filter(([, value]) => value !== 0).map(([name, value]) => (value === 1 ? name : `${name} ${text(value)}`));
    return el("li", { class: i === mender.active ? "active" : "" }, el("button", { type: "button", class: "more-room", onclick: () => mender.choose(i) }, el("i", { class: "swatch", style: { background: colour(draft.number(dataset, one.name)) } }),
      el("span", { class: "name", text: one.name ?? "box" }), one.of === null && el("span", { class: "badge", text: "new" }), one.of !== null && one.moved && el("span", { class: "badge", text: "mended" }),
      el("span", { class: "n", text: `${Math.round(x1 - x0)} × ${Math.round(y1 - y0)}`, title: `x ${x0} to ${x1}, y ${y0} to ${y1}` })),
    dataset.box_classes.length > 0 && el("button", { type: "button", class: "quiet", "aria-label": `class of box ${i + 1}`, title: "C", text: "✎", onclick: () => { mender.choose(i); mender.rename(); } }),
    el("button", { type: "button", class: "quiet", "aria-label": `delete box ${i + 1}`, title: "Del", text: "×", onclick: () => { mender.choose(i); mender.remove(); } }),
    also.length > 0 && el("span", { class: "soft more-of-it", text: also.join(", "), title: also.join(", ") }));
  });
  section.replaceChildren(el("h3", { text: `Boxes · ${count(items.length)}` }), items.length ? el("ol", { class: "objects" }, ...items) : el("p", { class: "soft", text: "none: a negative" }));
}

export async function record(main, { dataset, go }) {
  const filters = asked();
  const id = new URLSearchParams(location.search).get("id") ?? "";
  let known;
  try {
    known = await ask("api/record", { ...filters, id });
  } catch (error) {
    if (error.status !== 404 && error.status !== 400) throw error;
    main.replaceChildren(empty("No such record", error.message, el("a", { class: "button", href: link("./", filters), text: "Back to the gallery" })));
    return {};
  }
  const back = link("./", { ...filters, at: known.position || null });
  const other = (name) => known[name] !== undefined ? link("record", { id: known[name], ...filters }) : null;
  const arrow = (name, sign) => other(name) ? el("a", { class: "quiet", href: other(name), "aria-label": name, title: name, text: sign }) : el("span", { class: "quiet off", text: sign, "aria-hidden": "true" });
  let withSaid = Boolean(filters.evaluation);
  if (dataset.edit) draft.seen(known, dataset.multi_label);
  const boxable = dataset.edit && dataset.editable.boxes && known.objects.every((one) => one.box);
  const mender = boxable ? new Mender(dataset, known.width, known.height, boxesOf(known), (all) => {
    draft.change([known.id], { boxes: all.length === known.objects.length && all.every((one, i) => one.of === i && !one.moved && one.name === (known.objects[i].name ?? null)) ? null : all });
  }) : null;
  const made = () => stage(known, dataset, withSaid, withSaid && known.said?.found ? null : mender);
  let shown = made();

  const place = el("div", { class: "place" });
  const put = () => {
    place.replaceChildren(shown.box, el("div", { class: "controls" },
      known.said?.found && el("button", { type: "button", class: "toggle", "aria-pressed": String(withSaid), text: "as judged", onclick: () => { withSaid = !withSaid; shown.close(); shown = made(); put(); shown.fit(); } }),
      boxable && el("button", { type: "button", class: "toggle", id: "new-box", "aria-pressed": String(Boolean(mender.drawing)), title: "N", text: "+ Box", onclick: () => (mender.drawing ? mender.stop() : mender.begin()) }),
      (known.objects.length > 0 || known.said) && el("button", { type: "button", class: "quiet", "data-key": "b", "aria-label": "what is drawn, on or off", title: "B", text: "◱", onclick: () => shown.box.classList.toggle("undrawn") }),
      el("button", { type: "button", class: "quiet", "aria-label": "smaller", title: "−", text: "−", onclick: () => shown.by(1 / 1.4) }), shown.zoom,
      el("button", { type: "button", class: "quiet", "aria-label": "larger", title: "+", text: "+", onclick: () => shown.by(1.4) }),
      el("button", { type: "button", class: "quiet", "aria-label": "whole image", title: "0", text: "⤢", onclick: () => shown.fit() })));
  };
  put();

  const mending = el("div", { class: "mending", role: "group", "aria-label": "mend it" }), listed = el("section", { class: "listed" });
  const changed = () => {
    if (!dataset.edit) return;
    mending.replaceChildren(...mends(known, dataset));
    if (!mender) return;
    if (mine(known) !== JSON.stringify(mender.objects)) { // taken back, or saved
      mender.objects = boxesOf(known);
      mender.fill();
    }
    list(listed, mender, known, dataset);
  };
  if (mender) {
    mender.chosen = () => [...listed.querySelectorAll("li")].forEach((item, i) => {
      item.classList.toggle("active", i === mender.active);
      if (i === mender.active) item.scrollIntoView({ block: "nearest" });
    });
    mender.told = (on) => { document.getElementById("new-box")?.setAttribute("aria-pressed", String(on)); };
  }
  changed();

  const attributes = Object.entries(known.attributes);
  const facts = Object.entries(known.facts).filter(([name]) => named[name]).map(([name, value]) => [named[name], /byte/.test(named[name]) && typeof value === "number" ? (/length/.test(name) ? `${count(value)}${value >= 1000 ? ` (${amount(value)})` : ""}` : count(value)) : value]);
  const classes = known.labels === null ? "no label" : known.labels.join(", ") || "none of the classes";
  const panel = el("aside", { class: "panel", "aria-label": "what is known of it" },
    el("h1", { text: known.id }),
    dataset.edit && mending,
    el("p", { class: "about" }, (Object.keys(dataset.classes).length > 0) && el("span", { class: "badge", text: classes }), el("span", { class: "badge plain", text: known.split }),
      el("span", { class: "soft", text: `${known.width} × ${known.height} px` })),
    said(known), boxable ? listed : objects(known, dataset, { mark: (i) => shown.mark(i) }), points(known, dataset),
    attributes.length > 0 && section("Attributes", rows(attributes)),
    section("Where it lies", el("p", { class: "soft code", text: known.address }), rows(facts)));

  main.replaceChildren(el("div", { class: "record" },
    el("div", { class: "strip" }, el("a", { class: "back", href: back, text: "← gallery" }), ...chips(filters, "./"), el("span", { class: "grow" }),
      el("span", { class: "soft", text: known.position === null ? "not among what is asked for" : `${count(known.position + 1)} of ${count(known.total)}` }), arrow("previous", "‹"), arrow("next", "›")),
    place, panel));
  shown.fit();
  document.title = `${known.id} · ${dataset.title}`;

  return {
    close: () => shown.close(),
    current: known,
    changed,
    away: () => history.replaceState(null, "", other("next") ?? other("previous") ?? back),
    first: (event) => Boolean(mender && shown.box.contains(mender.layer) && mender.key(event)),
    key: (event) => {
      if (event.key === "ArrowLeft" || event.key === "ArrowUp") return other("previous") && go(other("previous"), { replace: true }), true;
      if (event.key === "ArrowRight" || event.key === "ArrowDown") return other("next") && go(other("next"), { replace: true }), true;
      if (event.key === "Escape") return go(back), true;
      if (event.key === "+" || event.key === "=") return shown.by(1.4), true;
      if (event.key === "-") return shown.by(1 / 1.4), true;
      if (event.key === "0") return shown.fit(), true;
      if (event.key === "b") return shown.box.classList.toggle("undrawn"), true;
      if (event.key === "/") { go(back); return true; }
      return false;
    },
  };
}
