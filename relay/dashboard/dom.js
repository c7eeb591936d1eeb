/**
 * Building elements without markup.
 *
 * Invariants: text only ever enters through textContent, so what a producer wrote can never become markup; a
 * write that would change nothing is not made, since it would still cost layout.
 */

/**
 * Make an element.
 * @param {string} tag
 * @param {string} [className]
 * @param {...(Node|string)} children strings become text
 * @returns {HTMLElement}
 */
export function element(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/**
 * Set an element's text.
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Set an attribute, or remove it with null.
 * @param {Element} node
 * @param {string} name
 * @param {string|null} value
 */
export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/**
 * The element with an id; a page without it is broken, so it throws.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element with id '${id}'`);
  return found;
}

/**
 * Put children in order, moving as few as possible and keeping the focus where it is.
 * @param {Element} parent
 * @param {Element[]} wanted
 */
export function arrange(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  wanted.forEach((child, index) => {
    const place = parent.children[index] ?? null;
    if (place !== child) parent.insertBefore(child, place);
  });
  if (focused && focused !== document.activeElement && focused.isConnected) {
    focused.focus({ preventScroll: true });
  }
}
