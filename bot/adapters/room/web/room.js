// The room's page: sends what people do, and shows what the stream of events brings. The server draws every message;
// here they are only put into their place.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const room = $("#room");

// Times, as the reader's clock has them.

function localTimes(within) {
  for (const time of within.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    const day = today ? {} : { day: "numeric", month: "short" };
    time.textContent = at.toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" });
    time.title = at.toLocaleString();
  }
}
localTimes(document);

if (room) {
  const { channel, thread, me } = room.dataset;
  const posts = $("#posts");
  const scroll = $("#scroll");
  const words = $("#words");

  // Asking the server. Whatever it refuses is one sentence for the reader.

  async function ask(method, path, body) {
    let answer;
    try {
      answer = await fetch(path, {
        method,
        headers: body ? { "Content-Type": "application/json" } : {},
        body: body ? JSON.stringify(body) : undefined,
      });
    } catch {
      return trouble("Moss cannot be reached; try again in a moment.");
    }
    if (answer.status === 401) return leave();
    if (answer.ok) return trouble("") || true;
    const said = await answer.json().catch(() => ({}));
    return trouble(said.error || "That did not work, and Moss gave no reason.");
  }

  function trouble(sentence) {
    $("#trouble").textContent = sentence;
    return false;
  }

  function leave() {
    location.assign("/enter?next=" + encodeURIComponent(location.pathname));
    return false;
  }

  // The composer. The same words are sent under the same key until they have arrived, so that they arrive once.

  let sending = { text: "", key: "" };

  async function send() {
    const text = words.value;
    if (!text.trim()) return;
    if (sending.text !== text) sending = { text, key: newKey() };
    words.readOnly = true;
    const arrived = await ask("POST", "/api/messages", { channel, thread: thread || null, text, key: sending.key });
    words.readOnly = false;
    if (arrived) {
      words.value = "";
      sending = { text: "", key: "" };
      grow();
      toEnd();
    }
    words.focus();
  }

  function newKey() {
    return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
  }

  function grow() {
    words.rows = Math.min(8, words.value.split("\n").length);
  }

  $("#composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  words.addEventListener("input", grow);
  words.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });

  // Buttons of messages.

  posts.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-act]");
    if (!button) return;
    const message = `/api/messages/${button.closest("[data-id]").dataset.id}`;
    if (button.dataset.act === "react") {
      const mine = button.getAttribute("aria-pressed") === "true";
      await ask(mine ? "DELETE" : "PUT", `${message}/reactions/${encodeURIComponent(button.dataset.emoji)}`);
    } else if (button.dataset.act === "pick") {
      pick(message);
    } else {
      const { verb, subject, reason } = button.dataset;
      const why = reason ? await words_of($("#reason"), `${reason}: why?`) : "";
      if (why === null) return;
      button.disabled = true;
      await ask("POST", `${message}/press`, { verb, subject, reason: why });
      button.disabled = false;
    }
  });

  // What the picker's buttons do is decided by their click: a dialog's form keeps its last value on Escape.

  let picking = "";

  function pick(message) {
    picking = message;
    $("#picker").showModal();
  }

  $("#picker").addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.emoji) {
      await ask("PUT", `${picking}/reactions/${encodeURIComponent(button.dataset.emoji)}`);
    } else if (button.dataset.words) {
      const reason = await words_of($("#complaint"));
      if (reason !== null) await ask("POST", `${picking}/flag`, { failure: $("#complaint-kind").value, reason });
    }
  });

  function words_of(dialog, title) {
    const field = $("textarea", dialog);
    field.value = "";
    dialog.returnValue = "";
    if (title) $("h2", dialog).textContent = title;
    dialog.showModal();
    field.focus();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue ? field.value : null), { once: true });
    });
  }

  // Whoever reads the end stays there, also when a card grows or a picture arrives; whoever reads further up is left alone.

  // Only going up leaves the end: the event of our own scrolling may come after the next message already made it longer.

  let atEnd = true;
  let top = 0;

  function toEnd() {
    atEnd = true;
    scroll.scrollTop = scroll.scrollHeight;
    top = scroll.scrollTop;
  }

  scroll.addEventListener("scroll", () => {
    const up = scroll.scrollTop < top;
    top = scroll.scrollTop;
    if (scroll.scrollHeight - top - scroll.clientHeight < 60) atEnd = true;
    else if (up) atEnd = false;
  });
  const grown = new ResizeObserver(() => atEnd && toEnd());
  grown.observe(posts);
  grown.observe(scroll);

  // What happens in the room.

  function show(message) {
    if (message.channel !== channel) return elsewhere(message);
    const known = document.getElementById(`m-${message.id}`);
    const article = drawn(message.html);
    if (known) return replace($(":scope > article", known), article);
    const root = message.thread ? document.getElementById(`m-${message.thread}`) : null;
    const list = message.thread === (thread || null) ? posts : root && $(":scope > .replies", root);
    if (!list || Number(message.id) < Number(list.lastElementChild?.id.slice(2) ?? 0)) return;
    list.append(placed(message, article));
    $("#empty").hidden = true;
    if (message.by.name !== me || message.by.kind !== "person") {
      $("#heard").textContent = `${message.by.name}: ${message.text}`;
    }
  }

  function drawn(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    localTimes(template.content);
    return template.content.firstElementChild;
  }

  function placed(message, article) {
    const item = document.createElement("li");
    item.id = `m-${message.id}`;
    item.append(article);
    if (!thread && !message.thread) {
      const replies = document.createElement("ol");
      replies.className = "replies";
      replies.setAttribute("aria-label", "Replies");
      item.append(replies);
    }
    return item;
  }

  function replace(old, article) {
    const focused = old.contains(document.activeElement) ? sameIn(article, document.activeElement) : null;
    for (const open of old.querySelectorAll("details[open]")) sameIn(article, open)?.setAttribute("open", "");
    old.replaceWith(article);
    if (atEnd) toEnd(); // until its picture is there, the page may be shorter: nobody went up
    focused?.focus();
  }

  function sameIn(article, element) {
    const { act, emoji, verb } = element.dataset;
    const wanted = act ? `[data-act="${act}"]` + (emoji ? `[data-emoji="${CSS.escape(emoji)}"]` : "") +
      (verb ? `[data-verb="${CSS.escape(verb)}"]` : "") : element.tagName;
    return article.querySelector(wanted) || article.querySelector("[data-act]");
  }

  function elsewhere(message) {
    for (const link of document.querySelectorAll(".side a[data-channel]")) {
      if (link.dataset.channel === message.channel) link.classList.add("news");
    }
  }

  // The stream. It is closed while nobody looks, since a browser opens few connections to one place; the number of the
  // last change brings back whatever happened meanwhile.

  let stream = null;
  let last = room.dataset.seq;
  let tries = 0;

  function open() {
    stream?.close();
    stream = new EventSource(`/api/events?html=1&since=${last}`);
    stream.addEventListener("open", () => {
      tries = 0;
      room.dataset.live = "yes";
      $("#link").textContent = "";
    });
    stream.addEventListener("message", (event) => {
      last = event.lastEventId;
      show(JSON.parse(event.data));
    });
    stream.addEventListener("anew", () => location.reload());
    stream.addEventListener("out", leave);
    stream.addEventListener("error", lost);
  }

  async function lost() {
    room.dataset.live = "no";
    $("#link").textContent = "The connection is lost; trying again.";
    if (stream.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    const me = await fetch("/api/me").catch(() => null);
    if (me?.status === 401) return leave();
    tries += 1;
    setTimeout(open, Math.min(15000, 500 * 2 ** tries) * (0.5 + Math.random() / 2));
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stream.close();
    else open();
  });
  window.addEventListener("pagehide", () => stream.close());
  window.addEventListener("pageshow", (event) => event.persisted && open());

  open();
  const target = location.hash && document.getElementById(location.hash.slice(1));
  atEnd = !target;
  if (target) target.scrollIntoView({ block: "start" });
  else toEnd();
}
