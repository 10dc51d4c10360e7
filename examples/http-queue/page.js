// page.js: what the page at / does. It calls the API as any client does.
"use strict";
const at = id => document.getElementById(id);
const number = n => n.toLocaleString("en");
const MINUTES = 5;

// Everything is set as text: what a file or a message says is never HTML.
function made(tag, text, ...inside) {
  const element = document.createElement(tag);
  element.textContent = text;
  element.append(...inside);
  return element;
}

function authorization() {
  const token = sessionStorage.getItem("token");
  return token ? {Authorization: `Bearer ${token}`} : {};
}

async function call(path, options = {}) {
  const answer = await fetch(path, {...options, headers: authorization()});
  at("signin").hidden = answer.status !== 401;
  const told = await answer.json();
  if (!answer.ok) {
    const error = Error(told.title);
    error.status = answer.status;
    throw error;
  }
  return told;
}

// A message in a few words, whatever its Payload has.
function title({payload}) {
  const values = Object.values(payload).slice(0, 2).join(": ");
  return values.length > 200 ? `${values.slice(0, 200)} …` : values;
}

// --- Counts, and their course over the last minutes -------------------------

let course = [];
try {
  course = JSON.parse(sessionStorage.getItem("course")) ?? [];
} catch { /* there was none */ }

function line(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS(svg.namespaceURI, "polyline");
  const since = Date.now() - MINUTES * 60_000;
  const values = course.map(each => each.counts[name] ?? 0);
  const most = Math.max(1, ...values);
  const points = course.map(({time}, index) => [
    100 * (time - since) / (MINUTES * 60_000),
    19 - 18 * values[index] / most,
  ].map(each => each.toFixed(1)).join(","));
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", values.length
    ? `${name} in the last ${MINUTES} minutes: from ${Math.min(...values)} ` +
      `to ${Math.max(...values)}`
    : name);
  path.setAttribute("points", points.join(" "));
  path.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(path);
  return svg;
}

function showCounts({queue, ...counts}) {
  at("kind").textContent = `In ${queue}.`;
  const time = Date.now();
  course = course.filter(each => time - each.time < MINUTES * 60_000);
  course.push({time, counts});
  sessionStorage.setItem("course", JSON.stringify(course));
  at("state").replaceChildren(...Object.entries(counts).map(([name, n]) => {
    const box = made("div", "");
    box.className = name;
    const value = made("dd", number(n));
    value.dataset.state = name;
    const course = made("dd", "");
    course.className = "course";
    course.append(line(name));
    box.append(made("dt", name), value, course);
    return box;
  }));
}

// --- Dead letters -----------------------------------------------------------

let shown = "";
function showDead(messages) {
  at("none").hidden = messages.length > 0;
  at("letters").hidden = messages.length === 0;
  const now = JSON.stringify(messages);
  if (now === shown) return;  // or a click would miss its button
  shown = now;
  const focused = document.activeElement?.closest?.("#letters");
  const index = [...at("dead").querySelectorAll("button")]
    .indexOf(document.activeElement);
  at("dead").replaceChildren(...messages.map(message => {
    const button = made("button", "Requeue");
    button.setAttribute("aria-label", `Requeue ${title(message)}`);
    button.onclick = () => requeue(`v1/dead/${message.id}/requeue`, button);
    return made("tr", "", made("td", title(message)),
                made("td", message.attempts), made("td", message.error ?? ""),
                made("td", "", button));
  }));
  if (focused) {  // who works with the keyboard goes on where they were
    const buttons = [...at("dead").querySelectorAll("button")];
    (buttons[Math.min(index, buttons.length - 1)] ?? at("dead-title")).focus();
  }
}

async function requeue(path, button) {
  button.disabled = true;
  try {
    const {requeued} = await call(path, {method: "POST"});
    at("told").textContent = `${number(requeued)} requeued.`;
  } catch (error) {
    at("told").textContent = `Not requeued: ${error.message}.`;
  }
  button.disabled = false;
  button.focus();
  await update();
}
at("all").onclick = event => requeue("v1/dead/requeue", event.target);

// --- Upload -----------------------------------------------------------------

