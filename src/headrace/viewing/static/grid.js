// A grid of any number of records that scrolls: only what is seen is there. Browsers end elements at some ten million
// pixels, so a higher one gets a shorter scrollbar: small movements go pixel by pixel, large ones in proportion.

import { ask } from "./api.js";
import { asked, link, page } from "./address.js";
import { el } from "./dom.js";
import { cellOf } from "./cell.js";

const HIGHEST = 8e6, CHUNK = 100, KEPT = 60, CAPTION = 44, GAP = 14, PADDING = 18;

export class Grid {
  constructor(dataset, filters, { size, from, onTotal, onError }) {
    Object.assign(this, { dataset, filters, onTotal, onError });
    this.wanted = size;
    this.list = el("ul", { class: "grid", "aria-label": "records" });
    this.scroller = el("div", { class: "scroller", tabindex: "-1" }, this.list);
    this.total = null;
    this.chunks = new Map();
    this.pending = new Map();
    this.cells = new Map();
    this.active = from;
    this.from = from;
    this.real = 0;
    this.top = 0;
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.list.addEventListener("focusin", (event) => {
      this.active = Number(event.target.closest("li").getAttribute("aria-posinset")) - 1;
    });
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(this.scroller);
    this.load(Math.floor(from / CHUNK));
  }

  close() {
    this.observer.disconnect();
    for (const { abort } of this.pending.values()) abort.abort();
    clearTimeout(this.waiting);
    clearTimeout(this.settling);
    clearTimeout(this.noting);
  }

  get view() { return this.scroller.clientHeight; }

  resize(size) {
    const first = this.firstSeen();
    this.wanted = size;
    this.layout(first);
  }

  resized() {
    if (this.total === null || !this.scroller.clientWidth) return;
    if (this.width !== this.scroller.clientWidth) this.layout(this.width ? this.firstSeen() : this.from);
    else this.draw();
  }

  layout(first) {
    if (this.total === null) return;
    this.width = this.scroller.clientWidth;
    const inner = this.width - 2 * PADDING;
    this.columns = Math.max(this.width < 520 ? 2 : 1, Math.floor((inner + GAP) / (this.wanted + GAP)));
    this.size = Math.floor((inner - GAP * (this.columns - 1)) / this.columns);
    this.high = this.size + CAPTION + GAP;
    this.full = Math.ceil(this.total / this.columns) * this.high + 2 * PADDING - GAP;
    this.list.style.height = `${Math.min(this.full, HIGHEST)}px`;
    for (const item of this.cells.values()) drop(item);
    this.cells.clear();
    this.jump(Math.floor(first / this.columns) * this.high);
  }

  // The scrollbar's place for a place of the whole, and back.
  shownAt(real) {
    if (this.full <= HIGHEST) return real;
    return real / Math.max(1, this.full - this.view) * (HIGHEST - this.view);
  }

  realAt(shown) {
    if (this.full <= HIGHEST) return shown;
    return shown / Math.max(1, HIGHEST - this.view) * (this.full - this.view);
  }

  jump(real) {
    this.real = Math.max(0, Math.min(real, this.full - this.view));
    this.top = Math.round(this.shownAt(this.real));
    this.scroller.scrollTop = this.top;
    this.top = this.scroller.scrollTop;
    this.draw();
  }

  scrolled() {
    if (this.total === null) return;
    const top = this.scroller.scrollTop, moved = top - this.top;
    if (!moved) return;
    const near = Math.abs(moved) <= this.view && top > 0 && top < HIGHEST - this.view - 1;
    this.real = this.full <= HIGHEST || !near ? this.realAt(top) : Math.max(0, Math.min(this.real + moved, this.full - this.view));
    this.top = top;
    this.draw(Math.abs(moved) > this.view);
    clearTimeout(this.settling);
    if (this.full > HIGHEST) this.settling = setTimeout(() => this.settle(), 200);
    clearTimeout(this.noting);
    this.noting = setTimeout(() => this.note(), 250);
  }

  // Brings the scrollbar to where it belongs, without a move of what is seen.
  settle() {
    const top = Math.round(this.shownAt(this.real));
    if (top === this.top) return;
    this.scroller.scrollTop = top;
    this.top = this.scroller.scrollTop;
    this.draw();
  }

  firstSeen() {
    return this.columns ? Math.min(this.total, Math.floor((this.real + this.high / 2) / this.high) * this.columns) : 0;
  }

