// Text and elements. Whatever a request brought is hostile: it becomes text, never markup.

const numbers = new Intl.NumberFormat("en");
// Controls, and what turns the direction of text or hides in it.
const ODD = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

export const count = value => (value == null ? "–" : numbers.format(value));

export const safe = value => String(value ?? "").replace(ODD, c => `\\u{${c.charCodeAt(0).toString(16)}}`);

/** An element, its class and its text; children may follow. */
export function make(tag, name = "", text = "", ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(document.createTextNode(safe(text)), ...children);
  return node;
}

/** Change the first text of an element that `make` made. Nothing is done where nothing changes. */
export function put(node, text) {
  const shown = node.firstChild ?? node.appendChild(document.createTextNode(""));
  const wanted = safe(text);
  if (shown.nodeValue !== wanted) shown.nodeValue = wanted;
}

/** [number, unit] of milliseconds. */
export function duration(ms) {
  if (ms == null) return ["–", ""];
  if (ms === 0) return ["0", "ms"];
  if (ms < 10) return [ms.toFixed(ms < 1 ? 2 : 1), "ms"];
  if (ms < 999.5) return [ms.toFixed(0), "ms"];
  if (ms < 99_950) return [(ms / 1000).toFixed(ms < 9_995 ? 2 : 1), "s"];
  return [(ms / 60_000).toFixed(1), "min"];
}

export const took = ms => duration(ms).join(" ").trim();

export const rate = value => (value == null ? "–" : value >= 100 ? numbers.format(Math.round(value)) : value ? value.toFixed(1) : "0");

export function size(bytes) {
  if (bytes == null) return "–";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (bytes < 1024 || unit === "GiB") return `${unit === "B" ? bytes : bytes.toFixed(1)} ${unit}`;
    bytes /= 1024;
  }
}

const two = value => String(value).padStart(2, "0");

export function clock(ms, fine = false) {
  if (ms == null) return "–";
  const at = new Date(ms);
  const text = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return fine ? `${text}.${String(at.getMilliseconds()).padStart(3, "0")}` : text;
}

/** A service's id is its container's and its process's: the start tells it from others. */
export const short = id => (id == null ? "" : safe(id).replace(/^([0-9a-f]{8})[0-9a-f]{4}-[0-9a-f]{6}$/, "$1"));

/** How a row is coloured. */
export function kind(request) {
  const { status, reason } = request;
  if (reason === "client-gone" || reason === "superseded") return "gone";
  return status >= 500 ? "failed" : status >= 400 ? "refused" : status >= 300 ? "moved" : "good";
}
