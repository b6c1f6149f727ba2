// Mending: which records are chosen, what is done to them by buttons and keys, and the bar that saves it as a version.

import { ask } from "./api.js";
import { link, page } from "./address.js";
import { choose, chooseSome, confirmed, dialog, why as askWhy } from "./choose.js";
import { count, el, many } from "./dom.js";
import * as draft from "./draft.js";

const chosen = new Set();
let every = null; // all that a query finds: { query, total }
let context = null, dock = null, saved = null, trouble = null, anchor = null, lastWhy = "";
let between = null; // of the gallery, which knows records that are not drawn

const dataset = () => context.dataset;
const here = () => document.activeElement?.closest?.(".held")?.dataset.id ?? context.current?.id ?? null;

// The page that is shown now. `current`: a record's own page; `range`: ids from one place of a grid to another.
export function begin(given) {
  if (!context) {
    addEventListener("click", clicked, true);
    draft.watch((ids) => { redraw(new Set(ids)); saved = ids.length ? null : saved; bar(); });
  }
  context = given;
  between = given.range ?? null;
  dock = document.getElementById("dock");
  draft.begin(given.dataset.fingerprint);
  chosen.clear();
  every = anchor = trouble = null;
  bar();
}

const isChosen = (id) => every !== null || chosen.has(id);

function redraw(ids) {
  for (const held of document.querySelectorAll(".held")) if (!ids || ids.has(held.dataset.id)) held.redraw();
  context.changed?.(ids);
}

// What a cell is put into, so that it can be chosen.
export function held(id, cell, redrawn) {
  const tick = el("button", { type: "button", class: "tick", tabindex: "-1", "aria-label": `choose ${id}` });
  const box = el("div", { class: "held" }, cell, tick);
  box.dataset.id = id;
  box.redraw = () => { redrawn(); marked(box, tick); };
  marked(box, tick);
  return box;
}

function marked(box, tick) {
  const on = isChosen(box.dataset.id);
  box.classList.toggle("chosen", on);
  tick.setAttribute("aria-pressed", String(on));
}

function remark() {
  for (const box of document.querySelectorAll(".held")) marked(box, box.querySelector(".tick"));
  trouble = null;
  bar();
}

function toggle(id) {
  if (every) { every = null; chosen.clear(); }
  if (chosen.has(id)) chosen.delete(id);
  else chosen.add(id);
  remark();
}

const placeOf = (box) => (between ? Number(box.closest("li").getAttribute("aria-posinset")) - 1 : [...document.querySelectorAll(".held")].indexOf(box));

async function reach(box) {
  const to = placeOf(box), from = anchor ?? to;
  const [low, high] = [Math.min(from, to), Math.max(from, to)];
  const ids = between ? await between(low, high) : [...document.querySelectorAll(".held")].slice(low, high + 1).map((one) => one.dataset.id);
  every = null;
  for (const id of ids) chosen.add(id);
  remark();
}

function clicked(event) {
  const box = event.target.closest?.(".held");
  if (!box || !context || event.button) return;
  const modified = event.shiftKey || event.metaKey || event.ctrlKey;
  if (!modified && !event.target.closest(".tick")) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.shiftKey) reach(box);
  else {
    anchor = placeOf(box);
    toggle(box.dataset.id);
  }
}

function all() {
  const { total, query } = context.all?.() ?? {};
  if (!total) return;
  every = { total, query };
  remark();
}

function none() { every = null; chosen.clear(); remark(); }

const targets = () => (chosen.size ? [...chosen] : here() ? [here()] : []);

// --- what is done --------------------------------------------------------------------------------------------------------

function apply(part) {
  if (every) return bulk(part);
  const ids = targets();
  if (!ids.length) return undefined;
  draft.change(ids, part);
  return undefined;
}

const NAMED = { label: (v) => (v === null ? "Take the label away from" : `Call “${[v].flat().join(", ") || "none of the classes"}”`), split: (v) => `Move to “${v}”`, drop: () => "Drop" };

// All that a query finds is never a draft: it is as many as there are, and is saved at once.
async function bulk(part) {
  const [[name, value]] = Object.entries(part), { total, query } = every;
  if (draft.size()) return told(`Save or discard the ${many(draft.size(), "change")} first: these ${count(total)} records are changed at once.`);
  const change = name === "label" ? { op: "relabel", label: value, query } : name === "split" ? { op: "move", split: value, query } : { op: "drop", query };
  const why = await askWhy(`${NAMED[name](value)}: ${many(total, "record")}`, `All that the gallery shows now, seen or not. It becomes version ${dataset().version + 1}; undo takes it back.`, "Save", lastWhy);
  return why === null ? undefined : send(why, [change]);
}

