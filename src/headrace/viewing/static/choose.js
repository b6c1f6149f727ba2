// Dialogs: choosing a name out of many, or a new one; saying yes; telling what happened. Each is a promise.

import { el } from "./dom.js";

const SHOWN = 100;

export function dialog(title, fill) {
  return new Promise((done) => {
    const box = el("dialog", { class: "asks", "aria-label": title });
    const end = (value) => { box.returnValue = ""; answer = value; box.close(); };
    let answer = null;
    box.append(el("h2", { text: title }), ...[fill(end)].flat().filter(Boolean));
    box.addEventListener("close", () => { box.remove(); done(answer); });
    box.addEventListener("click", (event) => event.target === box && box.close());
    document.body.append(box);
    box.showModal();
    box.querySelector("[autofocus]")?.focus();
  });
}

// One of `names`: a text; undefined where nothing was chosen. `none`: what null is called; `made`: what a new one is.
export async function choose(title, names, { none = null, made = "class", current = undefined } = {}) {
  const said = await dialog(title, (end) => {
    const list = el("ul", { class: "choices" });
    const field = el("input", { type: "search", autofocus: true, placeholder: `find one, or write a new ${made}`, "aria-label": `find one, or write a new ${made}`, maxlength: 200, autocomplete: "off", spellcheck: "false" });
    const item = (name, text, n, extra = "") => el("li", {}, el("button", { type: "button", class: `toggle choice ${extra}`, "aria-pressed": String(name === current), onclick: () => end([name]) },
      el("span", { class: "name", text }), n && el("kbd", { text: n, "aria-hidden": "true" })));
    const fill = () => {
      const text = field.value.trim(), low = text.toLowerCase();
      const found = names.filter((name) => name.toLowerCase().includes(low));
      list.replaceChildren(...found.slice(0, SHOWN).map((name) => item(name, name, names.indexOf(name) < 9 ? String(names.indexOf(name) + 1) : null)),
        none !== null && !text ? item(null, none, null, "soft") : "",
        text && !names.includes(text) ? item(text, `“${text}”, a new ${made}`, null, "new") : "");
    };
    field.addEventListener("input", fill);
    field.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") { list.querySelector("button")?.focus(); event.preventDefault(); }
      if (event.key === "Enter") { (names.includes(field.value.trim()) ? end([field.value.trim()]) : field.value.trim() && list.querySelector("button")?.click()); event.preventDefault(); }
      if (/^[1-9]$/.test(event.key) && !field.value && names[event.key - 1] !== undefined && !names.some((name) => name.startsWith(event.key))) { end([names[event.key - 1]]); event.preventDefault(); }
    });
    list.addEventListener("keydown", (event) => {
      const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
      if (!step) return;
      (event.target.closest("li")[step]?.querySelector("button") ?? field).focus();
      event.preventDefault();
    });
    fill();
    return [field, list];
  });
  return said ? said[0] : undefined;
}

// Some of `names`: an array; undefined where nothing was chosen.
export async function chooseSome(title, names, current) {
  const said = await dialog(title, (end) => {
    const boxes = names.map((name) => [name, el("input", { type: "checkbox", checked: current.includes(name) })]);
    const field = el("input", { type: "search", placeholder: "and a new class", "aria-label": "and a new class", maxlength: 200, autocomplete: "off" });
    return el("form", { onsubmit: (event) => {
      event.preventDefault();
      const more = field.value.trim();
      end([...boxes.filter(([, box]) => box.checked).map(([name]) => name), ...(more && !names.includes(more) ? [more] : [])]);
    } }, el("ul", { class: "choices" }, ...boxes.map(([name, box]) => el("li", {}, el("label", { class: "toggle choice" }, box, el("span", { class: "name", text: name }))))),
      field, el("p", { class: "ends" }, el("button", { class: "toggle", type: "button", text: "Cancel", onclick: () => end(null) }), el("button", { text: "These", autofocus: true })));
  });
  return said ?? undefined;
}

export async function confirmed(title, text, yes, ...more) {
  return Boolean(await dialog(title, (end) => [el("p", { text }), ...more,
    el("p", { class: "ends" }, el("button", { type: "button", class: "toggle", text: "Cancel", autofocus: true, onclick: () => end(null) }), el("button", { type: "button", text: yes, onclick: () => end(true) }))]));
}

// Why something is done; null where it shall not be done.
export function why(title, text, yes, given = "") {
  return dialog(title, (end) => {
    const field = el("input", { type: "text", autofocus: true, required: true, maxlength: 500, value: given, placeholder: "dogs among the cats", autocomplete: "off" });
    return el("form", { onsubmit: (event) => { event.preventDefault(); if (field.value.trim()) end(field.value.trim()); } },
      el("p", { text }), el("label", { class: "field" }, el("span", { class: "soft", text: "Why? The history tells it." }), field),
      el("p", { class: "ends" }, el("button", { type: "button", class: "toggle", text: "Cancel", onclick: () => end(null) }), el("button", { text: yes })));
  });
}
