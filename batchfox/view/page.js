"use strict";
// What rows say is only ever put in as text: no markup is made from strings here.
const byId = (id) => document.getElementById(id);
const OPERATORS = ["contains", "is", "is not", "at least", "at most", "empty", "not empty"];
const LIMIT = 50;
const isRemote = new URLSearchParams(location.search).get("remote") === "1";
const token = takeToken();
const asked = { search: "", filters: [], status: null, code: null, mark: null, sort: "row_index", is_descending: false, offset: 0, limit: LIMIT };
let found = { rows: [], total: 0, facets: {} };
let version = "";
let isEmpty = false;
let types = {};
let chosen = -1;
let askings = 0;
let openings = 0;

function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return given || sessionStorage.getItem("token") || "";
}

function element(tag, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && typeof value !== "string") made[name] = value;
    else if (value !== undefined && value !== null) made.setAttribute(name, value);
  }
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

async function call(path, body) {
  const headers = { "X-Token": token };
  const options = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("the command that serves this page has ended");
  }
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error || reply.statusText);
  return answer;
}

function tell(error) {
  byId("trouble").textContent = error ? error.message || error : "";
  byId("trouble").hidden = !error;
}

const guarded = (task) => (...given) => Promise.resolve(task(...given)).catch(tell);

function showMarks(marks, trouble) {
  byId("marks").textContent = `marked: ${marks.retry} retry, ${marks.accept} accept`;
  byId("export-retry").disabled = !marks.retry;
  byId("export-accept").disabled = !marks.accept;
  if (trouble) tell(trouble);
}

async function refresh() {
  const state = await call("/api/state");
  byId("folder").textContent = state.folder;
  document.title = `${state.folder} · batchfox view`;
  byId("state").textContent = `${state.total.toLocaleString("en")} rows${state.is_running ? ", the run goes on" : ""}`;
  showMarks(state.marks, state.trouble);
  isEmpty = !state.total;
  if (state.version !== version) {
    const isFirst = !version;
    types = state.types;
    version = state.version;
    const sort = byId("sort");
    sort.replaceChildren(...Object.keys(types).map((name) => element("option", { text: name, value: name })));
    sort.value = asked.sort;
    await ask({ isQuiet: !isFirst });
  }
}

async function ask({ isQuiet = false } = {}) {
  const mine = ++askings;
  if (!isQuiet) byId("place").textContent = "…";
  const answer = await call("/api/rows", asked);
  if (mine !== askings) return;
  tell(null);
  const kept = found.rows[chosen];
  found = answer;
  version = answer.version;
  chosen = isQuiet && kept ? found.rows.findIndex((row) => row._index === kept._index && row._id === kept._id) : -1;
  showFacets();
  showRows();
}

function facet(label, rows, isOn, toggle) {
  const button = element("button", { type: "button", class: "facet", "aria-pressed": String(isOn) });
  button.textContent = rows === null ? label : `${label} ${rows.toLocaleString("en")}`;
  button.addEventListener("click", guarded(() => { toggle(); asked.offset = 0; return ask(); }));
  return button;
}

function showFacets() {
  const items = [];
  for (const [name, key] of [["status", "status"], ["code", "code"]]) {
    for (const [value, rows] of found.facets[name] || []) {
      items.push(facet(value, rows, asked[key] === value, () => { asked[key] = asked[key] === value ? null : value; }));
    }
  }
  for (const mark of ["retry", "accept", "none"]) {
    const label = mark === "none" ? "not marked" : `marked ${mark}`;
    items.push(facet(label, null, asked.mark === mark, () => { asked.mark = asked.mark === mark ? null : mark; }));
  }
  byId("facets").replaceChildren(...items);
}

function showRows() {
  const isSorted = !["row_index", "row_id", "status", "text", "error_message"].includes(asked.sort);
  byId("sort-head").hidden = !isSorted;
  byId("sort-head").textContent = isSorted ? asked.sort : "";
  byId("rows").replaceChildren(...found.rows.map((row, at) => {
    const line = element("tr", { "aria-selected": String(at === chosen), tabindex: "-1" },
      element("td", { class: "number", text: row._index }),
      element("td", {}, element("span", { class: `badge ${row.status}`, text: row.status })),
      element("td", { class: "id" }, element("button", { type: "button", class: "open", "aria-label": `open row ${row._id}` }, element("bdi", { text: row._id }))),
      element("td", { class: "said", dir: "auto", text: row.text ?? row.error_message ?? row.error_code ?? "" }));
    if (row._mark) line.children[1].append(" ", element("span", { class: "mark", text: row._mark }));
    if (isSorted) line.append(element("td", { class: "number", text: row[asked.sort] ?? "" }));
    line.addEventListener("click", guarded(() => choose(at, { isOpened: true })));
    return line;
  }));
  const last = asked.offset + found.rows.length;
  byId("place").textContent = found.total
    ? `${(asked.offset + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${found.total.toLocaleString("en")}`
    : isEmpty ? "no row is written yet: rows come with the first part" : "no row is like this";
  byId("previous").disabled = asked.offset === 0;
  byId("next").disabled = last >= found.total;
}

