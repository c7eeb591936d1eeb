/**
 * DOM helpers that build elements without markup.
 *
 * Invariants: text is only ever set through textContent, so that text of a producer can never become markup; a write
 * that would change nothing is skipped, because it would still cost layout.
 */

/**
 * Create an element.
 * @param {string} tag
 * @param {string} [className]
 * @param {...(Node|string)} children strings become text
 * @returns {HTMLElement}
 */
export function element(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
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
 * Return the element with an id; throw if there is none, because the page is broken then.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element with id '${id}'`);
  return found;
}

/**
 * Put children in order, moving as few as possible and preserving the focus.
 * @param {Element} parent
 * @param {Element[]} children
 */
export function arrange(parent, children) {
  const keep = new Set(children);
  const current = [...parent.children].filter((child) => keep.has(child) || child.remove());
  if (current.length === children.length && current.every((child, i) => child === children[i])) return;
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const indices = new Map(current.map((child, i) => [child, i]));
  const unmoved = longestIncreasing(children.map((child) => indices.get(child) ?? -1));
  let next = null;
  for (let i = children.length - 1; i >= 0; i -= 1) {
    if (!unmoved.has(i)) parent.insertBefore(children[i], next);
    next = children[i];
  }
  if (focused && focused !== document.activeElement && focused.isConnected) {
    focused.focus({ preventScroll: true });
  }
}

/**
 * Find a longest increasing subsequence: its elements do not have to move.
 * @param {number[]} numbers distinct; negative ones are skipped
 * @returns {Set<number>} indices
 */
function longestIncreasing(numbers) {
  /** For each length, the index of the smallest number that ends a subsequence of that length. @type {number[]} */
  const ends = [];
  const before = new Array(numbers.length);
  numbers.forEach((number, i) => {
    if (number < 0) return;
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (numbers[ends[middle]] < number) low = middle + 1;
      else high = middle;
    }
    before[i] = ends[low - 1];
    ends[low] = i;
  });
  const row = new Set();
  for (let i = ends.at(-1); i !== undefined; i = before[i]) row.add(i);
  return row;
}
