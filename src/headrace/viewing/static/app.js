// The pages' frame: which page stands in the address, links without loading anew, keys, light and dark, notices.

import { ask } from "./api.js";
import { page } from "./address.js";
import { count, el, empty } from "./dom.js";
import { classes } from "./classes.js";
import { diff } from "./diff.js";
import * as draft from "./draft.js";
import { duplicates } from "./duplicates.js";
import { gallery } from "./gallery.js";
import { history as versions } from "./history.js";
import * as mend from "./mend.js";
import { predictions } from "./predictions.js";
import { record } from "./record.js";
import { rejects } from "./rejects.js";

const PAGES = { "": gallery, record, classes, rejects, duplicates, predictions, history: versions, diff };
const main = document.getElementById("main");
let dataset = null, current = {}, turn = 0;

function notice(error, ...more) {
  const text = typeof error === "string" ? error : error.message;
  document.getElementById("notice").replaceChildren(el("p", {}, el("span", { text }), ...more));
}

function navigation() {
  const here = { record: "", diff: "history" }[page()] ?? page();
  const entries = [["", "Gallery"], ["classes", "Classes and sizes"], ["duplicates", "Duplicates"], ["rejects", "Rejects", dataset.rejected], ...(dataset.run ? [["predictions", "Predictions"]] : []), ...(dataset.has_versions ? [["history", "History", dataset.version > 1 ? dataset.version : 0]] : [])];
  document.getElementById("nav").replaceChildren(...entries.map(([name, text, n]) => el("a", { href: name || "./", "aria-current": name === here ? "page" : null }, text, n > 0 && el("span", { class: "n", text: count(n) }))));
  document.querySelector("#nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

async function show() {
  const mine = ++turn;
  try {
    dataset ??= await ask("api/dataset");
    document.getElementById("title").textContent = dataset.title;
    document.getElementById("title").title = dataset.path;
    document.body.classList.toggle("edits", dataset.edit);
    const state = document.getElementById("version");
    state.textContent = dataset.pinned ? `version ${dataset.version}, only to look at` : dataset.version > 1 ? `version ${dataset.version}` : "";
    state.hidden = !state.textContent;
    state.classList.toggle("warn", dataset.pinned);
    document.getElementById("edit-keys").hidden = !dataset.edit;
    current.close?.();
    current = {};
    navigation();
    if (dataset.edit) mend.begin({ dataset, again, reopen });
    const made = await (PAGES[page()] ?? gallery)(main, { dataset, go, notice });
    if (mine !== turn) made.close?.();
    else {
      current = made;
      if (dataset.edit) mend.begin({ dataset, again, reopen, ...made });
    }
  } catch (error) {
    if (mine !== turn) return;
    main.replaceChildren(empty(error.status === 409 ? "The dataset can’t be read" : "That did not work", error.message,
      error.status === 409 ? el("button", { type: "button", text: "Look at what is there now", onclick: reopen }) : el("a", { class: "button", href: location.href, text: "Try again" })));
    if (error.status === undefined) throw error; // a mistake of ours, for the console
  }
}

function go(href, { replace = false } = {}) {
  const open = document.activeElement;
  history[replace ? "replaceState" : "pushState"](null, "", href);
  if (open instanceof HTMLElement && open !== document.body) open.blur();
  return show();
}

document.addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[href]");
  if (!anchor || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const to = new URL(anchor.href);
  const folder = location.pathname.slice(0, location.pathname.lastIndexOf("/") + 1);
  if (to.origin !== location.origin || !to.pathname.startsWith(folder) || to.hash || !(to.pathname.slice(folder.length) in PAGES)) return;
  event.preventDefault();
  go(anchor.href);
});
addEventListener("popstate", show);

document.addEventListener("keydown", (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches?.("input, select, textarea");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "?") return document.getElementById("keys").showModal();
  const taken = current.first?.(event) || (dataset?.edit && mend.key(event)) || current.key?.(event);
  if (taken) event.preventDefault();
});

document.getElementById("help").addEventListener("click", () => document.getElementById("keys").showModal());
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("headrace-theme", root.dataset.theme); } catch { /* a browser that keeps nothing */ }
});

// Whether what is looked at is still what lies in the folder.
async function watch() {
  if (!document.hidden && dataset) {
    try {
      const looked = dataset, { current: same, known, later, fingerprint, version } = await ask("api/state", {}, { quiet: true });
      const [last] = later.slice(-1);
      if (looked !== dataset || (dataset.pinned && known)) {
        // it is looked at anew this very moment; or it is an earlier version, which stays
      } else if (same && fingerprint !== dataset.fingerprint && version > dataset.version) {
        notice(`Version ${version} was made in another tab of this viewer.`, el("button", { type: "button", text: `Look at version ${version}`, onclick: reopen }));
      } else if (known && last && !dataset.is_view) {
        notice(`${last.by} edited it meanwhile: version ${last.number}, “${last.why}”.`, el("button", { type: "button", text: `Look at version ${last.number}`, onclick: reopen }));
      } else if (!same || fingerprint !== dataset.fingerprint) {
        const again = !dataset.is_view && el("button", { type: "button", text: "Look at the new one", onclick: reopen });
        notice(dataset.is_view ? "The dataset was replaced or removed. This is a view of what was there; make it again." : "The dataset was replaced or removed while you looked at it; what is shown is out of date.", again);
      } else if (document.getElementById("notice").dataset.lost) {
        document.getElementById("notice").replaceChildren();
        delete document.getElementById("notice").dataset.lost;
      }
    } catch (error) {
      notice(error);
      document.getElementById("notice").dataset.lost = "yes";
    }
  }
  setTimeout(watch, 4000);
}

// The same page once more, of the dataset as it is now, at the same place.
async function again() {
  const top = main.scrollTop;
  current.note?.();
  dataset = null;
  document.getElementById("notice").replaceChildren();
  await show();
  main.scrollTop = top;
}

async function reopen() {
  try {
    const { touched } = await ask("api/reopen", {}, { method: "POST", body: dataset?.edit && draft.size() ? { version: dataset.version, changes: draft.asChanges() } : {} });
    if (touched.length) draft.without(touched);
    await again();
    if (touched.length) notice(`What you did with ${touched.slice(0, 5).join(", ")}${touched.length > 5 ? ", …" : ""} is taken out: there it was changed, too.`);
  } catch (error) {
    notice(error);
  }
}

show();
setTimeout(watch, 4000);
