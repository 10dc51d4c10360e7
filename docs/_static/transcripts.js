/* Buttons for the transcripts (docs/_ext/transcripts.py): copy a command, play them all.

   Without this file a page shows the same windows, with everything in them. Nothing is
   loaded, stored or sent. */
"use strict";

(() => {
  // Milliseconds, where no run was recorded: a key, before a line, before a command.
  const KEY = 25;
  const LINE = 350;
  const COMMAND = 700;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  const element = (name, attributes, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  const ICON =
    '<svg viewBox="0 0 16 16" width="16" height="16" fill="none" stroke="currentColor"' +
    ' stroke-width="1.5" aria-hidden="true"><rect x="5.5" y="5.5" width="8" height="8" rx="1.5"/>' +
    '<path d="M10.5 2.5h-6a2 2 0 0 0-2 2v6"/></svg>';
  const DONE = ICON.replace(/<rect.*(?=<\/svg>)/, '<path d="M3 8.5l3.5 3.5L13 4.5"/>');

  const copy = async (text) => {
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
      return;
    }
    const field = element("textarea", { readonly: "" }, text); // over plain http
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  };

  const addCopy = (event, say) => {
    const command = event.querySelector("kbd")?.textContent;
    if (!command) return;
    const name = `Copy: ${command}`;
    const button = element("button", { type: "button", class: "copy", "aria-label": name, title: "Copy" });
    button.innerHTML = ICON;
    button.addEventListener("click", async () => {
      try {
        await copy(command);
        button.innerHTML = DONE;
        say("Copied");
      } catch {
        say("Not copied: the browser refuses");
      }
      setTimeout(() => (button.innerHTML = ICON), 2000);
    });
    event.querySelector(".typed").prepend(button);
  };

  /* What appears, one after the other: a row of a screen, or that a shell goes on. */
  const moments = (events) => {
    const found = [];
    let clock = 0;
    for (const event of events) {
      const rows = [...event.querySelectorAll("[data-at], .typed, .line, .key")];
      for (const row of rows.length ? rows : [event]) {
        const typed = row.matches(".typed");
        clock += typed ? COMMAND : LINE;
        found.push({ event, row, typed, at: clock });
        if (typed) clock += Math.min(KEY * row.querySelector("kbd").textContent.length, 1200);
      }
    }
    const timed = found.length && found.every(({ row }) => row.dataset.at);
    if (timed) for (const each of found) each.at = 1000 * Number(each.row.dataset.at);
    return found.sort((one, other) => one.at - other.at);
  };

  const type = async (row, wait) => {
    const keys = row.querySelector("kbd");
    const text = keys.textContent;
    for (let end = 0; end < text.length; end += 1) {
      const rest = element("span", { class: "ahead" }, text.slice(end));
      keys.replaceChildren(text.slice(0, end), rest);
      if (!(await wait(KEY))) break;
    }
    keys.replaceChildren(text);
  };

  const setUp = (transcript) => {
    const events = [...transcript.querySelectorAll(".event")];
    const status = element("span", { class: "status", role: "status" });
    const say = (text) => (status.textContent = text);
    const button = element("button", { type: "button", class: "play" }, "\u25b6 Play");
    let stop = null;

    const play = async () => {
      let going = true;
      let wake = () => {};
      stop = () => {
        going = false;
        wake();
      };
      const wait = (time) =>
        new Promise((resolve) => {
          wake = () => resolve(going);
          setTimeout(wake, time);
        });
      const all = moments(events);
      const heads = events.map((event) => event.querySelector(".shell"));
      for (const each of [...heads, ...all.map(({ row }) => row)]) each.classList.add("ahead");
      transcript.dataset.state = "playing";
      button.textContent = "\u25a0 Stop";
      const start = performance.now();
      for (const { event, row, typed, at } of all) {
        const left = at - (performance.now() - start);
        if (left > 0 && !(await wait(left))) break;
        const head = event.querySelector(".shell");
        if (head.classList.contains("ahead") || row === event) {
          const shell = event.dataset.shell;
          const what = event.querySelector("kbd, .goes-on").textContent;
          say(`${events.indexOf(event) + 1} of ${events.length}, ${shell}: ${what}`);
        }
        head.classList.remove("ahead");
        row.classList.remove("ahead");
        if (typed && !calm.matches && !(await type(row, wait).then(() => going))) break;
      }
      for (const each of transcript.querySelectorAll(".ahead")) each.classList.remove("ahead");
      stop = null;
      transcript.dataset.state = going ? "played" : "stopped";
      button.textContent = "\u25b6 Play";
      say(going ? "Played to the end" : "Stopped; all of it is shown");
    };

    button.addEventListener("click", () => (stop ? stop() : play()));
    const bar = element("div", { class: "bar" }, status);
    if (events.length > 1) bar.append(button);
    transcript.prepend(bar);
    for (const event of events) addCopy(event, say);
  };

  document.querySelectorAll(".transcript").forEach(setUp);
})();
