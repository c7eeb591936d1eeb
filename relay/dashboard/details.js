/**
 * What stands below an open line: the whole message, tracebacks with their breaks, metadata, the event, and
 * what can be done with it.
 *
 * Invariants: all of it is text; of a very long text the beginning is shown, and that it goes on is said.
 */

import { element } from "/assets/dom.js";
import { STRINGS } from "/assets/strings.js";

/** Characters of one text that are shown. */
const SHOWN = 100_000;
const SAID_MS = 1_600;

const cut = (text) => (text.length > SHOWN ? `${text.slice(0, SHOWN)}\n${STRINGS.line.more(text.length - SHOWN)}` : text);
const json = (value) => JSON.stringify(value, null, 2) ?? "";

/** A line as text, for a ticket or a chat. @param {import("/assets/lines.js").Line} line */
export function lineText({ item, label, source, message }) {
  const { event } = item;
  const whole = typeof event.message === "string" ? event.message : message;
  const traces = Object.values(event.metadata ?? {}).filter(isTrace);
  return [[event.timestamp, label, source, whole].filter(Boolean).join(" "), ...traces].join("\n");
}

const isTrace = (value) => typeof value === "string" && /\n/.test(value.trim());

/**
 * Put a text on the clipboard.
 * @param {string} text
 * @returns {Promise<boolean>} whether it is there
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS, except on this machine, a page has no clipboard; the old way still works there.
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

/** A button that does something, and says for a moment that it did. */
function button(name, text, act) {
  const made = element("button", name, text);
  made.setAttribute("type", "button");
  made.addEventListener("click", async () => {
    const said = await act();
    if (typeof said !== "boolean") return;
    made.textContent = said ? STRINGS.line.copied : STRINGS.line.notCopied;
    setTimeout(() => (made.textContent = text), SAID_MS);
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
 * @param {import("/assets/lines.js").Line} line of an event
 * @param {object} acts
 * @param {(() => string)|null} acts.link address of this line; null when it has none any more
 * @param {() => void} acts.only show only lines of its source
 * @param {() => void} acts.close
 * @returns {DocumentFragment}
 */
export function details(line, { link, only, close }) {
  const { item } = line;
  const { event, subject, seq } = item;
  const inside = document.createDocumentFragment();
  const place = element("span", "number", `#${seq}`);
  place.id = "details-seq";
  const tools = element("div", "detail-tools", element("code", "", subject), place);
  tools.append(button("copy-line", STRINGS.line.copy, () => copy(lineText(line))));
  if (link) tools.append(button("copy-link", STRINGS.line.copyLink, () => copy(link())));
  if (line.source) tools.append(button("only-source", STRINGS.line.only, only));
  tools.append(button("details-close", STRINGS.line.close, close));
  inside.append(tools);
  if (typeof event.message === "string") inside.append(element("pre", "detail-message", cut(event.message)));
  const { metadata } = event;
  const has = metadata !== null && typeof metadata === "object" && Object.keys(metadata).length > 0;
  if (has) inside.append(facts(metadata));
  const whole = element("details", "", element("summary", "", STRINGS.line.json), element("pre", "", cut(json(event))));
  // What has neither a message nor metadata has nothing else to show.
  whole.toggleAttribute("open", typeof event.message !== "string" && !has);
  inside.append(whole);
  return inside;
}
