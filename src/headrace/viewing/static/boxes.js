// Boxes that can be mended: chosen, dragged, by their corners and edges, drawn anew, called something else.

import { choose } from "./choose.js";
import { el } from "./dom.js";
import { number } from "./draft.js";
import { colour } from "./overlay.js";

const EDGES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const STILL = 3; // pixels of the screen that a hand may shake without moving anything
const LEAST = 1; // pixel of the image that a box is wide and high

const tenth = (value) => Math.round(value * 10) / 10;

export class Mender {
  // `objects`: [{ of, box, name, moved }]; `changed(objects)` is told of each finished change.
  constructor(dataset, width, height, objects, changed) {
    Object.assign(this, { dataset, width, height, objects, changed });
    this.active = null;
    this.last = null;
    this.layer = el("div", { class: "mender", role: "group", "aria-label": "boxes" });
    this.fill();
  }

  fill() {
    const order = this.objects.map((_, i) => i).sort((a, b) => area(this.objects[b].box) - area(this.objects[a].box));
    this.shapes = new Array(this.objects.length);
    for (const i of order) {
      const one = this.objects[i];
      this.shapes[i] = el("div", { class: "boxed", tabindex: "0", role: "button", "data-mend": i },
        el("span", { class: "tag", text: one.name ?? "box" }), ...EDGES.map((edge) => el("i", { class: `grip ${edge}`, "data-edge": edge })));
      this.shapes[i].addEventListener("pointerdown", (event) => this.press(event, i));
      this.shapes[i].addEventListener("focus", () => this.choose(i, false));
      this.shapes[i].addEventListener("dblclick", (event) => { event.stopPropagation(); this.rename(); });
      this.place(i);
    }
    this.layer.replaceChildren(...order.map((i) => this.shapes[i]));
    this.marked();
  }

  place(i) {
    const { box: [x0, y0, x1, y1], name } = this.objects[i], shape = this.shapes[i];
    const [w, h] = [this.width / 100, this.height / 100];
    Object.assign(shape.style, { left: `${x0 / w}%`, top: `${y0 / h}%`, width: `${(x1 - x0) / w}%`, height: `${(y1 - y0) / h}%` });
    shape.style.setProperty("--own", colour(number(this.dataset, name)));
    shape.setAttribute("aria-label", `${name ?? "box"}, box ${i + 1} of ${this.objects.length}: x ${tenth(x0)} to ${tenth(x1)}, y ${tenth(y0)} to ${tenth(y1)}`);
  }

  marked() {
    this.shapes.forEach((shape, i) => {
      shape.classList.toggle("active", i === this.active);
      shape.setAttribute("aria-pressed", String(i === this.active));
    });
    this.layer.classList.toggle("drawing", Boolean(this.drawing));
  }

  choose(i, focus = true) {
    this.active = i !== null && i < this.objects.length ? i : null;
    if (this.active !== null) this.last = this.objects[this.active].name;
    this.marked();
    if (focus && this.active !== null) this.shapes[this.active].focus({ preventScroll: true });
    this.chosen?.(this.active);
  }

  get scale() { return this.layer.getBoundingClientRect().width / this.width; }

  press(event, i) {
    if (event.button || this.drawing) return;
    event.stopPropagation();
    const was = this.active === i, edge = event.target.dataset.edge ?? "";
    event.preventDefault();
    this.choose(i);
    if (!was) return; // the first press says which one is meant
    this.drag(event, this.shapes[i], this.objects[i].box, edge || "move", (box) => { this.objects[i] = { ...this.objects[i], box, moved: true }; this.place(i); }, () => this.finish());
  }

