/** Callbacks that run at most once per animation frame, however often they are scheduled. */

/** Interval where nothing is painted, in hidden tabs and outside of browsers, in milliseconds. */
const HIDDEN_MS = 250;

const scheduled = new Set<() => void>();

/** Schedule a callback for the next frame; scheduled twice before it, it runs once. */
export function atNextFrame(callback: () => void): void {
  scheduled.add(callback);
  if (scheduled.size > 1) return;
  if (globalThis.document?.visibilityState === "visible") requestAnimationFrame(run);
  else setTimeout(run, HIDDEN_MS);
}

function run(): void {
  const callbacks = [...scheduled];
  scheduled.clear();
  for (const callback of callbacks) callback();
}
