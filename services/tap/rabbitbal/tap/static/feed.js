// The connection to the tap: opens it, notices when it is silent, opens it again. Closed while nobody can see the page.

const SILENCE = 5000; // a snapshot is due every half second
const AGAIN = 2000;

export function follow(onSnapshot, onLink) {
  let source = null, last = 0, lost = 0, again = 0, why = "";

  function open() {
    close();
    last = performance.now();
    source = new EventSource("/api/events");
    source.addEventListener("history", receive);
    source.addEventListener("tick", receive);
    source.onerror = () => {
      down("");
      // A browser does not come again by itself where the answer was an error.
      if (source?.readyState === EventSource.CLOSED) retry();
    };
  }

  function close() {
    clearTimeout(again);
    again = 0;
    source?.close();
    source = null;
  }

  function retry() {
    close();
    again = setTimeout(() => document.hidden || (explain(), open()), AGAIN);
  }

  /** Why the tap refuses, where it says so: an EventSource does not tell. */
  async function explain() {
    try {
      const answer = await fetch("/api/live", { cache: "no-store", signal: AbortSignal.timeout(2000) });
      why = answer.status === 200 ? "" : `status ${answer.status}`;
    } catch {
      why = "";
    }
  }

  function receive(event) {
    last = performance.now();
    let snapshot;
    try {
      snapshot = JSON.parse(event.data);
    } catch {
      return down("it says what makes no sense");
    }
    lost = 0;
    onLink({ up: true });
    onSnapshot(snapshot, event.type === "history");
  }

  function down(reason) {
    lost ||= Date.now();
    onLink({ up: false, since: lost, why: reason || why });
  }

  setInterval(() => {
    if (document.hidden || !source || performance.now() - last < SILENCE) return;
    down("it is silent");
    open();
  }, 1000);
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  if (!document.hidden) open();
}
