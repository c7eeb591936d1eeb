/**
 * Details below an open log line: the full message, tracebacks with their line breaks, metadata, the event as JSON,
 * and actions.
 *
 * Invariants: everything is plain text; very long texts are cut, and the cut is marked.
 */

import { element } from "/assets/dom.js";
import { STRINGS } from "/assets/strings.js";

/** Maximum number of characters shown of one text. */
const SHOWN = 100_000;
const FEEDBACK_MS = 1_600;

const cut = (text) => (text.length > SHOWN ? `${text.slice(0, SHOWN)}\n${STRINGS.line.more(text.length - SHOWN)}` : text);
const json = (value) => JSON.stringify(value, null, 2) ?? "";

/** Format a line as text, for a ticket or a chat. @param {import("/assets/lines.js").Line} line */
export function lineText({ item, label, source, message }) {
  const { event } = item;
  const full = typeof event.message === "string" ? event.message : message;
  const traces = Object.values(event.metadata ?? {}).filter(isTrace);
  return [[event.timestamp, label, source, full].filter(Boolean).join(" "), ...traces].join("\n");
}

const isTrace = (value) => typeof value === "string" && /\n/.test(value.trim());

/**
 * Copy a text to the clipboard.
 * @param {string} text
 * @returns {Promise<boolean>} whether it succeeded
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // The clipboard API requires TLS or localhost; execCommand still works without.
  }
  const box = /** @type {HTMLTextAreaElement} */ (element("textarea", "unseen"));
  const focused = document.activeElement;
  box.value = text;
  document.body.append(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  return done;
}

/** Create a button whose label briefly confirms the action. */
function button(name, text, act) {
  const made = element("button", name, text);
  made.setAttribute("type", "button");
  made.addEventListener("click", async () => {
    const succeeded = await act();
    if (typeof succeeded !== "boolean") return;
    made.textContent = succeeded ? STRINGS.line.copied : STRINGS.line.notCopied;
    setTimeout(() => (made.textContent = text), FEEDBACK_MS);
  });
  return made;
}

function facts(metadata) {
  const list = element("dl", "facts");
  for (const [name, value] of Object.entries(metadata)) {
    const text = cut(typeof value === "string" ? value : json(value));
    const given = element("dd", isTrace(value) ? "trace" : "", element("pre", "", text));
    list.append(element("dt", "", name), given);
  }
  return list;
}

/**
 * Build the details of a line.
 * @param {import("/assets/lines.js").Line} line line of an event
 * @param {object} actions
 * @param {(() => string)|null} actions.link returns a link to the line; null if it can no longer be linked
 * @param {() => void} actions.only filters the log by the line's source
 * @param {() => void} actions.close
 * @returns {DocumentFragment}
 */
export function details(line, { link, only, close }) {
  const { item } = line;
  const { event, subject, seq } = item;
  const inside = document.createDocumentFragment();
  const sequence = element("span", "number", `#${seq}`);
  sequence.id = "details-seq";
  const tools = element("div", "detail-tools", element("code", "", subject), sequence);
  tools.append(button("copy-line", STRINGS.line.copy, () => copy(lineText(line))));
  if (link) tools.append(button("copy-link", STRINGS.line.copyLink, () => copy(link())));
  if (line.source) tools.append(button("only-source", STRINGS.line.only, only));
  tools.append(button("details-close", STRINGS.line.close, close));
  inside.append(tools);
  if (typeof event.message === "string") inside.append(element("pre", "detail-message", cut(event.message)));
  const { metadata } = event;
  const has = metadata !== null && typeof metadata === "object" && Object.keys(metadata).length > 0;
  if (has) inside.append(facts(metadata));
  const full = element("details", "", element("summary", "", STRINGS.line.json), element("pre", "", cut(json(event))));
  // Expand the JSON if there is nothing else to show.
  full.toggleAttribute("open", typeof event.message !== "string" && !has);
  inside.append(full);
  return inside;
}
