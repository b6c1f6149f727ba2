// The pages' frame: which page stands in the address, links without loading anew, keys, light and dark, notices.

import { ask } from "./api.js";
import { page } from "./address.js";
import { count, el, empty } from "./dom.js";
import { classes } from "./classes.js";
import { duplicates } from "./duplicates.js";
import { gallery } from "./gallery.js";
import { predictions } from "./predictions.js";
import { record } from "./record.js";
import { rejects } from "./rejects.js";

const PAGES = { "": gallery, record, classes, rejects, duplicates, predictions };
const main = document.getElementById("main");
let dataset = null, current = {}, turn = 0;

function notice(error, ...more) {
  const text = typeof error === "string" ? error : error.message;
  document.getElementById("notice").replaceChildren(el("p", {}, el("span", { text }), ...more));
}

function navigation() {
  const here = page() === "record" ? "" : page();
  const entries = [["", "Gallery"], ["classes", "Classes and sizes"], ["duplicates", "Duplicates"], ["rejects", "Rejects", dataset.rejected], ...(dataset.run ? [["predictions", "Predictions"]] : [])];
  document.getElementById("nav").replaceChildren(...entries.map(([name, text, n]) => el("a", { href: name || "./", "aria-current": name === here ? "page" : null }, text, n > 0 && el("span", { class: "n", text: count(n) }))));
  document.querySelector("#nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

async function show() {
  const mine = ++turn;
  try {
    dataset ??= await ask("api/dataset");
    document.getElementById("title").textContent = dataset.title;
    document.getElementById("title").title = dataset.path;
    current.close?.();
    current = {};
    navigation();
    const made = await (PAGES[page()] ?? gallery)(main, { dataset, go, notice });
    if (mine !== turn) made.close?.();
    else current = made;
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
  if (current.key?.(event)) event.preventDefault();
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
      const { current: same, fingerprint } = await ask("api/state", {}, { quiet: true });
      if (!same || fingerprint !== dataset.fingerprint) {
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

async function reopen() {
  try {
    await ask("api/reopen", {}, { method: "POST" });
    dataset = null;
    document.getElementById("notice").replaceChildren();
    await show();
  } catch (error) {
    notice(error);
  }
}

show();
setTimeout(watch, 4000);