async function choose(at, { isOpened }) {
  if (at < 0 || at >= found.rows.length) return;
  chosen = at;
  [...byId("rows").children].forEach((line, number) => line.setAttribute("aria-selected", String(number === at)));
  byId("rows").children[at].scrollIntoView({ block: "nearest" });
  if (isOpened || !byId("row").hidden) await open(found.rows[at]);
}

async function open(row) {
  const mine = ++openings;
  const whole = await call("/api/row", { index: row._index, id: row._id });
  if (mine !== openings) return;
  const pane = byId("row");
  pane.replaceChildren(...parts(whole));
  pane.hidden = false;
  pane.scrollTop = 0;
  pane.parentElement.classList.add("both");
  if (matchMedia("(max-width: 60rem)").matches) pane.scrollIntoView({ block: "start" });
}

function close() {
  byId("row").hidden = true;
  byId("row").replaceChildren();
  byId("row").parentElement.classList.remove("both");
}

function* parts(row) {
  const buttons = [["Retry (r)", "retry"], ["Accept (a)", "accept"], ["Unmark (u)", null]].map(([text, given]) => {
    const button = element("button", { type: "button", text });
    button.addEventListener("click", guarded(() => mark(given)));
    return button;
  });
  const shut = element("button", { type: "button", text: "Close (Esc)" });
  shut.addEventListener("click", close);
  yield element("h2", {}, element("bdi", { text: row.id }));
  yield element("p", {}, element("span", { class: `badge ${row.status}`, text: row.status }), ` row ${row.index} `,
    element("span", { class: "mark", id: "row-mark", text: row.mark || "" }));
  yield element("div", { class: "bar" }, ...buttons, shut);
  if (row.error_message || row.outcome.error_code) {
    yield element("h3", { text: "error" });
    yield element("p", { class: "text", dir: "auto", text: `${row.outcome.error_code || ""} ${row.error_message || ""}` });
  }
  if (row.media.length) {
    yield element("h3", { text: "media" });
    yield element("div", { class: "media" }, ...row.media.map((medium, number) => show(row, medium, number)));
  }
  if (row.text !== null) {
    yield element("h3", { text: "answer" });
    yield element("div", { class: "text answer", id: "answer", dir: "auto", text: row.text });
  }
  if (row.reasoning) {
    yield element("h3", { text: "reasoning" });
    yield element("div", { class: "text", dir: "auto", text: row.reasoning });
  }
  for (const turnOf of row.turns) {
    yield element("h3", { text: turnOf.role });
    yield element("div", { class: "text", dir: "auto", text: turnOf.text });
  }
  if (row.note) yield element("p", { class: "quiet", text: `the request: ${row.note}` });
  yield* folded("input", row.columns, true);
  yield* folded("outcome", row.outcome, false);
  if (row.completion) {
    const text = row.completion;
    yield element("details", {}, element("summary", { text: "completion, as received" }), element("div", { class: "text", text }));
  }
}

function* folded(name, values, isOpen) {
  const pairs = Object.entries(values).flatMap(([key, value]) => [element("dt", { text: key }), element("dd", { dir: "auto", text: value })]);
  if (pairs.length) yield element("details", { open: isOpen }, element("summary", { text: name }), element("dl", {}, ...pairs));
}

