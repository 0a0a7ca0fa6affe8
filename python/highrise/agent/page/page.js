// The chat page: asks /v1/agent, shows what comes back while it comes. No library, no build step, nothing from elsewhere.
// Text of the model reaches the page as text nodes only; it is never read as HTML.

const $ = (id) => document.getElementById(id);
const el = (tag, className = "", text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

const scroller = $("scroll"), log = $("log"), form = $("form"), question = $("question"), send = $("send");
const welcome = $("welcome"), note = $("status"), keyDialog = $("key-dialog");
let messages = recall();
let running = null; // AbortController of the answer under way
let apiKey = sessionStorage.getItem("key") || "";

// ---------------------------------------------------------------------------------------------------------- markdown

const WORDS = new Set(("and as assert async await break case catch class const continue def default defer del do elif else enum " +
  "except export extends false False finally fn for from func function global go if impl import in interface is lambda let " +
  "loop match mod mut new nil None not null or package pass pub raise return self static struct super switch this throw " +
  "trait true True try type undefined use var void where while with yield").split(" "));
const TOKEN = /(#[^\n]*|\/\/[^\n]*|\/\*[\s\S]*?\*\/|"""[\s\S]*?(?:"""|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|`(?:\\.|[^`\\])*`?)|(\b\d[\w.]*\b)|(\b[A-Za-z_]\w*\b)/g;
const HASH_IS_NO_COMMENT = new Set(["c", "cpp", "css", "js", "javascript", "ts", "typescript", "rust", "go", "java", "json", "html"]);

function highlight(code, language) {
  const part = document.createDocumentFragment();
  let at = 0;
  for (const found of code.matchAll(TOKEN)) {
    const [text, quoted, number, word] = found;
    let kind = "";
    if (quoted) {
      const isNote = text.startsWith("//") || text.startsWith("/*") || text.startsWith("#");
      if (text.startsWith("#") && HASH_IS_NO_COMMENT.has(language)) continue;
      if (text.startsWith("//") && language === "python") continue;
      kind = isNote ? "c" : "s";
    } else if (number) kind = "n";
    else if (WORDS.has(word)) kind = "w";
    if (!kind) continue;
    part.append(code.slice(at, found.index), el("span", kind, text));
    at = found.index + text.length;
  }
  part.append(code.slice(at));
  return part;
}

function codeBlock(code, language) {
  const block = el("div", "block"), head = el("div", "block-head"), pre = el("pre");
  const copy = el("button", "quiet copy", "Copy");
  copy.type = "button";
  copy.addEventListener("click", () => copyText(code, copy, pre));
  head.append(el("span", "", language || "text"), el("span", "spacer"), copy);
  pre.tabIndex = 0;
  pre.setAttribute("aria-label", `code in ${language || "text"}`);
  const inner = el("code");
  inner.append(highlight(code, language));
  pre.append(inner);
  block.append(head, pre);
  return block;
}

async function copyText(text, button, shown) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(shown); // over plain HTTP a page may not write the clipboard
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

const INLINE = /(`+)([\s\S]*?[^`])\1(?!`)|\*\*([^\s*][\s\S]*?)\*\*|(?<![\w*])\*([^\s*][^*\n]*?)\*(?![\w*])|(?<!\w)_([^\s_][^_\n]*?)_(?!\w)|~~([\s\S]+?)~~|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>")\]]+)/g;

function inline(text, into) {
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    into.append(text.slice(at, found.index));
    at = found.index + found[0].length;
    const [, , code, bold, star, under, gone, label, url, whole] = found;
    const bare = whole?.replace(/[.,;:!?'*_]+$/, ""); // the end of a sentence is no part of an address
    if (bare !== undefined) at -= whole.length - bare.length;
    if (code !== undefined) into.append(el("code", "", code.replace(/^ (.*) $/, "$1")));
    else if (bold !== undefined) into.append(inline(bold, el("strong")));
    else if (star !== undefined || under !== undefined) into.append(inline(star ?? under, el("em")));
    else if (gone !== undefined) into.append(inline(gone, el("del")));
    else {
      const link = el("a", "", label ?? bare);
      link.href = url ?? bare;
      link.target = "_blank";
      link.rel = "noopener noreferrer";
      into.append(link);
    }
  }
  into.append(text.slice(at));
  return into;
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

function list(lines) {
  // lines: [{depth, ordered, start, text}], nested by depth
  const build = (from, depth) => {
    const node = el(lines[from].ordered ? "ol" : "ul");
    if (lines[from].ordered && lines[from].start !== 1) node.start = lines[from].start;
    let at = from;
    while (at < lines.length && lines[at].depth >= depth) {
      if (lines[at].depth > depth) {
        const [inner, next] = build(at, lines[at].depth);
        (node.lastElementChild ?? node.appendChild(el("li"))).append(inner);
        at = next;
      } else {
        node.append(inline(lines[at].text, el("li")));
        at += 1;
      }
    }
    return [node, at];
  };
  return build(0, Math.min(...lines.map((line) => line.depth)))[0];
}

function markdown(text) {
  const out = document.createDocumentFragment();
  const lines = text.split("\n");
  const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
  for (let at = 0; at < lines.length;) {
    const line = lines[at];
    const fence = line.match(/^\s*(```+|~~~+)\s*([\w+#.-]*)/);
    if (fence) {
      let end = at + 1;
      while (end < lines.length && !lines[end].trim().startsWith(fence[1])) end += 1;
      const indent = line.length - line.trimStart().length;
      const body = lines.slice(at + 1, end).map((one) => one.startsWith(" ".repeat(indent)) ? one.slice(indent) : one.trimStart());
      out.append(codeBlock(body.join("\n"), fence[2].toLowerCase()));
      at = end + 1;
    } else if (!line.trim()) at += 1;
    else if (/^#{1,6}\s/.test(line)) {
      const level = Math.min(line.match(/^#+/)[0].length, 4);
      out.append(inline(line.replace(/^#+\s+|\s+#+$/g, ""), el(`h${level}`)));
      at += 1;
    } else if (/^\s*(?:-{3,}|\*{3,}|_{3,})\s*$/.test(line)) {
      out.append(el("hr"));
      at += 1;
    } else if (/^\s*>/.test(line)) {
      let end = at;
      while (end < lines.length && /^\s*>/.test(lines[end])) end += 1;
      const quote = el("blockquote");
      quote.append(markdown(lines.slice(at, end).map((one) => one.replace(/^\s*>\s?/, "")).join("\n")));
      out.append(quote);
      at = end;
    } else if (line.includes("|") && /^\s*\|?[\s:|-]*-[\s:|-]*$/.test(lines[at + 1] ?? "") && (lines[at + 1] ?? "").includes("|")) {
      const table = el("table"), head = table.createTHead().insertRow(), body = table.createTBody();
      for (const cell of cells(line)) head.append(inline(cell, el("th")));
      for (at += 2; at < lines.length && lines[at].includes("|"); at += 1) {
        const row = body.insertRow();
        for (const cell of cells(lines[at])) row.append(inline(cell, el("td")));
      }
      out.append(table);
    } else if (ITEM.test(line)) {
      const items = [];
      while (at < lines.length) {
        const found = lines[at].match(ITEM);
        if (found) items.push({ depth: found[1].length, ordered: found[3] !== undefined, start: Number(found[3] ?? 1), text: found[4] });
        else if (lines[at].trim() && /^\s+/.test(lines[at]) && !/^\s*(```|~~~)/.test(lines[at])) items[items.length - 1].text += `\n${lines[at].trim()}`;
        else break;
        at += 1;
      }
      out.append(list(items));
    } else {
      let end = at + 1;
      while (end < lines.length && lines[end].trim() && !/^\s*(?:```|~~~|#{1,6}\s|>)/.test(lines[end]) && !ITEM.test(lines[end])) end += 1;
      const paragraph = el("p");
      lines.slice(at, end).forEach((one, number) => {
        if (number) paragraph.append(/ {2}$/.test(lines[at + number - 1]) ? el("br") : "\n");
        inline(one, paragraph);
      });
      out.append(paragraph);
      at = end;
    }
  }
  return out;
}

// -------------------------------------------------------------------------------------------------------- the answer

/** Shows one answer while it comes. */
class Answer {
  constructor() {
    this.node = el("article", "turn assistant");
    this.node.setAttribute("aria-label", "Answer");
    this.waiting = el("div", "waiting");
    this.waiting.append(el("i"), el("i"), el("i"));
    this.waiting.setAttribute("aria-label", "thinking");
    this.node.append(this.waiting);
    log.append(this.node);
    this.text = "";      // of the step under way
    this.whole = "";     // of all steps
    this.body = null;
    this.steps = new Map();
    this.drawn = false;
    this.started = performance.now();
    this.firstAt = 0;
    follow();
  }

  take(event) {
    if (event.type === "sources") this.sources(event.sources);
    else if (event.type === "step") { this.settle(); this.wait(); }
    else if (event.type === "text") this.write(event.text);
    else if (event.type === "tool_call") this.call(event);
    else if (event.type === "tool_result") this.result(event);
    else if (event.type === "left_out") this.leftOut(event.data.turns);
    else if (event.type === "done") this.done(event);
    else if (event.error) this.fail(event.error.message);
    follow();
  }

  leftOut(turns) {
    const what = turns === 1 ? "The oldest question was" : `The ${turns} oldest questions were`;
    this.node.insertBefore(el("p", "note", `${what} left out: the conversation is longer than the model's context.`), this.waiting);
  }

  wait() { this.waiting.hidden = false; this.node.append(this.waiting); }

  sources(found) {
    const box = el("details", "aside"), inner = el("div", "inner"), files = new Set(found.map((one) => one.path));
    const summary = el("summary");
    summary.append(el("span", "dot good"), `${found.length} ${found.length === 1 ? "piece" : "pieces"} from ${[...files].slice(0, 3).map((path) => path.split("/").pop()).join(", ")}${files.size > 3 ? " …" : ""}`);
    for (const one of found) {
      const source = el("details", "source"), head = el("summary"), pre = el("pre");
      head.append(el("span", "", one.path), el("span", "place", `${one.start_line}–${one.end_line}`));
      pre.tabIndex = 0;
      pre.append(highlight(one.text.replace(/\n+$/, ""), one.language));
      source.append(head, pre);
      inner.append(source);
    }
    box.append(summary, inner);
    this.node.insertBefore(box, this.waiting);
  }

  write(text) {
    if (!this.firstAt) this.firstAt = performance.now();
    if (!this.body) {
      this.body = el("div", "answer writing");
      this.waiting.hidden = true;
      this.node.append(this.body);
    }
    this.text += text;
    this.whole += text;
    if (this.drawn) return;
    this.drawn = true;
    requestAnimationFrame(() => { this.draw(); follow(); });
  }

  draw() {
    this.drawn = false;
    if (this.body) this.body.replaceChildren(markdown(this.text));
  }

  settle() {
    this.draw();
    if (this.body) this.body.classList.remove("writing");
    this.body = null;
    this.text = "";
  }

  call(event) {
    this.settle();
    const box = el("details", "aside step"), summary = el("summary"), dot = el("span", "dot busy");
    let shown = event.arguments;
    try { shown = Object.values(JSON.parse(event.arguments)).join(" · "); } catch { /* shown as it is */ }
    summary.append(dot, el("span", "", event.name.replaceAll("_", " ")), el("code", "", shown));
    box.append(summary);
    this.steps.set(event.id, { box, dot });
    this.node.append(box);
    this.wait();
  }

  result(event) {
    const step = this.steps.get(event.id);
    if (!step) return;
    step.dot.className = `dot ${event.ok ? "good" : "bad"}`;
    step.dot.setAttribute("aria-label", event.ok ? "done" : "failed");
    const inner = el("div", "inner"), pre = el("pre");
    pre.tabIndex = 0;
    pre.textContent = event.text;
    inner.append(pre);
    step.box.append(inner);
  }

  done(event) {
    const seconds = (performance.now() - this.started) / 1000;
    const tokens = event.usage?.completion_tokens ?? 0;
    const writing = (performance.now() - (this.firstAt || this.started)) / 1000;
    const parts = [`${seconds.toFixed(1)} s`];
    if (tokens > 1 && writing > 0.05) parts.push(`${Math.round(tokens / writing)} tokens/s`);
    if (event.reason === "length") parts.push("stopped at the length limit");
    if (event.reason === "steps") parts.push("out of steps");
    this.end(parts);
  }

  recalled(text) {
    this.write(text);
    this.end([]);
  }

  end(parts) {
    this.ended = true;
    this.settle();
    this.waiting.remove();
    const facts = el("div", "facts");
    facts.append(el("span", "", parts.join(" · ")));
    if (this.whole) {
      const copy = el("button", "quiet", "Copy");
      copy.type = "button";
      copy.addEventListener("click", () => copyText(this.whole, copy, this.node.querySelector(".answer")));
      facts.append(copy);
    }
    this.node.append(facts);
  }

  fail(message) {
    this.ended = true;
    this.settle();
    this.waiting.remove();
    const box = el("div", "failure", message);
    box.setAttribute("role", "alert");
    this.node.append(box);
  }
}

let pinned = true;
scroller.addEventListener("scroll", () => {
  pinned = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
}, { passive: true });
function follow() { if (pinned) scroller.scrollTop = scroller.scrollHeight; }

// ---------------------------------------------------------------------------------------------------------- the wire

const headers = () => ({ "content-type": "application/json", ...(apiKey && { authorization: `Bearer ${apiKey}` }) });

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    let end;
    while ((end = held.indexOf("\n\n")) >= 0) {
      const data = held.slice(0, end).split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      held = held.slice(end + 2);
      if (data.trim()) yield JSON.parse(data);
    }
  }
}

/** The conversation outlives a reload of this tab, and nothing more. */
function recall() {
  try { return JSON.parse(sessionStorage.getItem("messages")) ?? []; } catch { return []; }
}
function remember() {
  try { sessionStorage.setItem("messages", JSON.stringify(messages)); } catch { /* too long to keep */ }
}

function showQuestion(text) {
  welcome.hidden = true;
  const mine = el("article", "turn person");
  mine.setAttribute("aria-label", "Your question");
  mine.append(el("div", "said", text));
  log.append(mine);
}

async function ask(text) {
  const conversation = messages; // "New chat" begins another one while this goes on
  showQuestion(text);
  conversation.push({ role: "user", content: text });
  pinned = true;
  const answer = new Answer();
  const mine = running = new AbortController();
  document.body.classList.add("busy");
  log.setAttribute("aria-busy", "true"); // a screen reader reads the answer when it is whole
  send.setAttribute("aria-label", "Stop");
  send.disabled = false;
  note.textContent = "";
  let failed = false;
  try {
    const reply = await fetch("/v1/agent", {
      method: "POST",
      headers: headers(),
      signal: mine.signal,
      body: JSON.stringify({ messages: conversation, use_context: $("use-context").checked, use_tools: $("use-tools").checked }),
    });
    if (!reply.ok) {
      const { error } = await reply.json().catch(() => ({ error: { message: `The server answered ${reply.status}.` } }));
      failed = true;
      answer.fail(error.message);
      if (reply.status === 401) askForKey(error.message);
    } else {
      for await (const event of events(reply.body)) {
        if (event.error) failed = true;
        answer.take(event);
      }
      if (!answer.ended) { failed = true; answer.fail("The answer broke off: the server ended it. Ask again."); }
    }
  } catch (error) {
    if (error.name === "AbortError") answer.end(["stopped"]);
    else { failed = true; answer.fail(answer.whole ? "The answer broke off: the connection was lost." : "The server does not answer. Is it still running?"); }
  }
  if (failed && !answer.whole) {
    conversation.pop(); // so that the next try does not ask twice
    if (conversation === messages && !question.value) question.value = text; // to be mended and sent again
  } else if (answer.whole) conversation.push({ role: "assistant", content: answer.whole });
  else conversation.pop();
  if (running !== mine) return; // another conversation has begun
  running = null;
  remember();
  document.body.classList.remove("busy");
  log.removeAttribute("aria-busy");
  send.setAttribute("aria-label", "Send");
  resize();
  question.focus();
  follow();
}

function askForKey(reason) {
  $("key-reason").textContent = reason;
  keyDialog.showModal();
}

keyDialog.addEventListener("close", () => {
  if (keyDialog.returnValue !== "use") { note.textContent = "Without a key this server does not answer."; return; }
  keyDialog.returnValue = "";
  apiKey = $("key").value.trim();
  sessionStorage.setItem("key", apiKey);
  about();
});

// ------------------------------------------------------------------------------------------------------------ people

function resize() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
  send.disabled = !running && !question.value.trim();
}

function submit() {
  const text = question.value.trim();
  if (!text || running) return;
  question.value = "";
  resize();
  ask(text);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else submit();
});
question.addEventListener("input", resize);
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); submit(); }
  if (event.key === "ArrowUp" && !question.value) {
    const last = messages.findLast((message) => message.role === "user");
    if (last) { event.preventDefault(); question.value = last.content; resize(); }
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !keyDialog.open) running.abort();
  const typing = ["TEXTAREA", "INPUT"].includes(document.activeElement?.tagName) && document.activeElement.type !== "checkbox";
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); question.focus(); }
  if (event.key.toLowerCase() === "o" && event.shiftKey && (event.ctrlKey || event.metaKey)) { event.preventDefault(); fresh(); }
});