export async function relabel() {
  if (!dataset().editable.label || !(every || targets().length)) return;
  const names = Object.keys(dataset().classes), [one] = targets();
  const now = draft.said(one).label;
  const label = dataset().multi_label ? await chooseSome("Classes", names, now ?? []) : await choose("Label", names, { none: "no label", current: now });
  if (label !== undefined) apply({ label });
}

export async function move() {
  if (!(every || targets().length)) return;
  const split = await choose("Move to", dataset().all_splits, { made: "split", current: draft.said(targets()[0]).split });
  if (split !== undefined && split !== null) apply({ split });
}

export function drop() {
  if (every) { bulk({ drop: true }); return; }
  const ids = targets();
  if (ids.length) draft.change(ids, { drop: !ids.every((id) => draft.get(id)?.drop) });
}

function byNumber(k) {
  const name = Object.keys(dataset().classes)[k];
  if (name === undefined || !dataset().editable.label) return false;
  if (dataset().multi_label) {
    const ids = targets();
    if (every || !ids.length) return false;
    const on = ids.every((id) => (draft.said(id).label ?? []).includes(name));
    for (const id of ids) {
      const now = draft.said(id).label ?? [];
      draft.change([id], { label: on ? now.filter((one) => one !== name) : [...now.filter((one) => one !== name), name] });
    }
    return true;
  }
  apply({ label: name });
  return Boolean(every || targets().length);
}

// --- saving --------------------------------------------------------------------------------------------------------------

function told(text) { trouble = text; bar(); }

async function send(why, changes, yes = false) {
  lastWhy = why;
  try {
    const { made } = await ask("api/edit", {}, { method: "POST", body: { version: dataset().version, why, changes, yes } });
    await done(made, changes);
  } catch (error) {
    if (error.said?.hits) {
      const { hits, records } = error.said;
      if (await confirmed(`${count(hits)} of ${many(records, "record")}?`, `That is ${Math.round(100 * hits / records)}% of all that there is. It can be undone, but few people mean so many.`, "Yes, all of them")) await send(why, changes, true);
    } else if (error.said?.later) await conflict(error);
    else told(error.message);
  }
}

async function done(made, changes) {
  const gone = new Set(changes.filter((one) => one.op === "drop").flatMap((one) => one.ids ?? []));
  draft.clear();
  saved = made === null ? "Nothing to change: it is so already." : `Saved as version ${made}.`;
  if (made !== null) saved = { version: made, text: saved };
  if (context.current && gone.has(context.current.id)) await context.away();
  await context.again();
}

// Boxes of a draft are numbered as those of the version that it is of.
function unready() {
  if (draft.size()) told(`Save or discard the ${many(draft.size(), "change")} first.`);
  return draft.size() > 0;
}

export async function takeBack(version) {
  if (unready()) return;
  try {
    const { made } = await ask("api/undo", {}, { method: "POST", body: { version } });
    saved = { text: `Taken back: version ${made} is as version ${version} was before its edit.` };
    await context.again();
  } catch (error) {
    await (error.said?.later ? conflict(error) : told(error.message));
  }
}

export async function restore(to) {
  if (unready()) return;
  try {
    const { made } = await ask("api/restore", {}, { method: "POST", body: { version: dataset().version, to } });
    saved = { text: `Version ${made} is as version ${to} was.` };
    await context.again();
  } catch (error) {
    await (error.said?.later ? conflict(error) : told(error.message));
  }
}

// Somebody was quicker: who, when, what, and what becomes of this draft.
async function conflict({ message, said: { later, touched } }) {
  if (!later.length) { await context.reopen(); return; }
  const look = await dialog("Somebody was quicker", (end) => [
    el("p", { text: "Nothing of yours was saved: the dataset was edited meanwhile." }),
    el("ul", { class: "later" }, ...later.map((one) => el("li", {}, el("b", { text: `version ${one.number}` }), el("span", { class: "soft", text: ` by ${one.by}, ${when(one.at)}` }), el("p", { text: `“${one.why}”` }), ...one.told.map((line) => el("p", { class: "soft", text: line }))))),
    touched.length > 0 && el("p", {}, el("strong", { text: `${many(touched.length, "record")} of yours changed there, too` }), `: ${touched.slice(0, 5).join(", ")}${touched.length > 5 ? ", …" : ""}. What you did with ${touched.length === 1 ? "it" : "them"} is taken out, so that you look first.`),
    draft.size() > touched.length && el("p", { class: "soft", text: `Your other ${many(draft.size() - touched.length, "change")} ${draft.size() - touched.length === 1 ? "is" : "are"} kept.` }),
    el("p", { class: "ends" }, el("button", { type: "button", class: "toggle", text: "Stay here", onclick: () => end(null) }), el("button", { type: "button", autofocus: true, text: `Look at version ${later[later.length - 1].number}`, onclick: () => end(true) })),
  ]);
  if (!look) { told(message); return; }
  draft.without(touched);
  await context.reopen();
}

