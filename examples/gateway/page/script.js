const REASONS = ["normal", "preflight", "rate_limit", "adaptive", "batch"];
const WAITS = {
  normal: "none", preflight: "its turn", rate_limit: "the server asked", adaptive: "after refusals", batch: "its group",
};
const EVERY = 1000, PATIENCE = 5000, MINUTE = 60;
const get = (id) => document.getElementById(id);
const sum = (values) => values.reduce((a, b) => a + b, 0);

const percent = (share) => share === null ? "–" : `${(share * 100).toFixed(share === 1 || share === 0 ? 0 : 1)} %`;
const number = (value) => value >= 100 ? Math.round(value).toLocaleString("en") : String(Math.round(value * 10) / 10);
function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function row(cells) {
  const tr = document.createElement("tr");
  cells.forEach((cell, index) => {
    const element = document.createElement(index ? "td" : "th");
    if (!index) element.scope = "row";
    if (cell instanceof Node) element.append(cell); else element.textContent = cell;
    tr.append(element);
  });
  return tr;
}
function fill(table, rows) {
  get(table).tBodies[0].replaceChildren(...rows.map(row));
}
function say(id, text) {
  // Screen readers speak up when it changes, so it must not change for nothing.
  if (get(id).textContent !== text) get(id).textContent = text;
}

function showRates(history) {
  const minute = history.slice(-MINUTE);
  const share = (part, seconds) => {
    const calls = sum(seconds.map((second) => second.calls));
    return calls ? sum(seconds.map((second) => second[part])) / calls : null;
  };
  for (const [id, part, name] of [["success", "served", "Success rate"], ["fallback", "fallback", "Fallback rate"]]) {
    const now = share(part, minute);
    get(id).textContent = percent(now);
    // A few seconds together, so that single calls make no saw.
    const values = history.map((_, index) => share(part, history.slice(Math.max(0, index - 4), index + 1)));
    draw(get(`${id}-chart`), [{ name: part, kind: "area", values }], 1, "100 %", `${name} over two minutes, now ${percent(now)}`);
  }
}

function showPace(history) {
  const values = (of) => history.map(of);
  const accepted = values((second) => second.accepted), refused = values((second) => second.refused);
  const rate = values((second) => second.rate);
  const max = Math.max(1, ...accepted, ...refused, ...rate.filter((value) => value !== null && value < 1e6)) * 1.1;
  const minute = history.slice(-MINUTE), seconds = Math.max(minute.length, 1);
  const mean = (of) => number(sum(minute.map(of)) / seconds);
  const now = rate.length ? rate[rate.length - 1] : null;
  const note = `last minute: ${mean((s) => s.accepted)} accepted and ${mean((s) => s.refused)} refused a second; `
    + (now === null ? "no rate is known yet" : `the gates allow ${number(now)}`);
  get("rate-note").textContent = note;
  draw(get("rate-chart"), [
    { name: "refused", kind: "bars", values: refused },
    { name: "accepted", kind: "area", values: accepted },
    { name: "rate", kind: "line", values: rate },
  ], max, `${number(max)} a second`, `Calls a second, ${note}`);
}

function showTime(history) {
  const minute = history.slice(-MINUTE);
  const parts = [["service", "service", sum(minute.map((second) => second.service))]];
  REASONS.forEach((reason, index) => {
    if (reason !== "normal") parts.push([reason, `waiting: ${WAITS[reason]}`, sum(minute.map((second) => second.waited[index]))]);
  });
  const all = sum(parts.map(([, , seconds]) => seconds));
  const shown = parts.filter(([name, , seconds]) => name === "service" || seconds > 0);
  get("time-bar").setAttribute("aria-label", shown.map(([, name, s]) => `${name} ${percent(all ? s / all : null)}`).join(", "));
  get("time-bar").replaceChildren(...shown.filter(([, , seconds]) => seconds > 0).map(([name, , seconds]) => {
    const part = document.createElement("div");
    part.className = name;
    part.style.flex = `${seconds / all} 0 0`;
    return part;
  }));
  get("time-legend").replaceChildren(...shown.map(([name, text, seconds]) => {
    const item = document.createElement("li");
    const key = document.createElement("i");
    key.className = `k ${name}`;
    const cells = [text, time(seconds), percent(all ? seconds / all : null)].map((cell) => {
      const span = document.createElement("span");
      span.textContent = cell;
      return span;
    });
    item.append(key, ...cells);
    return item;
  }));
}

