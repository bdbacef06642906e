// The list of requests: as many rows as there will ever be, filled anew as requests come. It holds still while it is
// paused, pointed at, or moved in by the keyboard.

import { clock, count, kind, make, put, safe, short, took } from "./text.js";

const ROWS = 60;
const SAMPLE = 20; // snapshots that the note about sampling speaks of
const ASK = 1000; // milliseconds between two searches

export class Requests {
  constructor({ list, empty, sampled, filter, status, form }, open) {
    Object.assign(this, { list, empty, sampled, filter, status, open });
    this.newest = [];
    this.fresh = 0; // that came while the list was held
    this.counts = [];
    this.found = null; // what a search found, or null without one
    this.paused = false;
    this.ever = false;
    this.rows = Array.from({ length: ROWS }, () => this.row());
    list.append(...this.rows.map(row => row.item));
    this.current = 0;
    this.pointed = false;
    list.addEventListener("pointerenter", event => this.hold(event.pointerType === "mouse"));
    list.addEventListener("pointerleave", () => this.hold(false));
    list.addEventListener("focusout", () => queueMicrotask(() => this.render()));
    list.addEventListener("keydown", event => this.key(event));
    list.addEventListener("focusin", event => {
      const index = this.rows.findIndex(row => row.link === event.target);
      if (index >= 0) this.focusable(index);
    });
    form.addEventListener("submit", event => event.preventDefault());
    filter.addEventListener("input", () => this.search());
    status.addEventListener("change", () => this.search());
    filter.addEventListener("keydown", event => {
      if (event.key === "ArrowDown") {
        event.preventDefault();
        this.move(0);
      }
    });
  }

  row() {
    const parts = Object.fromEntries(
      ["status", "time", "method", "target", "again", "pool", "worker", "took"].map(name => [name, make("span", name)]),
    );
    const { status, time, method, target, again, pool, worker, took: length } = parts;
    const link = make("a", "row", "", status, time, make("span", "what", "", method, target, again), pool, worker, length);
    link.tabIndex = -1;
    const item = make("li", "", "", link);
    item.hidden = true;
    return { item, link, parts, id: null };
  }

  /** A snapshot's newest requests. */
  take({ rows, of }, again) {
    // After a reconnection rows come that were there before.
    const there = again ? new Set(this.newest.map(request => request.id)) : null;
    const fresh = there ? rows.filter(request => !there.has(request.id)) : rows;
    this.counts.push([rows.length, of]);
    if (this.counts.length > SAMPLE) this.counts.shift();
    if (fresh.length) {
      this.ever = true;
      this.newest = [...fresh, ...this.newest].slice(0, ROWS);
      if (this.held && !this.found) this.fresh += of;
    }
    this.render();
  }

  get searching() {
    return Boolean(this.filter.value.trim() || this.status.value);
  }

  get held() {
    return this.paused || this.pointed || this.list.contains(document.activeElement);
  }

  hold(pointed) {
    this.pointed = pointed;
    this.render();
  }

  pause(paused) {
    this.paused = paused;
    this.render();
  }

  render() {
    if (!this.held) {
      this.fresh = 0;
      this.show(this.found ?? this.newest);
    }
    this.tell();
  }

  show(requests) {
    this.rows.forEach((row, i) => {
      const request = requests[i];
      if (row.item.hidden !== !request) row.item.hidden = !request;
      if (!request || row.id === request.id) return;
      row.id = request.id;
      this.fill(row, request);
    });
    this.shown = Math.min(requests.length, ROWS);
    this.focusable(Math.min(this.current, Math.max(this.shown - 1, 0)));
    this.empty.hidden = this.shown > 0;
    if (!this.shown) {
      const [say, command] = this.empty.children;
      put(say, this.searching ? "Nothing among the newest requests fits." : "No requests yet.");
      command.hidden = this.searching;
    }
  }

  fill({ link, parts }, request) {
    const { status, method, target, attempt, at, reason, pool, worker, leg } = request;
    link.href = `#request=${encodeURIComponent(request.id)}`;
    link.dataset.kind = kind(request);
    put(parts.status, status ?? "–");
    put(parts.time, clock(at));
    put(parts.method, method ?? "");
    put(parts.target, target ?? "");
    parts.target.title = safe(target);
    put(parts.again, [leg && leg !== "primary" ? leg : "", attempt > 1 ? `attempt ${attempt}` : "", reason ?? ""].filter(Boolean).join(" · "));
    put(parts.pool, pool ?? "–");
    put(parts.worker, worker ? short(worker) : "–");
    parts.worker.title = safe(worker);
    put(parts.took, took(request.total_ms));
  }

  /** What of all requests is on the page, and why no more. */
  tell() {
    const shown = this.counts.reduce((sum, [rows]) => sum + rows, 0), all = this.counts.reduce((sum, [, of]) => sum + of, 0);
    const parts = [];
    if (this.searching) {
      if (this.found) parts.push(`${this.found.length === ROWS ? `The newest ${ROWS}` : this.found.length} that fit, of ${count(this.remembered)} remembered`);
    } else if (shown < all) {
      parts.push(`Sampled: ${count(shown)} of the last ${count(all)} are shown`);
    } else if (this.shown) {
      parts.push("Each request is shown");
    }
    if (this.held && (this.shown || this.fresh)) {
      parts.push(`held${this.paused ? " by pause" : ""}${this.fresh ? `, ${count(this.fresh)} newer` : ""}`);
    }
    put(this.sampled, parts.join(" · "));
  }

  // --- search: the tap looks through all that it remembers, not only through what was sampled

  search() {
    clearTimeout(this.asking);
    if (!this.searching) {
      this.found = null;
      this.render();
      return;
    }
    this.asking = setTimeout(() => this.ask(), 150);
  }

  async ask() {
    clearTimeout(this.asking);
    const asked = new URLSearchParams({ limit: ROWS });
    if (this.filter.value.trim()) asked.set("q", this.filter.value.trim());
    if (this.status.value) asked.set("status", this.status.value);
    try {
      if (!document.hidden && !this.held) {
        const answer = await fetch(`/api/requests?${asked}`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
        if (answer.ok) {
          const { requests, remembered } = await answer.json();
          if (this.searching) Object.assign(this, { found: requests, remembered });
          this.render();
        }
      }
    } catch {
      // The page says already that the tap is away; the next search is due in a second.
    }
    clearTimeout(this.asking);
    if (this.searching) this.asking = setTimeout(() => this.ask(), ASK);
  }

  clear() {
    this.filter.value = this.status.value = "";
    this.search();
  }

  // --- keyboard: the list is one stop of the Tab key

  focusable(index) {
    this.rows[this.current].link.tabIndex = -1;
    this.current = index;
    this.rows[index].link.tabIndex = 0;
  }

  move(index) {
    if (!this.shown) return;
    this.focusable(Math.max(0, Math.min(index, this.shown - 1)));
    this.rows[this.current].link.focus();
    this.tell();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const to = {
      ArrowDown: this.current + 1, ArrowUp: this.current - 1, j: this.current + 1, k: this.current - 1,
      PageDown: this.current + 10, PageUp: this.current - 10, Home: 0, End: ROWS,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.move(to);
  }
}