function send(body, progress) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();  // fetch tells no progress
    request.open("POST", "v1/uploads");
    const headers = {...authorization(), "Idempotency-Key": key};
    for (const [name, value] of Object.entries(headers)) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = ({loaded, total}) => progress(loaded / total);
    request.onload = () => {
      try {
        done(JSON.parse(request.responseText));
      } catch {
        failed(Error(`status ${request.status}`));
      }
    };
    request.onerror = () => failed(Error("no answer; try again"));
    request.send(body);
  });
}

// The same files, sent again because no answer came, are taken once.
let key = "";
const newKey = () => {
  const random = crypto.getRandomValues(new Uint8Array(16));
  key = [...random].map(each => each.toString(16).padStart(2, "0")).join("");
};
at("files").onchange = newKey;

function result({file, rows, faults = [], warnings = [], repeated}) {
  const told = faults.length ? "refused, nothing of it is stored"
    : `${number(rows)} rows${repeated ? ", which were in already" : ""}`;
  const inside = faults.map(({row, column, reason}) => {
    const where = [row && `row ${row}`, column].filter(Boolean);
    return made("li", [...where, reason].join(": "));
  });
  inside.push(...warnings.map(each => made("li", each)));
  const block = made("div", "", made("strong", `${file}: ${told}`),
                     made("ul", "", ...inside));
  block.className = faults.length ? "bad" : "";
  return block;
}

at("upload").onsubmit = async event => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  at("sent").hidden = false;
  at("results").replaceChildren(made("p", "Sending …"));
  try {
    if (!key) newKey();
    const told = await send(new FormData(event.target), share => {
      at("sent").value = share;
      if (share === 1) at("results").replaceChildren(made("p", "Reading …"));
    });
    const blocks = (told.files ?? []).map(result);
    at("results").replaceChildren(
      ...(blocks.length ? blocks : [made("p", told.title)]));
    newKey();
  } catch (error) {
    at("results").replaceChildren(made("p", `Not uploaded: ${error.message}`));
  }
  at("sent").hidden = true;
  button.disabled = false;
  await update();
};

// --- Messages ---------------------------------------------------------------

let after = "";
let following = "";
async function showMessages() {
  const wanted = new URLSearchParams({limit: 25});
  if (at("which").value) wanted.set("state", at("which").value);
  if (at("file").value) wanted.set("upload", at("file").value);
  if (after) wanted.set("after", after);
  let page;
  try {
    page = await call(`v1/messages?${wanted}`);
  } catch (error) {
    if (error.status !== 404) throw error;
    at("main").hidden = true;  // a broker cannot be asked
    return;
  }
  at("main").hidden = false;
  at("messages").replaceChildren(...page.messages.map(message => {
    const state = made("td", message.state);
    state.className = `state ${message.state}`;
    const from = message.upload ? `${message.upload}, row ${message.row}` : "";
    const created = new Date(message.created_at * 1000);
    return made("tr", "", made("td", title(message)), state,
                made("td", message.attempts), made("td", from),
                made("td", created.toLocaleString()));
  }));
  following = page.next ?? "";
  const count = page.messages.length;
  const told = count ? `${count} shown.` : "None.";
  if (at("count").textContent !== told) at("count").textContent = told;
  at("next").hidden = !following;
  at("first").hidden = !after;
}

at("filter").onsubmit = event => {
  event.preventDefault();
  after = "";
  update();
};
at("which").onchange = at("filter").onsubmit;
at("next").onclick = () => { after = following; update(); };
at("first").onclick = () => { after = ""; update(); };

// --- All of it, every second, while somebody looks --------------------------

at("signin").onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem("token", at("token").value);
  update();
};

function live(text, off) {
  if (at("live").textContent !== text) at("live").textContent = text;
  at("live").className = off ? "off" : "";
}

async function update() {
  try {
    showCounts(await call("v1/state"));
    showDead((await call("v1/dead")).messages);
    await showMessages();
    live("Live.", false);
  } catch (error) {
    live(`Not live: ${error.message}.`, true);
  }
}

(async () => {
  for (;;) {
    if (!document.hidden) await update();
    await new Promise(go => setTimeout(go, 1000));
  }
})();