function showWaits(upstreams) {
  const of = (reason) => upstreams.flatMap((upstream) => upstream.statistics.waits.filter((wait) => wait.reason === reason));
  const rows = REASONS.map((reason) => {
    const times = of(reason).map((wait) => wait.times);
    const worst = (name) => Math.max(0, ...times.map((each) => each[name]));
    return { reason, count: sum(times.map((each) => each.count)), total: sum(times.map((each) => each.sum)), p95: worst("p95"), max: worst("max") };
  }).filter(({ reason, count }) => reason !== "batch" || count);
  const most = Math.max(1, ...rows.map(({ count }) => count));
  fill("waits", rows.map(({ reason, count, total, p95, max }) => {
    const bar = document.createElement("div");
    bar.className = `bar ${reason}`;
    bar.style.width = `${count / most * 100}%`;
    const times = reason === "normal" || !count ? ["–", "–", "–"] : [time(total / count), time(p95), time(max)];
    return [reason, count.toLocaleString("en"), bar, ...times];
  }));
}

function showGates(upstreams) {
  const rows = [];
  for (const { name, is_fallback, keys, gates } of upstreams) {
    const host = is_fallback ? `${name} (fallback)` : name;
    if (!gates.length) rows.push([host, "–", "no call yet", "–", "–", "–"]);
    for (const gate of gates.slice(0, 10)) {
      const state = document.createElement("span");
      const closed = gate.closed_for !== null;
      state.className = closed ? "closed" : "open";
      state.textContent = closed ? `closed for ${time(gate.closed_for)}: ${WAITS[gate.closed_because] || ""}` : "open";
      rows.push([host, gate.credential, state, gate.waiting, gate.in_flight, typeof gate.rate === "number" ? `${number(gate.rate)}/s` : "–"]);
    }
    if (keys > 10) rows.push([host, `${keys - 10} more`, "", "", "", ""]);
  }
  fill("gate-table", rows);
}

function showArms(upstreams) {
  const arm = (name, part) => {
    const books = upstreams.map((upstream) => upstream.statistics[part]);
    const count = (...outcomes) => sum(books.flatMap((book) => outcomes.map((outcome) => book[outcome])));
    const all = count("accepted", "throttled", "overloaded", "failed", "refused", "exhausted", "rejected");
    const share = (...outcomes) => percent(all ? count(...outcomes) / all : null);
    const served = sum(books.map((book) => book.service.count));
    const mean = served ? sum(books.map((book) => book.service.sum)) / served : null;
    const p95 = served ? Math.max(...books.map((book) => book.response.p95)) : null;
    return [name, all.toLocaleString("en"), share("accepted"), share("throttled", "overloaded", "exhausted"), share("rejected"), time(mean), time(p95)];
  };
  fill("arms", [arm("inside", "attempts"), arm("outside", "control")]);
}

const slider = get("percent");
let moving = null, moves = 0;

function showRollout({ percent: now, movable }, isOlder) {
  // The hand of the user goes before a report from before it moved.
  if (moving === null && !isOlder) {
    slider.value = now;
    get("percent-text").textContent = `${now} %`;
  }
  get("token-row").hidden = movable;
  slider.disabled = !movable && !get("token").value;
}

async function move() {
  const wanted = Number(slider.value);
  const headers = { "content-type": "application/json" };
  if (get("token").value) headers.authorization = `Bearer ${get("token").value}`;
  try {
    const answer = await fetch("/-/rollout", {
      method: "PUT", headers, body: JSON.stringify({ percent: wanted }), signal: AbortSignal.timeout(PATIENCE),
    });
    const text = answer.ok ? `The rollout is at ${wanted} %.` : `Not moved: ${(await answer.json()).error.message}.`;
    say("rollout-state", text);
  } catch {
    say("rollout-state", "Not moved: the gateway does not answer.");
  }
  moving = null;
  moves++;
}

slider.addEventListener("input", () => {
  get("percent-text").textContent = `${slider.value} %`;
  clearTimeout(moving);
  moving = setTimeout(move, 300);
});

let instance = null, lostAt = null;

function show(report, isOlder) {
  const first = report.upstreams.filter((upstream) => !upstream.is_fallback);
  if (instance !== null && instance !== report.instance) say("rollout-state", "The gateway was restarted; it counts anew.");
  instance = report.instance;
  showRates(report.history);
  showPace(report.history);
  showTime(report.history);
  showWaits(first);
  showGates(report.upstreams);
  showArms(first);
  showRollout(report.rollout, isOlder);
  get("facts").textContent = `up for ${time(report.uptime)}, ${report.open.toLocaleString("en")} open`;
}

async function look() {
  const before = moves;
  try {
    const answer = await fetch("/snapshot", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(answer.statusText);
    const report = await answer.json();
    show(report, before !== moves);
    lostAt = null;
    get("state").dataset.state = report.stopping ? "lost" : "live";
    say("state", report.stopping ? "stopping" : "live");
  } catch (error) {
    lostAt ??= new Date();
    get("state").dataset.state = "lost";
    say("state", `no answer since ${lostAt.toLocaleTimeString()}; trying again`);
    console.warn(error);
  }
  document.querySelector("main").classList.toggle("stale", lostAt !== null);
  // A page that nobody sees asks less often.
  setTimeout(look, document.hidden ? 10 * EVERY : EVERY);
}
look();
