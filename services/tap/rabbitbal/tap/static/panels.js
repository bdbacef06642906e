// The panels beside the list: pools, workers, endings, attempts, and those that other parts of the tap fill.

import { count, make, put, rate, short, took } from "./text.js";

const MOST = 40; // rows of a panel
const PIPS = 24; // slots that are drawn one by one

/** Rows of a panel, by key: made once, changed where something changes, removed when gone. */
class Rows {
  constructor(box, build) {
    this.box = box;
    this.build = build;
    this.rows = new Map();
    this.more = make("p", "soft more");
    this.more.hidden = true;
    box.append(this.more);
  }

  show(entries, update, beyond = 0) {
    const kept = entries.slice(0, MOST), wanted = new Set(kept.map(([key]) => key));
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      row.node.remove();
      this.rows.delete(key);
    }
    kept.forEach(([key, value], i) => {
      let row = this.rows.get(key);
      if (!row) this.rows.set(key, (row = this.build(key)));
      update(row, value, key);
      if (this.box.children[i] !== row.node) this.box.insertBefore(row.node, this.box.children[i]);
    });
    beyond += Math.max(entries.length - MOST, 0);
    this.more.hidden = !beyond;
    put(this.more, `and ${count(beyond)} more`);
  }
}

/** Facts on one line that breaks between them only. */
const facts = told => told.map(text => text.replaceAll(" ", "\u00a0")).join(" · ");
const parts = (...names) => Object.fromEntries(names.map(name => [name, make("span", name)]));

function barRow(key) {
  const { name, bar, value } = parts("name", "bar", "value");
  put(name, key);
  return { node: make("div", "barred", "", name, bar, value), name, bar, value };
}

function slotsRow() {
  const { name, slots, value, detail } = parts("name", "slots", "value", "detail");
  return { node: make("div", "slotted", "", name, value, slots, detail), name, slots, value, detail };
}

function slots(node, running, all) {
  node.classList.toggle("pips", all <= PIPS);
  node.style.setProperty("--all", Math.max(all, 1));
  node.style.setProperty("--used", Math.min(running, all));
  node.hidden = !all;
}

export class Panels {
  constructor(root) {
    this.cards = Object.fromEntries([...root.children].map(card => [card.id, card]));
    const box = name => this.cards[name].querySelector(".body");
    this.pools = new Rows(box("pools"), slotsRow);
    this.workers = new Rows(box("workers"), slotsRow);
    this.edges = new Rows(box("edges"), key => this.fact(key));
    this.endings = new Rows(box("endings"), barRow);
    this.attempts = new Rows(box("attempts"), barRow);
    this.books = new Rows(box("books"), key => this.fact(key));
    this.suspects = new Rows(box("suspects"), key => this.fact(key));
  }

  fact(key) {
    const { name, value, detail } = parts("name", "value", "detail");
    put(name, key);
    return { node: make("div", "fact", "", name, value, detail), name, value, detail };
  }

  show({ recent, endings, panels }) {
    const fleet = panels.fleet?.error ? null : panels.fleet;
    this.showPools(recent.pools, fleet, panels.queues ?? {}, panels.autoscale ?? {});
    this.card("workers", fleet?.workers.length);
    this.card("edges", fleet?.edges.length);
    if (fleet) this.showFleet(fleet);
    this.showCounts(this.endings, endings.reasons, (row, key) => (row.bar.dataset.kind = key === "answered" ? "good" : ["client-gone", "superseded"].includes(key) ? "gone" : "failed"));
    this.card("attempts", Object.keys(endings.attempts).length);
    this.showCounts(this.attempts, endings.attempts, () => {}, (a, b) => (a[0] > b[0] ? 1 : -1));
    this.showFacts("books", panels.books);
    this.showFacts("suspects", panels.suspects);
  }

  card(name, shown) {
    if (this.cards[name].hidden === Boolean(shown)) this.cards[name].hidden = !shown;
  }

  /** Slots of all workers of a pool, what waits in its queue, and what it would take. */
  showPools(recent, fleet, queues, autoscale) {
    const all = new Map();
    const of = name => all.get(name) ?? all.set(name, { slots: 0, running: 0 }).get(name);
    for (const [name, told] of [...Object.entries(fleet?.pools ?? {}), ...Object.entries(recent)]) Object.assign(of(name), told);
    for (const [name, waiting] of Object.entries(queues.pools ?? {})) of(name).waiting = waiting;
    for (const [name, desired] of Object.entries(autoscale.pools ?? {})) of(name).desired = desired;
    this.pools.show([...all].sort(([a], [b]) => (a > b ? 1 : -1)), (row, pool, name) => {
      put(row.name, name);
      put(row.value, `${rate(pool.rate ?? 0)}/s`);
      slots(row.slots, pool.running, pool.slots);
      const told = [];
      if (pool.slots) told.push(`${count(pool.running)} of ${count(pool.slots)} slots`);
      if (pool.waiting != null) told.push(`${count(pool.waiting)} in the queue`);
      if (pool.wait?.[0] != null) told.push(`wait ${took(pool.wait[0])}, p95 ${took(pool.wait[1])}`);
      if (pool.desired != null) told.push(`wants ${count(pool.desired)} worker${pool.desired === 1 ? "" : "s"}`);
      put(row.detail, facts(told));
    });
    this.cards.pools.classList.toggle("bare", !all.size);
  }

  showFleet({ workers, edges, more }) {
    this.edges.show(edges.map(edge => [edge.id, edge]), (row, edge, id) => {
      put(row.name, short(id));
      row.name.title = id;
      put(row.value, `${count(edge.pending)} pending`);
      put(row.detail, "");
    });
    this.workers.show(workers.map(worker => [worker.id, worker]), (row, worker, id) => {
      const pools = Object.entries(worker.pools);
      const all = pools.reduce((sum, [, pool]) => sum + pool.slots, 0), running = pools.reduce((sum, [, pool]) => sum + pool.running, 0);
      put(row.name, short(id));
      row.name.title = id;
      put(row.value, `${running}/${all}`);
      slots(row.slots, running, all);
      const told = pools.length > 1 ? pools.map(([name, pool]) => `${name} ${pool.running}/${pool.slots}`) : pools.map(([name]) => name);
      if (worker.streams) told.push(`${count(worker.streams)} streams`);
      if (worker.drained) told.push("drained");
      put(row.detail, facts(told));
      row.node.classList.toggle("drained", Boolean(worker.drained));
    }, more);
  }

  showCounts(rows, counts, mark, order = (a, b) => b[1] - a[1]) {
    const entries = Object.entries(counts).sort(order), sum = entries.reduce((all, [, value]) => all + value, 0);
    rows.show(entries, (row, value, key) => {
      mark(row, key);
      row.bar.style.setProperty("--share", sum ? value / sum : 0);
      put(row.value, count(value));
    });
  }

  /** What another part of the tap says: rows of [name, value, detail, kind]. */
  showFacts(name, told) {
    const rows = told?.error ? [["", told.error]] : told?.rows ?? [];
    this.card(name, rows.length);
    this[name].show(rows.map(row => [row[0], row]), (row, [, value, detail, mark]) => {
      put(row.value, value ?? "");
      put(row.detail, detail ?? "");
      row.node.dataset.kind = mark ?? "";
    });
  }
}