function show(row, medium, number) {
  const isHere = medium.where === "here";
  if (!isHere && !(medium.where === "remote" && isRemote)) {
    if (medium.where === "remote") {
      const link = element("a", { href: medium.label, target: "_blank", rel: "noopener noreferrer", text: medium.label });
      return element("p", {}, `${medium.kind}: `, link, element("span", { class: "quiet", text: " (not loaded)" }));
    }
    return element("p", { text: `${medium.kind}: ${medium.label} (${medium.why})` });
  }
  const place = new URLSearchParams({ index: row.index, id: row.id, number, token });
  const source = isHere ? `/media?${place}` : medium.label;
  const tag = { image: "img", video: "video", audio: "audio" }[medium.kind];
  if (!tag) return element("p", { text: `${medium.kind}: ${medium.label}` });
  const made = element(tag, { src: source, title: medium.label, "aria-label": medium.label, referrerpolicy: "no-referrer" });
  if (tag === "img") made.alt = medium.label;
  else made.controls = true;
  made.addEventListener("error", () => made.replaceWith(element("p", { text: `${medium.kind}: ${medium.label} (cannot be shown)` })));
  return made;
}

async function mark(given) {
  const row = found.rows[chosen];
  if (!row) return;
  const answer = await call("/api/mark", { rows: [{ index: row._index, id: row._id }], mark: given });
  row._mark = given;
  showRows();
  if (byId("row-mark")) byId("row-mark").textContent = given || "";
  showMarks(answer.marks, answer.trouble);
}

function addFilter() {
  const column = element("select", { "aria-label": "column" }, ...Object.keys(types).map((name) => element("option", { text: name, value: name })));
  const operator = element("select", { "aria-label": "condition" }, ...OPERATORS.map((name) => element("option", { text: name, value: name })));
  const value = element("input", { type: "text", "aria-label": "value" });
  const gone = element("button", { type: "button", text: "Remove" });
  const line = element("div", { class: "filter" }, column, operator, value, gone);
  operator.addEventListener("change", () => { value.hidden = operator.value.endsWith("empty"); });
  gone.addEventListener("click", guarded(() => { line.remove(); return submit(); }));
  byId("filters").append(line);
  column.focus();
}

function submit() {
  asked.search = byId("search").value.trim();
  asked.filters = [...byId("filters").children].map((line) => {
    const [column, operator, value] = line.children;
    return { column: column.value, operator: operator.value, value: value.value };
  });
  asked.sort = byId("sort").value || "row_index";
  asked.is_descending = byId("descending").checked;
  asked.offset = 0;
  return ask();
}

function page(step) {
  const to = asked.offset + step * LIMIT;
  if (to < 0 || to >= found.total) return undefined;
  asked.offset = to;
  byId("scroll").scrollTop = 0;
  return ask();
}

async function save(kind) {
  const reply = await fetch(`/api/marks?mark=${kind}`, { headers: { "X-Token": token } });
  const link = element("a", { href: URL.createObjectURL(await reply.blob()), download: `${kind}.jsonl` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function clear() {
  byId("search").value = "";
  byId("filters").replaceChildren();
  Object.assign(asked, { status: null, code: null, mark: null });
  return submit();
}

const KEYS = {
  "/": () => byId("search").focus(),
  j: () => choose(chosen + 1, { isOpened: false }),
  k: () => choose(chosen - 1, { isOpened: false }),
  ArrowDown: () => choose(chosen + 1, { isOpened: false }),
  ArrowUp: () => choose(chosen - 1, { isOpened: false }),
  Enter: () => choose(chosen, { isOpened: true }),
  Escape: close,
  r: () => mark("retry"),
  a: () => mark("accept"),
  u: () => mark(null),
  n: () => page(1),
  p: () => page(-1),
  "?": () => byId("help-button").click(),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target !== document.body) event.target.blur();
  if (event.target.matches("input, select, textarea, video, audio") && event.key !== "Escape") return;
  if (event.target.matches("button, a, summary") && event.key === "Enter") return;
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  guarded(KEYS[event.key])();
});
byId("ask").addEventListener("submit", (event) => { event.preventDefault(); guarded(submit)(); });
byId("sort").addEventListener("change", guarded(submit));
byId("descending").addEventListener("change", guarded(submit));
byId("add-filter").addEventListener("click", addFilter);
byId("clear").addEventListener("click", guarded(clear));
byId("previous").addEventListener("click", guarded(() => page(-1)));
byId("next").addEventListener("click", guarded(() => page(1)));
byId("export-retry").addEventListener("click", guarded(() => save("retry")));
byId("export-accept").addEventListener("click", guarded(() => save("accept")));
byId("help-button").addEventListener("click", () => {
  byId("help").hidden = !byId("help").hidden;
  byId("help-button").setAttribute("aria-expanded", String(!byId("help").hidden));
});
byId("remote").checked = isRemote;
byId("remote").addEventListener("change", () => { location.search = byId("remote").checked ? "?remote=1" : ""; });

guarded(refresh)();
setInterval(guarded(refresh), 3000);
