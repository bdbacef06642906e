// A request's own story: who had it when, as bars over its time, and each step with its time.

import { clock, count, kind, make, put, safe, short, size, took } from "./text.js";

const SAID = {
  published: "published by the edge",
  claim: "claimed: a worker runs it",
  redelivered: "its worker was lost; the broker gave it to another",
  head: "the response began",
  response: "answered",
  ended: "the edge ended it",
};

export class Story {
  constructor(dialog) {
    this.dialog = dialog;
    this.title = dialog.querySelector("h2");
    this.body = dialog.querySelector(".body");
    this.asked = null;
    this.books = false; // whether the tap keeps any
  }

  /** Shows the request that the address names, or closes. */
  async follow() {
    const id = new URLSearchParams(location.hash.slice(1)).get("request");
    clearTimeout(this.again);
    this.asked = id;
    if (!id) {
      if (this.dialog.open) this.dialog.close();
      return;
    }
    if (!this.dialog.open) this.dialog.showModal();
    put(this.title, `Request ${id.slice(0, 12)}`);
    this.body.replaceChildren(make("p", "soft", "Asking the tap…"));
    await this.ask(id);
  }

  async ask(id) {
    let story, error;
    try {
      const answer = await fetch(`/api/requests/${encodeURIComponent(id)}`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      const told = await answer.json();
      if (answer.ok) story = told;
      else error = answer.status === 404 ? "The tap does not remember this request: it keeps the newest ones only, and none from before its start." : safe(told.detail ?? answer.status);
    } catch {
      error = "The tap does not answer.";
    }
    // Another was opened meanwhile.
    if (this.asked !== id) return;
    if (error) return this.body.replaceChildren(make("p", "soft", error));
    this.show(story);
    if (!story.ended) this.again = setTimeout(() => this.ask(id), 1000);
  }

  show(story) {
    put(this.title, `Request ${story.id.slice(0, 12)}`);
    const line = make("p", "asked", "", make("b", "", story.method ?? ""), make("span", "target", ` ${safe(story.target ?? "(it has not ended yet)")}`));
    const parts = [line, this.verdict(story), gantt(story), steps(story), facts(story)];
    if (story.copies?.length) parts.push(copies(story.copies));
    if (this.books) parts.push(make("p", "soft", "", link(`/api/ledger/requests/${encodeURIComponent(story.id)}`, "Its entries in the books")));
    this.body.replaceChildren(...parts.filter(Boolean));
  }

  verdict(story) {
    if (!story.ended) return make("p", "verdict", "It has not ended yet.");
    const text = story.reason ? `${story.status ?? ""} ${story.reason}` : `${story.status}`;
    const node = make("p", "verdict", "", make("span", "badge", text.trim()), make("span", "", ` in ${took(story.total_ms)}`));
    node.dataset.kind = kind(story);
    return node;
  }
}

function link(href, text) {
  const node = make("a", "", text);
  node.href = href;
  return node;
}

/** Spans of time by lane, in milliseconds from the request's beginning. What nobody told is not drawn. */
export function spans(story) {
  const steps = story.steps.filter(step => step.at != null).sort((a, b) => a.at - b.at);
  if (!steps.length) return null;
  const begin = Math.min(story.began ?? Infinity, steps[0].at);
  const end = Math.max(steps.at(-1).at, begin + (story.total_ms ?? 0), ...steps.map(step => step.at));
  const found = [{ lane: "edge", name: "edge", from: begin, to: end, open: !story.ended }];
  const attempts = [...new Set(steps.map(step => step.attempt))];
  for (const attempt of attempts) {
    const of = what => steps.find(step => step.attempt === attempt && step.what === what);
    const [published, claim, head, response, ended, lost] = ["published", "claim", "head", "response", "ended", "redelivered"].map(of);
    if (!published) continue;
    const answer = head ?? response;
    const over = (response ?? ended ?? lost)?.at ?? end;
    const start = answer?.app_ms != null ? Math.max(published.at, answer.at - answer.app_ms) : claim?.at ?? null;
    const tag = attempts.length > 1 ? ` #${attempt}` : "";
    found.push({ lane: "queue", name: `queue${tag}`, from: published.at, to: start ?? over });
    if (start == null) continue;
    const who = short((answer ?? claim).by);
    found.push({ lane: lost && !answer ? "lost" : "worker", name: `${lost && !answer ? "lost" : "worker"} ${who}${tag}`, from: start, to: head?.at ?? over });
    if (head) found.push({ lane: "stream", name: "body", from: head.at, to: (ended ?? response)?.at ?? end });
  }
  return { begin, end, found };
}

function gantt(story) {
  const told = spans(story);
  if (!told) return null;
  const { begin, end, found } = told, whole = Math.max(end - begin, 1);
  const rows = found.map(({ lane, name, from, to }) => {
    const bar = make("i", `span ${lane}`);
    // Clocks of edge and worker may differ: a bar never leaves its lane.
    const left = clamp((from - begin) / whole), width = Math.max(clamp((to - begin) / whole) - left, 0);
    bar.style.left = `${left * 100}%`;
    bar.style.width = `${width * 100}%`;
    return make("div", "lane", "", make("span", "name", name), make("span", "track", "", bar), make("span", "length", took(Math.max(to - from, 0))));
  });
  const chart = make("div", "gantt", "", ...rows, make("div", "lane axis", "", make("span"), make("span", "track", "", make("span", "", "0"), make("span", "", took(whole / 2)), make("span", "", took(whole))), make("span")));
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", `Timeline: ${found.map(span => `${span.name} ${took(span.to - span.from)}`).join("; ")}`);
  return chart;
}

const clamp = share => Math.min(Math.max(share, 0), 1);

function steps(story) {
  const sorted = [...story.steps].sort((a, b) => (a.at ?? 0) - (b.at ?? 0));
  const begin = story.began ?? sorted[0]?.at;
  const several = sorted.some(step => step.attempt > 1);
  const rows = sorted.map(({ what, at, by, attempt, pool, reason, app_ms }) => {
    const detail = [pool && `pool ${pool}`, reason, app_ms != null && `${took(app_ms)} in the application`, several && `attempt ${attempt}`];
    return make("li", "", "",
      make("time", "", at == null ? "–" : `+${took(Math.max(at - begin, 0))}`),
      make("span", "", "", make("b", "", SAID[what] ?? what), make("span", "soft", ` ${[short(by), ...detail].filter(Boolean).join(" · ")}`)));
  });
  return make("ol", "steps", "", ...rows);
}

function facts(story) {
  const told = [
    ["Began", story.began && new Date(story.began).toLocaleDateString("en-CA") + " " + clock(story.began, true)],
    ["Route", story.route], ["Pool", story.pool], ["Worker", story.worker], ["Edge", story.edge],
    ["Attempt", story.attempt], ["Queue", story.queue_ms != null && took(story.queue_ms)],
    ["Application", story.app_ms != null && took(story.app_ms)],
    ["Sent, received", story.bytes != null && `${size(story.bytes)}, ${size(story.request_bytes)}`],
    ["Client", story.client], ["Host", story.host], ["Agent", story.agent], ["Referer", story.referer],
    ["Upgrade", story.upgrade], ["Copy", story.leg], ["Group", story.group], ["Partition", story.partition], ["Id", story.id],
  ].filter(([, value]) => value != null && value !== false && value !== "");
  return make("dl", "facts", "", ...told.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
}

function copies(found) {
  const rows = found.map(copy => make("li", "", "", link(`#request=${encodeURIComponent(copy.id)}`, `${copy.leg ?? "copy"} · ${copy.pool ?? "–"} · ${copy.status ?? "–"}${copy.reason ? ` ${copy.reason}` : ""} · ${took(copy.total_ms)}`)));
  return make("section", "copies", "", make("h3", "", `Its other copies (${count(found.length)})`), make("ul", "", "", ...rows));
}