  note() {
    const at = this.firstSeen();
    if (page() === "") history.replaceState(history.state, "", link("./", { ...asked(), at: at || null }));
  }

  draw(jumped = false) {
    if (this.total === null || !this.columns) return;
    const first = Math.max(0, Math.floor((this.real - PADDING) / this.high) - 1) * this.columns;
    const last = Math.min(this.total, (Math.ceil((this.real + this.view) / this.high) + 1) * this.columns);
    for (const [i, item] of this.cells) {
      if (i < first || i >= last) {
        drop(item);
        this.cells.delete(i);
      }
    }
    const missing = new Set();
    for (let i = first; i < last; i++) {
      const cells = this.chunks.get(Math.floor(i / CHUNK));
      if (!cells) missing.add(Math.floor(i / CHUNK));
      const cell = cells?.[i % CHUNK];
      let item = this.cells.get(i);
      if (!item) {
        item = el("li", { class: "waits", "aria-posinset": i + 1, "aria-setsize": this.total });
        item.style.width = `${this.size}px`;
        item.style.height = `${this.size + CAPTION}px`;
        this.cells.set(i, item);
        this.list.append(item);
      }
      if (cell && item.className === "waits") {
        item.className = "";
        item.replaceChildren(cellOf(cell, this.dataset, this.filters, this.size));
        if (this.focusing === i) this.focus(i);
      }
      const column = i % this.columns, row = Math.floor(i / this.columns);
      item.style.transform = `translate(${PADDING + column * (this.size + GAP)}px, ${Math.round(PADDING + row * this.high - this.real + this.top)}px)`;
    }
    for (const [number, { abort }] of this.pending) {
      if (!missing.has(number) && this.total !== null) {
        abort.abort();
        this.pending.delete(number);
      }
    }
    clearTimeout(this.waiting);
    if (missing.size) this.waiting = setTimeout(() => missing.forEach((number) => this.load(number)), jumped ? 70 : 0);
  }

  async load(number) {
    if (this.pending.has(number) || this.chunks.has(number)) return;
    const abort = new AbortController();
    this.pending.set(number, { abort });
    try {
      const said = await ask("api/records", { ...this.filters, first: number * CHUNK, n: CHUNK }, { signal: abort.signal });
      this.chunks.set(number, said.cells);
      if (this.chunks.size > KEPT) this.chunks.delete(this.chunks.keys().next().value);
      if (this.total === null) {
        this.total = said.total;
        this.onTotal(said.total);
        this.layout(Math.min(this.from, Math.max(0, said.total - 1)));
      }
    } catch (error) {
      if (error.name !== "AbortError") this.onError(error);
    } finally {
      if (this.pending.get(number)?.abort === abort) this.pending.delete(number);
    }
    this.draw();
  }

  // The ids from one place to another.
  async between(first, last) {
    for (let k = Math.floor(first / CHUNK); k <= Math.floor(last / CHUNK); k++) await this.load(k);
    const found = [];
    for (let i = first; i <= last; i++) {
      const cell = this.chunks.get(Math.floor(i / CHUNK))?.[i % CHUNK];
      if (cell) found.push(cell.id);
    }
    return found;
  }

  focus(i) {
    this.active = i;
    this.focusing = i;
    const anchor = this.cells.get(i)?.querySelector("a.cell");
    if (anchor) {
      anchor.focus({ preventScroll: true });
      this.focusing = null;
    }
  }

  // The keys of a grid; whether it was one.
  key(name) {
    if (!this.total) return false;
    const inside = this.list.contains(document.activeElement);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
    if (name in steps) {
      const from = inside ? this.active : this.firstSeen();
      const to = inside ? Math.max(0, Math.min(this.total - 1, from + steps[name])) : from;
      const top = PADDING + Math.floor(to / this.columns) * this.high;
      if (top < this.real + GAP) this.jump(top - PADDING);
      else if (top + this.high > this.real + this.view) this.jump(top + this.high - this.view);
      this.focus(to);
      return true;
    }
    if (name === "Home" || name === "End") {
      this.jump(name === "Home" ? 0 : this.full);
      this.focus(name === "Home" ? 0 : this.total - 1);
      return true;
    }
    return false;
  }
}

function drop(item) {
  item.querySelector("img")?.removeAttribute("src"); // what nobody sees any more is not fetched
  item.remove();
}