function fresh() {
  running?.abort();
  running = null;
  messages = [];
  remember();
  document.body.classList.remove("busy");
  log.removeAttribute("aria-busy");
  send.setAttribute("aria-label", "Send");
  resize();
  log.replaceChildren(welcome);
  welcome.hidden = false;
  question.focus();
}
$("fresh").addEventListener("click", fresh);

const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const next = dark === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
});

for (const idea of ["Where do we read configuration files?", "Write a function that merges two sorted lists, with a test.", "Explain how a context manager works in Python."]) {
  const button = el("button", "", idea), item = el("li");
  button.type = "button";
  button.addEventListener("click", () => { if (!running) ask(idea); });
  item.append(button);
  $("ideas").append(item);
}

async function about() {
  try {
    const reply = await fetch("/v1/assistant", { headers: headers() });
    if (reply.status === 401) { askForKey((await reply.json()).error.message); return; }
    const facts = await reply.json();
    $("name").textContent = facts.name;
    document.title = facts.name;
    $("model").textContent = facts.model;
    $("use-tools").parentElement.classList.toggle("missing", !facts.tools.length);
    $("use-context").parentElement.classList.toggle("missing", !facts.chunks);
    if (facts.chunks) $("about").textContent = `It knows ${facts.chunks.toLocaleString("en")} ${facts.chunks === 1 ? "piece" : "pieces"} of your sources. What you ask stays with this server.`;
  } catch {
    note.textContent = "The server does not answer. Is it still running?";
  }
}

for (const message of messages) {
  if (message.role === "user") showQuestion(message.content);
  else new Answer().recalled(message.content);
}
about();
resize();