  drag(event, shape, from, edge, put, finish) {
    const start = [event.clientX, event.clientY], scale = this.scale;
    let began = false;
    shape.setPointerCapture(event.pointerId);
    const move = (next) => {
      const dx = (next.clientX - start[0]) / scale, dy = (next.clientY - start[1]) / scale;
      if (!began && Math.hypot(next.clientX - start[0], next.clientY - start[1]) < STILL) return;
      began = true;
      put(this.moved(from, edge, dx, dy));
      next.stopPropagation();
    };
    const end = () => {
      shape.removeEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel"]) shape.removeEventListener(name, end);
      finish(began);
    };
    shape.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) shape.addEventListener(name, end);
  }

  // A box after its edge, corner or whole was moved so far; it stays within the image.
  moved([x0, y0, x1, y1], edge, dx, dy) {
    const { width, height } = this, within = (value, low, high) => tenth(Math.max(low, Math.min(high, value)));
    if (edge === "move") {
      const x = Math.max(-x0, Math.min(width - x1, dx)), y = Math.max(-y0, Math.min(height - y1, dy));
      return [x0 + x, y0 + y, x1 + x, y1 + y].map(tenth);
    }
    return [edge.includes("w") ? within(x0 + dx, 0, x1 - LEAST) : x0, edge.includes("n") ? within(y0 + dy, 0, y1 - LEAST) : y0,
      edge.includes("e") ? within(x1 + dx, x0 + LEAST, width) : x1, edge.includes("s") ? within(y1 + dy, y0 + LEAST, height) : y1];
  }

  finish(began = true) { if (began) this.changed(this.objects); }

  // By keys: pixels to move by, or with `grow` for the far corner.
  nudge(dx, dy, grow) {
    const i = this.active;
    this.objects = this.objects.map((one, k) => (k === i ? { ...one, box: this.moved(one.box, grow ? "se" : "move", dx, dy), moved: true } : one));
    this.place(i);
    this.finish();
  }

  remove() {
    const i = this.active;
    this.objects = this.objects.filter((_, k) => k !== i);
    this.active = this.objects.length ? Math.min(i, this.objects.length - 1) : null;
    this.fill();
    this.finish();
    this.choose(this.active);
  }

  name(name) {
    const i = this.active;
    this.last = name;
    this.objects = this.objects.map((one, k) => (k === i ? { ...one, name } : one));
    this.fill();
    this.finish();
    this.choose(i);
  }

  async rename() {
    const i = this.active;
    if (i === null) return;
    const name = await choose("What is in this box?", this.dataset.box_classes, { current: this.objects[i].name });
    if (name !== undefined && name !== null && this.active === i) this.name(name);
  }

  // From now on a drag over the image draws a box.
  begin() {
    this.drawing = !this.drawing;
    this.marked();
    if (!this.drawing) return;
    const sheet = el("div", { class: "sheet" });
    sheet.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.stopPropagation();
      event.preventDefault();
      const { left, top } = this.layer.getBoundingClientRect(), scale = this.scale;
      const at = ([x, y]) => [Math.max(0, Math.min(this.width, (x - left) / scale)), Math.max(0, Math.min(this.height, (y - top) / scale))];
      const [ax, ay] = at([event.clientX, event.clientY]);
      const shape = el("div", { class: "boxed active fresh" });
      this.layer.append(shape);
      let made = null;
      sheet.setPointerCapture(event.pointerId);
      const move = (next) => {
        next.stopPropagation();
        const [bx, by] = at([next.clientX, next.clientY]);
        made = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)].map(tenth);
        Object.assign(shape.style, { left: `${100 * made[0] / this.width}%`, top: `${100 * made[1] / this.height}%`, width: `${100 * (made[2] - made[0]) / this.width}%`, height: `${100 * (made[3] - made[1]) / this.height}%` });
      };
      sheet.addEventListener("pointermove", move);
      const end = () => {
        this.stop();
        if (!made || made[2] - made[0] < 2 * LEAST || made[3] - made[1] < 2 * LEAST) { this.fill(); return; }
        const name = this.last ?? this.dataset.box_classes[0] ?? null;
        this.objects = [...this.objects, { of: null, box: made, name, moved: true }];
        this.active = this.objects.length - 1;
        this.fill();
        this.finish();
        this.choose(this.active);
      };
      for (const name of ["pointerup", "pointercancel"]) sheet.addEventListener(name, end, { once: true });
    });
    this.layer.append(sheet);
    this.told?.(true);
  }

  stop() {
    this.drawing = false;
    this.layer.querySelector(".sheet")?.remove();
    this.marked();
    this.told?.(false);
  }

  key(event) {
    const inside = this.layer.contains(document.activeElement) && this.active !== null;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (name === "n") { if (this.drawing) this.stop(); else this.begin(); return true; }
    if (name === "Escape" && this.drawing) { this.stop(); return true; }
    if (!inside) return false;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[name];
    if (step) { this.nudge(...step, event.shiftKey); return true; }
    if (name === "Delete" || name === "Backspace" || name === "x") { this.remove(); return true; }
    if (name === "c" || name === "Enter") { this.rename(); return true; }
    if (/^[1-9]$/.test(name)) {
      const of = this.dataset.box_classes[name - 1];
      if (of !== undefined) this.name(of);
      return true;
    }
    if (name === "Escape") { document.activeElement.blur(); this.choose(null); return true; }
    return false;
  }
}

const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