export const when = (at) => (at ? new Date(at).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" }) : "");

// --- the bar ---------------------------------------------------------------------------------------------------------------

const button = (text, key, onclick, kind = "toggle") => el("button", { type: "button", class: kind, onclick, title: key, "aria-keyshortcuts": key }, text, key && el("kbd", { text: key, "aria-hidden": "true" }));

function bar() {
  if (!dock) return;
  const field = dock.querySelector("#why"), written = field?.value ?? lastWhy, typing = field !== null && document.activeElement === field;
  const rows = [];
  const n = every ? every.total : chosen.size, shown = context.all?.().total ?? 0;
  if (n) {
    rows.push(el("div", { class: "chosen-row", role: "toolbar", "aria-label": "what is chosen" },
      el("b", { text: every ? `All ${count(n)}` : `${count(n)} chosen` }),
      dataset().editable.label && button("Label…", "L", relabel), button("Move to…", "M", move), button("Drop", "X", drop),
      !every && shown > n && button(`All ${count(shown)}`, "A", all), el("span", { class: "grow" }), button("None", "Esc", none)));
  }
  if (draft.size()) {
    const input = el("input", { type: "text", id: "why", value: written, maxlength: 500, placeholder: "why? e.g. dogs among the cats", "aria-label": "why these changes are made", autocomplete: "off" });
    rows.push(el("form", { class: "draft-row", "aria-label": "changes that are not saved", onsubmit: (event) => {
      event.preventDefault();
      if (!input.value.trim()) { input.setAttribute("aria-invalid", "true"); input.focus(); return; }
      send(input.value.trim(), draft.asChanges());
    } }, el("output", { class: "unsaved" }, el("b", { text: many(draft.size(), "record") }), el("span", { class: "soft", text: draft.words() })),
      draft.steppable() && button("Back", "Z", () => draft.back()), input,
      button("Discard", "", async () => (await confirmed("Discard them?", `${many(draft.size(), "change")} would be lost.`, "Discard")) && draft.clear()),
      el("button", { class: "save", text: `Save version ${dataset().version + 1}` })));
    if (typing) setTimeout(() => { input.focus(); input.setSelectionRange(written.length, written.length); });
  } else if (saved) {
    rows.push(el("div", { class: "saved-row", role: "status" }, el("span", { text: saved.text ?? saved }), saved.version && button("Undo", "", () => takeBack(saved.version)),
      saved.text && el("a", { class: "to", href: link("history"), text: "history" }), el("span", { class: "grow" }), el("button", { type: "button", class: "quiet", "aria-label": "close", text: "×", onclick: () => { saved = null; bar(); } })));
  }
  if (trouble) rows.push(el("p", { class: "refused", role: "alert", text: trouble }));
  dock.replaceChildren(...rows);
}

export function key(event) {
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (/^[1-9]$/.test(name)) return byNumber(Number(name) - 1);
  if (name === "x" || (name === "Delete" && page() !== "record")) { drop(); return true; }
  if (name === "z") { if (draft.steppable()) draft.back(); return true; }
  if (name === "l") { relabel(); return true; }
  if (name === "m") { move(); return true; }
  if (name === "a" && context.all?.().total) { all(); return true; }
  if (name === "s" && draft.size()) { dock.querySelector("#why").focus(); return true; }
  if (name === " " && document.activeElement?.closest?.(".held")) {
    const box = document.activeElement.closest(".held");
    if (event.shiftKey) reach(box);
    else { anchor = placeOf(box); toggle(box.dataset.id); }
    return true;
  }
  if (name === "Escape" && (chosen.size || every)) { none(); return true; }
  return false;
}

addEventListener("beforeunload", (event) => { if (context && draft.size() && draft.steppable()) event.preventDefault(); });
