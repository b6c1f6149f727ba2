// What was changed and is not saved yet: of each record its new class, split or boxes, or that it is dropped. It lives
// in this tab, so that a page that is loaded anew still has it.

import { count } from "./dom.js";

const KEY = "headrace-draft", REMEMBERED = 50_000;
let changes = new Map(), known = new Map(), steps = [], base = null;
const watchers = new Set();

const same = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);

function kept() {
  try {
    if (changes.size) sessionStorage.setItem(KEY, JSON.stringify({ base, changes: [...changes] }));
    else sessionStorage.removeItem(KEY);
  } catch { /* a browser that keeps nothing, or not so much */ }
}

function told(ids) {
  kept();
  for (const watcher of watchers) watcher(ids);
}

export const get = (id) => changes.get(id);
export const size = () => changes.size;
export const steppable = () => steps.length > 0;
export function watch(watcher) { watchers.add(watcher); return () => watchers.delete(watcher); }

// The draft is of the version with this fingerprint; one of another is no draft of it.
export function begin(fingerprint) {
  if (base === fingerprint) return;
  const moving = base !== null; // the same tab, which saved or looks at a newer version: `without` said what stays
  base = fingerprint;
  known = new Map();
  steps = [];
  if (!moving) {
    try {
      const read = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
      changes = new Map(read?.base === base ? read.changes : []);
    } catch { changes = new Map(); }
  }
  kept();
}

// What the dataset itself says of a record that is drawn: a change back to that is none.
export function seen({ id, labels, split }, several) {
  if (known.size > REMEMBERED) known.clear();
  known.set(id, { label: several ? labels ?? null : labels?.[0] ?? null, split });
}

export const said = (id) => ({ ...known.get(id), ...changes.get(id) });

function put(id, change) {
  const is = known.get(id);
  if (is) for (const name of ["label", "split"]) if (name in change && same(change[name], is[name])) delete change[name];
  if (change.drop === false) delete change.drop;
  if (change.boxes === null) delete change.boxes;
  if (Object.keys(change).length) changes.set(id, change);
  else changes.delete(id);
}

export function change(ids, part) {
  steps.push(ids.map((id) => [id, changes.get(id)]));
  for (const id of ids) put(id, { ...changes.get(id), ...part });
  told(ids);
}

// Takes the last change back; the records that it was about.
export function back() {
  const step = steps.pop() ?? [];
  for (const [id, before] of step) {
    if (before) changes.set(id, before);
    else changes.delete(id);
  }
  told(step.map(([id]) => id));
  return step.map(([id]) => id);
}

export function without(ids) {
  for (const id of ids) changes.delete(id);
  steps = [];
  told(ids);
}

export const clear = () => without([...changes.keys()]);

export function words() {
  const n = { relabelled: 0, moved: 0, "with other boxes": 0, dropped: 0 };
  for (const one of changes.values()) {
    if (one.drop) n.dropped++;
    else {
      if ("label" in one) n.relabelled++;
      if ("split" in one) n.moved++;
      if (one.boxes) n["with other boxes"]++;
    }
  }
  return Object.entries(n).filter(([, k]) => k).map(([what, k]) => `${count(k)} ${what}`).join(", ");
}

// As the server takes it.
export function asChanges() {
  const groups = new Map(), boxes = [];
  const add = (key, change, id) => {
    if (!groups.has(key)) groups.set(key, { ...change, ids: [] });
    groups.get(key).ids.push(id);
  };
  for (const [id, one] of changes) {
    if (one.drop) add("drop", { op: "drop" }, id);
    else {
      if ("label" in one) add(`label ${JSON.stringify(one.label)}`, { op: "relabel", label: one.label }, id);
      if ("split" in one) add(`split ${one.split}`, { op: "move", split: one.split }, id);
      if (one.boxes) boxes.push({ op: "boxes", id, objects: one.boxes.map(({ of, box, name, moved }) => ({ of, box: moved ? box : null, name })) });
    }
  }
  return [...groups.values(), ...boxes];
}

// A cell as it will be once the draft is saved.
export function drawn(cell, dataset) {
  const mine = changes.get(cell.id);
  if (!mine) return cell;
  const made = { ...cell, mine };
  if ("label" in mine) made.labels = mine.label === null ? null : [mine.label].flat();
  if ("split" in mine) made.split = mine.split;
  if (mine.boxes) {
    made.boxes = mine.boxes.map(({ box, name }) => [...box, number(dataset, name)]);
    made.objects = mine.boxes.length;
  }
  return made;
}

// The number of a class of boxes, which may be a new one.
export function number(dataset, name) {
  if (name === null || name === undefined) return -1;
  const at = dataset.box_classes.indexOf(name);
  return at < 0 ? dataset.box_classes.length : at;
}
